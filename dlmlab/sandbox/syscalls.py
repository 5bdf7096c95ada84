"""The filter of system calls that guests run under: what CPython, its threads and its child processes need.

Everything else answers "Function not implemented", as on a kernel that lacks it: keyrings, tracing and the memory of
other processes, namespaces and mounts, sockets other than AF_UNIX pairs, io_uring, userfaultfd, perf, bpf, the kernel's
log, file locks and notifications (seen by whoever has the same library file open), shared memory and memfd (counted by
no limit), and what no kernel has yet. Calls of another architecture's numbering end the process. bubblewrap loads the
filter (`--seccomp`), as classic BPF assembled here, which needs no library and works on x86_64 and aarch64.
"""

from __future__ import annotations

import platform
import struct
from collections.abc import Iterable, Iterator
from functools import cache
from typing import NamedTuple

from dlmlab.errors import UserError


class Machine(NamedTuple):
    """An architecture: its number in the kernel's audit.h, and the column of its call numbers in the tables below."""

    audit: int
    column: int


MACHINES = {"x86_64": Machine(0xC000003E, 0), "aarch64": Machine(0xC00000B7, 1)}

# Name, number on x86_64, number on aarch64 (asm/unistd_64.h, asm-generic/unistd.h); "-" where it has no such call.
ALLOWED = {
    "files": """
        read 0 63; write 1 64; readv 19 65; writev 20 66; pread64 17 67; pwrite64 18 68; preadv 295 69;
        pwritev 296 70; preadv2 327 286; pwritev2 328 287; lseek 8 62; open 2 -; openat 257 56;
        creat 85 -; close 3 57; close_range 436 436; dup 32 23; dup2 33 -; dup3 292 24; pipe 22 -; pipe2 293 59;
        access 21 -; faccessat 269 48; faccessat2 439 439; stat 4 -; fstat 5 80; lstat 6 -; newfstatat 262 79;
        statx 332 291; statfs 137 43; fstatfs 138 44; readlink 89 -; readlinkat 267 78; getdents 78 -;
        getdents64 217 61; getcwd 79 17; chdir 80 49; fchdir 81 50; mkdir 83 -; mkdirat 258 34; rmdir 84 -;
        unlink 87 -; unlinkat 263 35; rename 82 -; renameat 264 38; renameat2 316 276; link 86 -; linkat 265 37;
        symlink 88 -; symlinkat 266 36; chmod 90 -; fchmod 91 52; fchmodat 268 53; fchmodat2 452 452; umask 95 166;
        truncate 76 45; ftruncate 77 46; fallocate 285 47; fsync 74 82; fdatasync 75 83; utime 132 -; utimes 235 -;
        futimesat 261 -; utimensat 280 88; sendfile 40 71; getxattr 191 8; lgetxattr 192 9; fgetxattr 193 10;
        listxattr 194 11; llistxattr 195 12; flistxattr 196 13;
    """,
    "waiting": """
        select 23 -; pselect6 270 72; poll 7 -; ppoll 271 73; epoll_create 213 -; epoll_create1 291 20;
        epoll_ctl 233 21; epoll_wait 232 -; epoll_pwait 281 22; epoll_pwait2 441 441;
    """,
    "socket pairs": """
        sendto 44 206; recvfrom 45 207; sendmsg 46 211; recvmsg 47 212; shutdown 48 210; getsockname 51 204;
        getpeername 52 205; getsockopt 55 209;
    """,
    "memory": """
        brk 12 214; mmap 9 222; munmap 11 215; mprotect 10 226; mremap 25 216; madvise 28 233; msync 26 227;
    """,
    "processes and threads": """
        vfork 58 -; fork 57 -; execve 59 221; exit 60 93; exit_group 231 94; wait4 61 260; waitid 247 95;
        getpid 39 172; getppid 110 173; gettid 186 178; getpgid 121 155; getpgrp 111 -; setpgid 109 154;
        getsid 124 156; setsid 112 157; set_tid_address 218 96; set_robust_list 273 99; rseq 334 293;
        arch_prctl 158 -; futex 202 98; sched_yield 24 124; sched_getaffinity 204 123; getcpu 309 168;
        getrlimit 97 163; setrlimit 160 164; getrusage 98 165; times 100 153; sysinfo 99 179; uname 63 160;
        restart_syscall 219 128;
    """,
    "users": """
        getuid 102 174; geteuid 107 175; getgid 104 176; getegid 108 177; getgroups 115 158; getresuid 118 148;
        getresgid 120 150; setgroups 116 159; setresuid 117 147; setresgid 119 149; setuid 105 146; setgid 106 144;
    """,
    "signals": """
        kill 62 129; tkill 200 130; tgkill 234 131; pause 34 -; alarm 37 -; getitimer 36 102; setitimer 38 103;
        rt_sigaction 13 134; rt_sigprocmask 14 135; rt_sigpending 127 136; rt_sigtimedwait 128 137;
        rt_sigsuspend 130 133; rt_sigreturn 15 139; sigaltstack 131 132;
    """,
    "clocks and chance": """
        time 201 -; gettimeofday 96 169; clock_gettime 228 113; clock_getres 229 114; clock_nanosleep 230 115;
        nanosleep 35 101; getrandom 318 278;
    """,
}


