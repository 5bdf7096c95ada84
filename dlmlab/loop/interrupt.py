"""Let Ctrl-C end a run in order, and twice at once. SIGTERM, by which Slurm takes a machine back, is like the first.

In order means: inside `finishing` the work under way is finished and kept, and KeyboardInterrupt raised at its end.
Anywhere else there is nothing to finish, and it is raised on the spot.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

NOTICE = b"\x1b[?25h" if os.isatty(2) else b""  # a progress bar has hidden the cursor
NOTICE += b"finishing what is under way; Ctrl-C again stops at once\n"

_finishing = False
_asked = False


@contextmanager
def listening(last: bool = False) -> Iterator[None]:
    """Take SIGINT and SIGTERM, unless a launcher has its own use for them; outside the main thread nobody can.

    last: what follows only ends the process, and isn't cut short: both are ignored from then on. A launcher's workers
    and semaphores are cleaned up there, and the exit status says what has come out.
    """
    global _asked
    _asked = False
    taken = {}
    if threading.current_thread() is threading.main_thread():
        usual = (signal.SIG_DFL, signal.default_int_handler)
        numbers = [each for each in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(each) in usual]
        taken = {number: signal.signal(number, _end) for number in numbers}
    try:
        yield
    finally:
        _asked = False  # or what this process decodes next, as a notebook does, would end before it begins
        for number, handler in taken.items():
            signal.signal(number, signal.SIG_IGN if last else handler)


@contextmanager
def finishing() -> Iterator[None]:
    """Protect work that heeds `asked`: it begins nothing new and ends early.

    Raises:
        KeyboardInterrupt: The work was asked to end; raised when it has.
    """
    global _finishing
    _finishing = True
    try:
        yield
    finally:
        _finishing = False
    if _asked:
        raise KeyboardInterrupt


@contextmanager
def held_back() -> Iterator[None]:
    """Hold both signals back, and for good in processes that begin meanwhile: these are this one's to end.

    A signal to all of a group, as Ctrl-C and Slurm send it, would otherwise kill them while this process still counts
    on them.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows has no such groups
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_parent() -> None:
    """Let this process end as soon as the one that has started it is gone, be it killed; for a pool's processes."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent,), daemon=True).start()


def _end_after(parent: Any) -> None:
    parent.join()
    os._exit(1)


def asked() -> bool:
    """Return whether the work under way is to end."""
    return _asked


def _end(number: int, frame: FrameType | None) -> None:
    global _asked
    _asked = True
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if not _finishing:
        raise KeyboardInterrupt
    os.write(2, NOTICE)  # print could be interrupted in the middle of a print
