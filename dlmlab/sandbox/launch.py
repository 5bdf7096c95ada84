"""The command lines that start a guest: under bubblewrap, or with resource limits alone."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

from dlmlab.errors import UserError
from dlmlab.sandbox.trouble import WEAKER

GUEST = Path(__file__).with_name("guest.py")
GUEST_INSIDE = "/guest.py"

_UIDS = range(61184, 65520)
"""User ids that systemd gives to dynamic users: nothing on a machine is owned by these."""
_NOBODY = "65534"
_KILL, _SETGID, _SETUID = 5, 6, 7
_RIGHTS = {"bubblewrap": (_SETGID, _SETUID), "rlimit": (_SETGID, _SETUID, _KILL)}
"""Capabilities that root needs to become another user and, where no namespace ends it, to end what that one runs."""
_next_uid = itertools.count(os.getpid() * 64)


def fresh_uid(kind: str) -> int | None:
    """A user id that no other guest has, so that the process limit counts one guest; None where we can't give one.

    Raises:
        UserError: The system has no user ids, nor what else a sandbox is made of.
    """
    if sys.platform == "win32":
        raise UserError(f"sandbox={kind}: programs run under Linux alone: use WSL, or a task that is no code")
    return _UIDS[next(_next_uid) % len(_UIDS)] if _rules_other_users(kind) else None


@cache
def _rules_other_users(kind: str) -> bool:
    """Whether we are root in more than name: in a container it may lack rights, or be the one user that there is."""
    if os.geteuid() != 0:
        return False
    status = Path("/proc/self/status").read_text()
    held = int(status.partition("CapEff:")[2].split()[0], 16)
    spans = [list(map(int, line.split())) for line in Path("/proc/self/uid_map").read_text().splitlines()]
    mapped = any(first <= _UIDS.start and first + count >= _UIDS.stop for first, _, count in spans)
    return mapped and all(held >> bit & 1 for bit in _RIGHTS[kind])


def bubblewrap_command(role: dict[str, Any], tmp_bytes: int, info_fd: int, rules_fd: int) -> list[str]:
    """Return the command of a guest in namespaces of its own: it sees the interpreter, its library and a private /tmp.

    As root, bubblewrap sets up the namespaces as root, and the guest drops to an unprivileged user before it reads a
    line of the program. As an ordinary user the namespaces are a user namespace's, in which no other can be made.

    Args:
        role: What the guest is told on its command line.
        tmp_bytes: Size of its private /tmp, in bytes.
        info_fd: The descriptor to which bubblewrap writes the process id of the namespace's init.
        rules_fd: The descriptor of the filter of system calls.
    """
    program = shutil.which("bwrap")
    if program is None:
        raise UserError(f"sandbox=bubblewrap: bwrap is not installed: apt install bubblewrap, {WEAKER}")
    privileges = [*_user_namespace(program), "--uid", _NOBODY, "--gid", _NOBODY, "--cap-drop", "ALL"]
    if role["uid"] is not None:
        privileges = ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    namespaces = [f"--unshare-{kind}" for kind in ("ipc", "pid", "net", "uts", "cgroup-try")]
    reports = ["--info-fd", str(info_fd), "--seccomp", str(rules_fd)]
    # Before the interpreter's mounts, which may lie below it.
    tmp = ["--size", str(tmp_bytes), "--perms", "1777", "--tmpfs", "/tmp"]
    variables = [word for name, value in library_path().items() for word in ("--setenv", name, value)]
    return [
        *(program, "--die-with-parent", "--new-session", *namespaces, "--hostname", "sandbox", *privileges, *reports),
        *(*tmp, *_system_mounts(), "--ro-bind", str(GUEST), GUEST_INSIDE, "--remount-ro", "/", "--chdir", "/tmp"),
        *(*variables, "--", *_guest_command(role, GUEST_INSIDE)),
    ]


@cache
def _user_namespace(program: str) -> tuple[str, ...]:
    """Bubblewrap's options for a user namespace, closed to further ones where bubblewrap and the machine can do it."""
    closed = ("--unshare-user", "--disable-userns")
    tried = subprocess.run([program, *closed, "--ro-bind", "/", "/", "--", "true"], capture_output=True)
    return closed if tried.returncode == 0 else closed[:1]


def library_path() -> dict[str, str]:
    """Return the environment in which the interpreter finds its own shared library, wherever it has been copied to."""
    folders = dict.fromkeys(os.path.dirname(library) for library in _python_libraries())
    return {"LD_LIBRARY_PATH": ":".join(folders)} if folders else {}


def rlimit_command(role: dict[str, Any]) -> list[str]:
    """A guest with resource limits. As root it is another user, who may read what root may but write nothing of it."""
    uid = role["uid"]
    command = _guest_command({**role, "uid": None}, str(GUEST))
    if uid is None:
        return command
    program = shutil.which("setpriv")
    if program is None:
        raise UserError("sandbox=rlimit: root needs setpriv to give up its rights: apt install util-linux")
    only = "-all,+dac_read_search"
    identity = [f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--no-new-privs"]
    # The interpreter may lie in root's home.
    rights = [f"--inh-caps={only}", "--ambient-caps=+dac_read_search", f"--bounding-set={only}"]
    return [program, *identity, *rights, "--pdeathsig=KILL", *command]


def _guest_command(role: dict[str, Any], script: str) -> list[str]:
    return [_interpreter(), "-I", "-S", "-B", script, json.dumps(role)]


@cache
def _interpreter() -> str:
    """The interpreter that a virtual environment stands on: it needs nothing of the environment."""
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))


@cache
def _python_libraries() -> tuple[str, ...]:
    return tuple(sorted(map(str, Path(sys.base_prefix, "lib").glob("libpython*.so*"))))


@cache
def _system_mounts() -> tuple[str, ...]:
    """Bubblewrap's options for a root with the interpreter, its standard library, shared libraries and /dev/null."""
    stdlib = os.path.realpath(os.path.dirname(os.__file__))
    folders = [folder for folder in ("/usr/lib", "/usr/lib64", "/lib", "/lib64") if os.path.isdir(folder)]
    paths = [*folders, "/etc/ld.so.cache", _interpreter(), *_python_libraries(), stdlib]
    # Folders that bubblewrap makes by itself are closed to the user that the guest drops to.
    parents = sorted({str(parent) for path in (*paths, "/dev/null") for parent in Path(path).parents} - {"/", "/tmp"})
    mounts = [word for parent in parents if parent not in folders for word in ("--dir", parent)]
    for path in paths:
        if os.path.islink(path):
            mounts += ["--symlink", os.readlink(path), path]
        else:
            mounts += ["--ro-bind-try", path, path]
    packages = os.path.join(stdlib, "site-packages")
    if os.path.isdir(packages):
        mounts += ["--size", "4096", "--tmpfs", packages, "--remount-ro", packages]
    return (*mounts, "--dev-bind", "/dev/null", "/dev/null")
