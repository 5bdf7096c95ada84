"""The filter of system calls answers as its tables say, for each machine, and CPython doesn't notice it."""

from __future__ import annotations

import struct

import pytest

from dlmlab.errors import UserError
from dlmlab.sandbox import Sandbox, syscalls
from tests.hostile_batch import run
from tests.test_sandbox import needs_bubblewrap

ALLOW, KILL, NOT_IMPLEMENTED = 0x7FFF0000, 0x80000000, 0x50026
REFUSED = {
    "x86_64": {
        "ptrace": 101, "syslog": 103, "flock": 73, "mount": 165, "umount2": 166, "unshare": 272, "setns": 308,
        "keyctl": 250, "add_key": 248, "request_key": 249, "bpf": 321, "userfaultfd": 323, "perf_event_open": 298,
        "process_vm_readv": 310, "clone3": 435, "io_uring_setup": 425, "memfd_create": 319, "shmget": 29,
        "connect": 42, "bind": 49, "inotify_init1": 294, "pidfd_getfd": 438, "prctl": 157, "x32 getpid": 0x40000027,
        "of the future": 600,
    },
    "aarch64": {
        "ptrace": 117, "syslog": 116, "flock": 32, "mount": 40, "umount2": 39, "unshare": 97, "setns": 268,
        "keyctl": 219, "add_key": 217, "request_key": 218, "bpf": 280, "userfaultfd": 282, "perf_event_open": 241,
        "process_vm_readv": 270, "clone3": 435, "io_uring_setup": 425, "memfd_create": 279, "shmget": 194,
        "connect": 203, "bind": 200, "inotify_init1": 26, "pidfd_getfd": 438, "prctl": 167, "of the future": 600,
    },
}  # fmt: skip
MACHINES = pytest.mark.parametrize("machine", syscalls.MACHINES)


def answer(machine: str, number: int, *arguments: int, audit: int | None = None) -> int:
    """What the filter answers to a call: a small machine for the four instructions that it is made of."""
    audit = syscalls.MACHINES[machine].audit if audit is None else audit
    data = struct.pack("<iIQ6Q", number, audit, 0, *arguments, *[0] * (6 - len(arguments)))
    code = list(struct.iter_unpack("<HBBI", syscalls.program(machine)))
    at = loaded = 0
    while True:
        operation, on_true, on_false, operand = code[at]
        at += 1
        if operation == 0x20:
            (loaded,) = struct.unpack_from("<I", data, operand)
        elif operation == 0x06:
            return operand
        else:
            at += on_true if (loaded == operand if operation == 0x15 else loaded & operand) else on_false


@MACHINES
def test_listed_calls_are_allowed_and_others_are_not_there(machine: str) -> None:
    allowed = syscalls.numbers(machine)
    assert {answer(machine, number) for number in allowed.values()} == {ALLOW}
    assert {name: answer(machine, number) for name, number in REFUSED[machine].items()} == dict.fromkeys(
        REFUSED[machine], NOT_IMPLEMENTED
    )
    assert len(set(allowed.values())) == len(allowed)
    known = {
        *allowed.values(),
        *(call.numbers[syscalls.MACHINES[machine].column] for call in syscalls.CHECKED.values()),
    }
    assert {answer(machine, number) for number in range(700) if number not in known} == {NOT_IMPLEMENTED}


@MACHINES
def test_an_argument_decides_where_it_must(machine: str) -> None:
    column = syscalls.MACHINES[machine].column
    calls = {name: call.numbers[column] for name, call in syscalls.CHECKED.items()}
    thread, child = 0x3D0F00, 0x1200011
    assert answer(machine, calls["clone"], thread) == answer(machine, calls["clone"], child) == ALLOW
    for namespace in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert answer(machine, calls["clone"], namespace | 17) == NOT_IMPLEMENTED
    for family in range(64):
        expected = ALLOW if family == 1 else NOT_IMPLEMENTED
        assert answer(machine, calls["socket"], family) == answer(machine, calls["socketpair"], family) == expected
    above = 1 << 32  # a half that the kernel cuts off
    assert answer(machine, calls["ioctl"], 0, 0x5412) == answer(machine, calls["ioctl"], 0, above | 0x5412)
    assert answer(machine, calls["ioctl"], 0, 0x5412) == NOT_IMPLEMENTED
    assert answer(machine, calls["ioctl"], 0x5412, 0x5401) == ALLOW
    assert answer(machine, calls["fcntl"], 0, 6) == answer(machine, calls["fcntl"], 0, 1031) == NOT_IMPLEMENTED
    assert answer(machine, calls["prlimit64"], 0) == ALLOW
    assert answer(machine, calls["prlimit64"], 1) == NOT_IMPLEMENTED


@MACHINES
def test_another_architecture_is_the_end(machine: str) -> None:
    assert answer(machine, 0, audit=0x40000003) == KILL


def test_a_machine_without_a_table_is_refused() -> None:
    with pytest.raises(UserError, match="filtered on x86_64 and aarch64, not on s390x: .*sandbox=rlimit"):
        syscalls.program("s390x")


ORDINARY = {
    "threads": """
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(2) as pool:
    assert list(pool.map(abs, [-1, -2])) == [1, 2]
""",
    "children": """
import os, subprocess, sys
assert subprocess.check_output([sys.executable, "-c", "print(1)"]) == b"1\\n"
if not os.fork():
    os._exit(3)
assert os.wait()[1] == 3 << 8
""",
    "events": """
import asyncio, os, selectors
assert asyncio.run(asyncio.sleep(0.01, 5)) == 5
selector = selectors.DefaultSelector()
selector.register(os.pipe()[0], selectors.EVENT_READ)
assert selector.select(0) == []
""",
    "pipes": """
import multiprocessing, socket
for a, b in (socket.socketpair(), multiprocessing.Pipe()):
    a.send(b"x")
    assert b.recv(*[1][:isinstance(b, socket.socket)]) == b"x"
""",
    "files": """
import os, pathlib, shutil, tempfile
with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder, "a")
    path.write_text("x")
    path.chmod(0o600)
    shutil.copy2(path, folder + "/b")
    shutil.copytree(folder, folder + "/c")
    os.replace(folder + "/b", path)
    os.symlink("a", folder + "/l")
    os.utime(path)
    assert {entry.name for entry in os.scandir(folder)} == {"a", "c", "l"}
""",
    "a database": """
import sqlite3
assert sqlite3.connect(":memory:").execute("select 1").fetchone() == (1,)
""",
    "signals": """
import signal, time
hits = []
signal.signal(signal.SIGALRM, lambda *_: hits.append(1))
signal.setitimer(signal.ITIMER_REAL, 0.01)
time.sleep(0.1)
assert hits
""",
    "memory": """
import ctypes, mmap, resource
memory = mmap.mmap(-1, 99999)
memory.resize(9)
assert ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 3)() == 3
assert resource.getrlimit(resource.RLIMIT_AS)[0] > 0
""",
    "names": """
import platform, random, shutil, sys, time, uuid
uuid.uuid1(), uuid.uuid4(), platform.platform(), time.tzset(), random.SystemRandom().random()
assert not sys.stdin.isatty() and shutil.get_terminal_size()
""",
}


@needs_bubblewrap
@pytest.mark.parametrize("use", ORDINARY)
def test_ordinary_programs_do_not_notice(use: str) -> None:
    verdict = run(Sandbox(), f"{ORDINARY[use]}\ndef solve(x):\n    return x + 1\n")
    assert verdict.passed, verdict
