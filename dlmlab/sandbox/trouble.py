"""What to say, and whether to try again, when it is the sandbox that fails and not the program."""

from __future__ import annotations

import errno
import os
import random
import time
from collections.abc import Callable
from typing import TypeVar

from dlmlab.errors import UserError

T = TypeVar("T")

WEAKER = "or choose sandbox=rlimit, which leaves network, files and other processes open to the program"
_SHORT = {errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC}
"""Error numbers that pass when others give back processes, descriptors, memory or namespaces."""
_PAUSES = (0.1, 0.3, 1.0, 3.0)
"""Seconds before each further try."""


class SandboxError(UserError):
    """The sandbox itself failed, so nothing is known about the program. One line, with the remedy."""

    def __init__(self, kind: str, message: str, code: int | None = None) -> None:
        super().__init__(f"sandbox={kind}: {message}; {remedy(kind, code or _code_in(message))}")
        self.passing = (code or _code_in(message)) in _SHORT


def patiently(attempt: Callable[[], T]) -> T:
    """Try again, a few times, while the sandbox fails for want of something that others may give back."""
    for pause in _PAUSES:
        try:
            return attempt()
        except SandboxError as error:
            if not error.passing:
                raise
            time.sleep(pause * random.uniform(0.5, 1.5))  # so that those who fail together don't try again together
    return attempt()


def _code_in(message: str) -> int | None:
    """Return the error number whose words another program's message ends with."""
    return next((code for code in errno.errorcode if message.endswith(os.strerror(code))), None)


def remedy(kind: str, code: int | None = None) -> str:
    """Return what a user can do about a kind of sandbox that doesn't hold here, or that fails with this error
    number.

    Args:
        kind: The kind of sandbox.
        code: The system's error number, where there is one.
    """
    if code == errno.EMFILE:
        return f"raise the limit of open files (`ulimit -n`, now {limit_of('RLIMIT_NOFILE')})"
    if code == errno.EAGAIN:
        most = limit_of("RLIMIT_NPROC")
        return f"raise the limit of processes (`ulimit -u`, now {most}; a container's --pids-limit), or end others"
    if code == errno.ENFILE:
        return "the whole machine has too many files open: raise the limit (sysctl fs.file-max), or end others"
    if code == errno.ENOMEM:
        return "the machine is short of memory: give it more, or run fewer programs on it"
    if code == errno.ENOSPC and kind == "bubblewrap":
        return "raise the limit of namespaces (sysctl user.max_user_namespaces and its like in /proc/sys/user)"
    if code == errno.ENOSPC:
        return "make room on the disk of the temporary folder, or name another in TMPDIR"
    if kind == "rlimit":
        return "install bubblewrap (0.7 or newer) and use sandbox=bubblewrap"
    return f"it needs bubblewrap 0.7 or newer and the right to make namespaces (in a container: --privileged), {WEAKER}"


def limit_of(name: str) -> str:
    """Return a resource limit of this process, in words."""
    import resource  # which Windows lacks

    now = resource.getrlimit(getattr(resource, name))[0]
    return "unlimited" if now == resource.RLIM_INFINITY else str(now)
