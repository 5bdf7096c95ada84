"""Whether a sandbox holds on this machine: it runs, and every limit binds. Being installed is not enough."""

from __future__ import annotations

import errno
import os
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import NamedTuple

from dlmlab.errors import UserError
from dlmlab.sandbox import launch
from dlmlab.sandbox.run import Sandbox
from dlmlab.sandbox.trouble import SandboxError, remedy

_PATIENCE = 60.0
"""Seconds that a probe may take on a busy machine."""
_TEST = "def check(probe):\n    assert probe() == 'contained'\n"


class Probe(NamedTuple):
    """A program that strains one limit, and its verdict when the limit binds: the reason, and words of the detail."""

    program: str
    reason: str
    detail: str = ""


_LIMITS = {
    "CPU time": Probe("def probe():\n    while True: pass\n", "timeout", "CPU"),
    "wall time": Probe("import time\ndef probe():\n    time.sleep(600)\n", "timeout", "wall"),
    "output": Probe("def probe():\n    while True: print('x' * 1024)\n", "killed", "output"),
    "memory": Probe("def probe():\n    return bytes({memory_mb} << 20)\n", "killed", "MemoryError"),
    "file size": Probe(
        """
def probe():
    try:
        with open("probe", "wb", buffering=0) as file:
            while file.write(bytes(1 << 16)): pass
    except OSError:
        return "contained"
""",
        "passed",
    ),
    "processes": Probe(
        """
import os, signal
def probe():
    children = []
    try:
        for _ in range({processes} + 1):
            child = os.fork()
            if not child:
                signal.pause()
            children.append(child)
    except OSError:
        return "contained"
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
""",
        "passed",
    ),
}

_ISOLATION = {
    "network": Probe(
        """
import socket
def probe():
    try:
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(("192.0.2.1", 9))
    except OSError:
        return "contained"
""",
        "passed",
    ),
    "file system": Probe(
        """
import os
def probe():
    try:
        open("/probe", "w")
    except OSError:
        return "open" if os.path.exists({outside!r}) else "contained"
""",
        "passed",
    ),
    "other processes": Probe(
        """
import os
def probe():
    try:
        os.kill(-1, 0)
    except ProcessLookupError:
        return "contained"
""",
        "passed",
    ),
    "system calls": Probe(
        """
import ctypes
def probe():
    libc = ctypes.CDLL(None)
    if libc.ptrace(0, 0, None, None) and libc.unshare(0) and libc.klogctl(10, None, 0):
        return "contained"
""",
        "passed",
    ),
    "environment": Probe("import os\ndef probe():\n    return os.environ or 'contained'\n", "passed"),
}

_held: set[Sandbox] = set()
_lock = threading.Lock()


def probe(sandbox: Sandbox) -> None:
    """Strain every limit of the sandbox, once in a process's life.

    Raises UserError where it doesn't start or a limit doesn't bind, with what to do about it.
    """
    with _lock:
        if sandbox in _held:
            return
        probes = {**_LIMITS, **(_ISOLATION if sandbox.kind == "bubblewrap" else {})}
        quick = replace(sandbox, cpu_seconds=1, output_kb=1)
        try:
            # One file for all: a process that may hold few open has other use for them while so many guests begin.
            with tempfile.NamedTemporaryFile() as outside, ThreadPoolExecutor(len(probes)) as executor:
                runs = {name: executor.submit(_binds, quick, name, each, outside.name) for name, each in probes.items()}
        except RuntimeError as error:  # what Python raises where the system refuses a thread
            raise SandboxError(sandbox.kind, str(error), errno.EAGAIN) from error
        except OSError as error:
            raise SandboxError(sandbox.kind, str(error), error.errno) from error
        loose = [name for name, run in runs.items() if not run.result()]
        if loose:
            raise UserError(
                f"sandbox={sandbox.kind}: not contained here: {', '.join(loose)}; {_remedy(sandbox, loose)}"
            )
        _held.add(sandbox)


def _binds(sandbox: Sandbox, name: str, attempt: Probe, outside: str) -> bool:
    sandbox = replace(sandbox, wall_seconds=0.2 if name == "wall time" else _PATIENCE)
    sizes = {"memory_mb": sandbox.memory_mb, "processes": sandbox.processes}
    program = attempt.program.format(**sizes, outside=outside)
    verdict = sandbox.run(program, setup="", test=_TEST, entry_point="probe")
    return verdict.reason == attempt.reason and attempt.detail in verdict.detail


def _remedy(sandbox: Sandbox, loose: list[str]) -> str:
    if "processes" in loose and os.geteuid() == 0 and launch.fresh_uid(sandbox.kind) is None:
        return (
            "root's processes are not limited, and root can't become another user here: run as an ordinary user, or "
            "give the container more user ids (/etc/subuid) and the capabilities setuid, setgid and kill"
        )
    return remedy(sandbox.kind)
