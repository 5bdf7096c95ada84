"""The decoding loop: admit, step, evict. It names no model and no algorithm.

Rows advance independently: a finished row leaves at once and the next request joins the batch. Canvases live on the
host, and one copy of the committed tokens is all that a step waits for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from dlmlab.denoiser import Denoiser
from dlmlab.errors import UserError
from dlmlab.loop.batch import Batch
from dlmlab.loop.pool import Pool
from dlmlab.loop.row import blockwise, grows
from dlmlab.loop.shared_pass import Memo
from dlmlab.loop.step import step
from dlmlab.policy import Policy, check_pair, check_served
from dlmlab.rule import check_composition
from dlmlab.types import Generation, Output, Request


class StepTiming(NamedTuple):
    """The cost of one step of all active rows.

    Attributes:
        seconds: Wall time, to the end of the copy that waits for the device.
        rows: Rows that took part.
        computed: Canvases that went through the model.
        positions: Positions that the rows' pass computes, prompts' among them.
    """

    seconds: float
    rows: int
    computed: int
    positions: int = 0


@dataclass(frozen=True)
class Options:
    """How the loop runs, whatever it decodes.

    Attributes:
        seed: With a request's item it seeds the request's randomness.
        share: Whether canvases that are identical when a pass begins go through it once.
        memo: Keeps proposals, and is asked for them before the model is; rows of all rules and settings share it.
        on_step: Called after each step.
    """

    seed: int = 0
    share: bool = True
    memo: Memo | None = None
    on_step: Callable[[StepTiming], None] = lambda timing: None


def denoise(
    model: Denoiser, requests: Iterable[Request], generation: Generation, batch_size: int | Batch, **options: Any
) -> Iterator[Output]:
    """Fill the canvas of every request, and yield outputs as rows finish.

    When the user has asked for an end, rows under way are finished and nothing new begins.

    Args:
        model: The model that proposes tokens.
        requests: The canvases to fill, in the order in which they are admitted.
        generation: How canvases are laid out and scheduled.
        batch_size: Canvases that go through the model at once, fewer where they don't fit.
        **options: See `Options`.

    Yields:
        The output of each request, in the order in which they finish.
    """
    how = Options(**options)
    batch, ahead = Batch.of(batch_size), None
    pool = Pool(model, requests, generation, batch, how.seed, memo=how.memo is not None)
    while pool:
        begun = time.perf_counter()
        pool.admit()
        before = sum(row.positions for row in pool.rows)
        computed, ahead = step(model, pool.rows, batch, how.share, how.memo, ahead)
        positions = sum(row.positions for row in pool.rows) - before
        how.on_step(StepTiming(time.perf_counter() - begun, len(pool.rows), computed, positions))
        yield from pool.evict()


def check_request(model: Denoiser, request: Request, generation: Generation) -> None:
    """Raise UserError where a request's decoder, its cache, the model and the canvas don't go together.

    Args:
        model: The model.
        request: The canvas to fill.
        generation: How it is laid out.
    """
    guided = generation.cfg_scale > 0
    if request.cache is not None and not isinstance(request.cache, Policy):
        raise UserError(f"cache={request.cache!r} is no cache: make one of dlmlab.cache, or leave it out")
    check_pair(request.rule, request.cache)
    check_served(model.keeps, request.cache, grows(generation, model.config), guided)
    check_composition(
        request.rule,
        blockwise=blockwise(generation, model.config),
        lays_out=model.lays_out,
        guided=guided,
        shows_attention=hasattr(model, "hidden_and_attention"),
    )
