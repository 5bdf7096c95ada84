"""Rows round after round: while the network is trained on one, processes draw the next."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np

from dlmlab.loop.interrupt import end_with_parent, held_back
from experiments.train.data import CHUNK, Draw, Rows


class Rounds:
    """Draws rounds of as many rows each, which share no draw.

    A row depends on what draws and on its place alone, not on how many processes draw; `close` ends these.

    Args:
        draw_of: Returns what draws the chunks of a round, given the round's number; called when that round is begun.
        rows: Rows of a round; its last chunk is cut to fit where there is one layout, else it stays whole.
        workers: How many processes draw; 1 is this one, which draws a round when it is asked for.
        ahead: Whether the next round is drawn while one is used.
    """

    def __init__(self, draw_of: Callable[[int], Draw], rows: int, workers: int, ahead: bool = False) -> None:
        self._draw_of, self._rows, self._workers, self._ahead = draw_of, rows, workers, ahead
        self._pool: ProcessPoolExecutor | None = None
        self._begun: dict[int, Iterator[list[Rows]]] = {}

    def __call__(self, number: int) -> list[Rows]:
        """Return the rows of a round by layout, in the order of its chunks.

        Args:
            number: The round's number, from 0.

        Raises:
            UserError: The layouts hold none of a chunk's exercises.
        """
        parts = list(self._begun.pop(number) if number in self._begun else self._begin(number))
        if self._ahead:
            self._begun = {number + 1: self._begin(number + 1)}
        else:
            self.close()
        if self._rows % CHUNK and len(parts[-1]) == 1:
            parts[-1] = [Rows(*(column[: self._rows % CHUNK] for column in parts[-1][0]))]
        return [Rows(*map(np.concatenate, zip(*each, strict=True))) for each in zip(*parts, strict=True)]

    def close(self) -> None:
        """End the processes, and draw no more of what has been begun."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def _begin(self, number: int) -> Iterator[list[Rows]]:
        count = -(-self._rows // CHUNK)
        chunks = range(number * count, (number + 1) * count)
        draw = self._draw_of(number)
        if self._workers == 1:
            return map(draw, chunks)
        if self._pool is None:  # not held back: the tracker of its semaphores lets signals through when it starts
            self._pool = ProcessPoolExecutor(self._workers, get_context("spawn"), initializer=end_with_parent)
        with held_back():
            return self._pool.map(draw, chunks)
