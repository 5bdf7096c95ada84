"""Start a process that has a session keyring of its own.

The kernel keeps a user's secrets there (Kerberos tickets, keys of encrypted folders), and it is handed from a thread to
the processes that this thread starts. So a thread that does nothing else starts them, and joins a new, empty keyring
before each. It stays for the life of this process: the death signal that bubblewrap asks for comes when the starting
thread ends.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import Any

_KEYCTL = {"x86_64": 250, "aarch64": 219}
_JOIN_SESSION_KEYRING = 1


def spawn(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
    """Start a command as `subprocess.Popen` does, options and exceptions included.

    Args:
        command: The program and its arguments.
        **options: Those of `subprocess.Popen`.
    """
    start = _starter().submit(_start, command, options)
    try:
        return start.result()
    except BaseException:
        # An interrupt of this thread: the descriptors that the command is to get are about to be closed.
        if not start.cancel() and start.exception() is None:
            start.result().kill()
        raise


_starters: dict[int, ThreadPoolExecutor] = {}
"""The starting thread of each process: a fork of this one gets another."""


def _starter() -> ThreadPoolExecutor:
    executor = _starters.setdefault(os.getpid(), ThreadPoolExecutor(1, "sandbox"))
    try:
        executor.submit(int).result()  # starts the thread, before a task waits for it whose descriptors may be closed
    except RuntimeError as error:  # what Python raises where the system refuses a thread
        raise BlockingIOError(errno.EAGAIN, str(error)) from error
    return executor


def _start(command: list[str], options: dict[str, Any]) -> subprocess.Popen[bytes]:
    call = _KEYCTL.get(platform.machine())
    if call is not None:  # where it is refused, in a container, the guest is refused as well
        ctypes.CDLL(None).syscall(call, _JOIN_SESSION_KEYRING, None)
    return subprocess.Popen(command, **options)
