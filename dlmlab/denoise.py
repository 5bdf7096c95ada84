"""The decoding loop: admit, step, evict. It names no model and no algorithm.

Rows advance independently: a finished row leaves at once and the next request takes its place. Canvases live on the
host, and one copy of the committed tokens is all that a step waits for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from dlmlab.loop.batch import Batch
from dlmlab.loop.pool import Pool
from dlmlab.loop.shared_pass import Memo
from dlmlab.loop.step import step
from dlmlab.types import Denoiser, Generation, Output, Request


class StepTiming(NamedTuple):
    """A step of all active rows: its wall time, to the end of the copy that waits for the device; rows that took
    part; canvases that went through the model.
    """

    seconds: float
    rows: int
    computed: int


@dataclass(frozen=True)
class Options:
    """How the loop goes, whatever it decodes.

    seed: with a request's index it seeds the request's randomness. share: whether canvases that are identical when a
    pass begins go through it once. memo: where proposals are looked up before the model is asked, and kept; then rows
    of all rules and settings share them. on_step: called after each step.
    """

    seed: int = 0
    share: bool = True
    memo: Memo | None = None
    on_step: Callable[[StepTiming], None] = lambda timing: None


def denoise(
    model: Denoiser, requests: Iterable[Request], generation: Generation, batch_size: int | Batch, **options: Any
) -> Iterator[Output]:
    """Fill the canvas of every request; outputs come as rows finish.

    Where the user has asked for an end, rows under way are finished and nothing new begins.

    Args:
        model: What is asked for proposals.
        requests: The canvases to fill, in the order in which they are admitted.
        generation: How canvases are laid out and scheduled.
        batch_size: Canvases that go through the model at once, fewer where they don't fit.
        options: See `Options`.
    """
    how = Options(**options)
    batch, ahead = Batch.of(batch_size), None
    pool = Pool(model, requests, generation, batch, how.seed, memo=how.memo is not None)
    while pool:
        begun = time.perf_counter()
        pool.admit()
        computed, ahead = step(model, pool.rows, batch, how.share, how.memo, ahead)
        how.on_step(StepTiming(time.perf_counter() - begun, len(pool.rows), computed))
        yield from pool.evict()
