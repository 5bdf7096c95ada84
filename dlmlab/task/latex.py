"""Whether two answers to a mathematical question are equal, by math-verify, in processes that can be given up.

math-verify interrupts itself by a signal, which works in a process's main thread alone and not within a single long
operation, so that each answer is compared in a process of its own pool, with bounded memory and time.
"""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures import TimeoutError as TooLate
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from threading import Lock
from typing import Literal

from dlmlab.errors import UserError
from dlmlab.loop.interrupt import end_with_parent

SECONDS = 30.0
"""After which an answer counts as unequal; math-verify gives each of its own steps 5 s."""
MEMORY = 4 << 30
"""Bytes of address space of a process."""
Equality = Literal["equal", "unequal", "timeout"]


class Comparer:
    """A pool of processes that compare answers. `compare` may be called from several threads."""

    def __init__(self, workers: int | None = None, seconds: float = SECONDS):
        self._workers, self._seconds = workers or os.cpu_count() or 1, seconds
        self._lock = Lock()
        self._pool = self._new_pool()

    def compare(self, gold: str, answer: str) -> Equality:
        """Return whether the answer's last formula equals one of the gold solution's.

        Args:
            gold: The gold solution.
            answer: The answer's text.
        """
        with self._lock:
            pool = self._pool
        try:
            return "equal" if self._submit(pool, gold, answer).result(self._seconds) else "unequal"
        except TooLate:
            self._replace(pool)
            return "timeout"
        except BrokenProcessPool:  # by this answer, or by another's time-out: asked once more, alone
            self._replace(pool)
            return self._alone(gold, answer)

    def _alone(self, gold: str, answer: str) -> Equality:
        with self._lock:
            try:
                return "equal" if self._submit(self._pool, gold, answer).result(self._seconds) else "unequal"
            except (TooLate, BrokenProcessPool):
                self._end(self._pool)
                self._pool = self._new_pool()
                return "timeout"

    def _submit(self, pool: ProcessPoolExecutor, gold: str, answer: str) -> Future[bool]:
        try:
            return pool.submit(equal, gold, answer)
        except RuntimeError as error:  # it was shut down meanwhile
            raise BrokenProcessPool from error

    def _replace(self, pool: ProcessPoolExecutor) -> None:
        with self._lock:
            if self._pool is pool:
                self._end(pool)
                self._pool = self._new_pool()

    def _new_pool(self) -> ProcessPoolExecutor:
        spawn = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(self._workers, mp_context=spawn, initializer=_bound)

    @staticmethod
    def _end(pool: ProcessPoolExecutor) -> None:
        for process in list((pool._processes or {}).values()):
            process.kill()
        pool.shutdown(wait=False, cancel_futures=True)


@cache
def comparer() -> Comparer:
    """Return this process's pool, made when it is first needed."""
    try:
        import math_verify  # noqa: F401
    except ImportError as error:
        raise UserError("math-verify is not installed: pip install 'dlmlab[eval]'") from error
    return Comparer()


def equal(gold: str, answer: str) -> bool:
    """Return whether math-verify takes an answer for the gold one; runs in a process's main thread.

    Args:
        gold: The gold solution.
        answer: The answer's text.
    """
    from math_verify import parse, verify

    try:
        return bool(verify(parse(gold), parse(answer)))
    except Exception:  # sympy's own, on what a model wrote
        return False


def _bound() -> None:
    """Bound a process's memory, of which a power of powers would take all, and its life by this one's."""
    end_with_parent()
    try:
        import resource
    except ImportError:  # on Windows: there the time alone is bounded
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, hard))
