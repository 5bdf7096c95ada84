"""Hold what is decoded now: requests wait, are admitted as rows, and leave when their canvas is full."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator

from dlmlab.denoiser import Denoiser
from dlmlab.loop import interrupt
from dlmlab.loop.batch import Batch
from dlmlab.loop.row import Row
from dlmlab.types import Generation, Output, Request

POOL_ROWS = 1024
"""Largest number of rows that advance together where a memo, not the device, determines what a step costs."""


class Pool:
    """The requests that wait, in their order, and the rows that advance together.

    Rows that a memo keeps lose nothing by a kill and cost little: up to POOL_ROWS of them advance together. Of all
    other
    rows there is at most a batch for each kind of rule; without a memo, at most one batch.
    """

    def __init__(
        self,
        model: Denoiser,
        requests: Iterable[Request],
        generation: Generation,
        batch: Batch,
        seed: int,
        memo: bool,
    ) -> None:
        self._model, self._generation, self._batch, self._seed, self._memo = model, generation, batch, seed, memo
        self._waiting = deque(requests)
        self.rows: list[Row] = []

    def __bool__(self) -> bool:
        """Return whether anything is left to decode."""
        return bool(self._waiting or self.rows)

    def admit(self) -> None:
        """Admit as many of the waiting requests as there is room for.

        Where the user has asked for an end none is admitted, and rows that the memo keeps are left as they are.
        """
        if interrupt.asked():
            self._waiting.clear()
            self.rows = [row for row in self.rows if self._fleeting(row)]
        self._send_back()
        if self._waiting:
            crowd = Counter(self._kind(row.request) for row in self.rows if self._fleeting(row))
        most = max(POOL_ROWS, self._batch.size)
        while (
            self._waiting and crowd[kind := self._kind(self._waiting[0])] < self._batch.size and len(self.rows) < most
        ):
            self.rows.append(Row(self._waiting.popleft(), self._generation, self._model, self._seed))
            crowd[kind] += self._fleeting(self.rows[-1])

    def evict(self) -> Iterator[Output]:
        """Yield the outputs of the rows that are finished, and drop these rows."""
        done = [row for row in self.rows if row.finished]
        if done:
            yield from (row.output() for row in done)
            self.rows = [row for row in self.rows if not row.finished]

    def _send_back(self) -> None:
        """Let rows with a cache wait again whose first pass found no room beside the others'."""
        surplus = [row for row in self.rows if row.request.cached and not row.begun and row.store is None]
        if surplus:
            self.rows = [row for row in self.rows if row not in surplus]
            self._waiting.extendleft(row.request for row in reversed(surplus))

    def _fleeting(self, row: Row) -> bool:
        """Return whether a kill would lose the row's steps."""
        return not (self._memo and row.memoisable)

    def _kind(self, request: Request) -> object:
        """Return a key that is equal for requests that share a batch's room."""
        return request.rule.kind if self._memo and not request.cached else None
