"""A task for many decoders: equal answers to an item are scored once."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any

from dlmlab.task.base import Item, Score, Task


class ScoredOnce:
    """A task whose equal answers to an item are scored once."""

    def __init__(self, task: Task):
        self._task = task
        self._scores: dict[tuple[str, str], Future[Score | None]] = {}
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def score(self, item: Item, text: str) -> Score | None:
        """Return the task's score; whoever asks while it is found waits for it."""
        with self._lock:
            known = self._scores.get((item.id, text))
            future = self._scores.setdefault((item.id, text), Future())
        if known is None:
            try:
                future.set_result(self._task.score(item, text))
            except BaseException as error:
                future.set_exception(error)
        return future.result()