class Checked(NamedTuple):
    """A call that is allowed for some values of an argument: those listed, or those without any of `bits`."""

    numbers: tuple[int, int]
    argument: int
    values: tuple[int, ...] = ()
    bits: int = 0


_CLONE_NAMESPACES = 0x7E020000
_CLONE_PARENT = 0x8000
_TERMINAL_AND_FILE_STATUS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
"""TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX: what `open`, `isatty` and `set_blocking` ask."""
_DESCRIPTORS = (0, 1, 2, 3, 4, 1030, 1032)
"""F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC, F_GETPIPE_SZ: no locks, leases, owners, pipe sizes."""
_UNIX = (1,)

CHECKED = {
    "clone": Checked((56, 220), argument=0, bits=_CLONE_NAMESPACES | _CLONE_PARENT),
    "ioctl": Checked((16, 29), argument=1, values=_TERMINAL_AND_FILE_STATUS),
    "fcntl": Checked((72, 25), argument=1, values=_DESCRIPTORS),
    "prlimit64": Checked((302, 261), argument=0, values=(0,)),  # of the process itself
    "socket": Checked((41, 198), argument=0, values=_UNIX),  # which can neither connect nor bind
    "socketpair": Checked((53, 199), argument=0, values=_UNIX),
}

_LOAD, _EQUAL, _ANY_BIT, _ANSWER = 0x20, 0x15, 0x45, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_JMP|JSET|K, BPF_RET|K
_NUMBER_AT, _MACHINE_AT, _ARGUMENTS_AT = 0, 4, 16  # in struct seccomp_data
_ALLOW, _KILL, _NOT_IMPLEMENTED = 0x7FFF0000, 0x80000000, 0x00050000 | 38  # SECCOMP_RET_*, ENOSYS


def numbers(machine: str) -> dict[str, int]:
    """Names and numbers of the calls that a machine allows whatever their arguments."""
    column = MACHINES[machine].column
    rows = (entry.split() for table in ALLOWED.values() for entry in table.split(";") if entry.strip())
    return {name: int(columns[column]) for name, *columns in rows if columns[column] != "-"}


@cache
def program(machine: str | None = None) -> bytes:
    """Assemble the filter for a machine (this one by default), as an array of `struct sock_filter`.

    Raises UserError for a machine whose call numbers aren't known.
    """
    machine = machine or platform.machine()
    if machine not in MACHINES:
        raise UserError(
            f"sandbox=bubblewrap: system calls can be filtered on {' and '.join(MACHINES)}, not on {machine}: "
            "run there, or choose sandbox=rlimit, which leaves network, files and other processes open to the program"
        )
    code = [
        *(_step(_LOAD, _MACHINE_AT), _step(_EQUAL, MACHINES[machine].audit, on_true=1), _step(_ANSWER, _KILL)),
        _step(_LOAD, _NUMBER_AT),
    ]
    for number in numbers(machine).values():
        code += _when(number, [_step(_ANSWER, _ALLOW)])
    for call in CHECKED.values():
        code += _when(call.numbers[MACHINES[machine].column], list(_check(call)))
    return b"".join([*code, _step(_ANSWER, _NOT_IMPLEMENTED)])


def _step(operation: int, operand: int, on_true: int = 0, on_false: int = 0) -> bytes:
    """One instruction; a jump passes over as many as `on_true` or `on_false` says."""
    return struct.pack("<HBBI", operation, on_true, on_false, operand)


def _when(number: int, code: list[bytes]) -> Iterable[bytes]:
    return (_step(_EQUAL, number, on_false=len(code)), *code)


def _check(call: Checked) -> Iterator[bytes]:
    """Answer by an argument's low half: the kernel takes these arguments as 32 bits, whatever stands above."""
    yield _step(_LOAD, _ARGUMENTS_AT + 8 * call.argument)
    if call.bits:
        yield _step(_ANY_BIT, call.bits, on_true=1)
        yield _step(_ANSWER, _ALLOW)
    for value in call.values:
        yield from _when(value, [_step(_ANSWER, _ALLOW)])
    yield _step(_ANSWER, _NOT_IMPLEMENTED)
