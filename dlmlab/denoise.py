"""The decoding loop: admit, step, evict. It names no model and no algorithm.

Rows advance independently: a finished row leaves at once and the next request takes its place. Canvases live on the
host, and one copy of the committed tokens is all that a step waits for.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import NamedTuple

from dlmlab.loop import interrupt
from dlmlab.loop.batch import Batch
from dlmlab.loop.row import Row
from dlmlab.loop.shared_pass import Ahead, Memo, by_kind, by_length, recall_or_run
from dlmlab.loop.step import advance, decide
from dlmlab.types import Denoiser, Generation, Output, Request

POOL_ROWS = 1024
"""Rows that advance together where a memo, not the device, says what a step costs."""


class StepTiming(NamedTuple):
    """A step of all active rows: its wall time, to the end of the copy that waits for the device; rows that took
    part; canvases that went through the model.
    """

    seconds: float
    rows: int
    computed: int


def denoise(
    model: Denoiser,
    requests: Iterable[Request],
    generation: Generation,
    batch_size: int | Batch,
    *,
    seed: int = 0,
    share: bool = True,
    memo: Memo | None = None,
    on_step: Callable[[StepTiming], None] = lambda tick: None,
) -> Iterator[Output]:
    """Fill the canvas of every request; outputs come as rows finish.

    batch_size: canvases that go through the model at once, fewer where they don't fit. share: canvases that are
    identical when a pass begins go through it once. memo: where proposals are looked up before the model is asked, and
    kept; then rows of all rules and settings share them. Rows that it won't keep, which a kill loses, are a batch at
    most for each kind of rule. Where the user has asked for an end, nothing new is admitted, and rows that the memo
    keeps are left as they are.
    """
    waiting, rows, batch = deque(requests), list[Row](), Batch.of(batch_size)
    most = max(POOL_ROWS, batch.size)
    ahead: Ahead | None = None
    fleeting = partial(filter, lambda row: memo is None or not row.memoisable)
    while waiting or rows:
        begun, computed = time.perf_counter(), 0
        if interrupt.asked():
            waiting.clear()
            rows = list(fleeting(rows))
        if waiting:
            crowd = Counter(memo is None or row.request.rule.kind for row in fleeting(rows))
        while waiting and crowd[kind := memo is None or waiting[0].rule.kind] < batch.size and len(rows) < most:
            rows.append(Row(waiting.popleft(), generation, model, seed))
            crowd[kind] += memo is None or not rows[-1].memoisable
        for alike in by_kind(rows):
            if memo is not None and alike[0].memoisable:
                proposal, asked = recall_or_run(model, alike, memo, batch)
                decide(model, alike, proposal)
                computed += asked
            else:
                for part in [alike] if model.fused else by_length(alike):
                    alone = len(part) == len(rows) <= batch.size
                    for done in batch.each(part, partial(advance, model, share=share, ahead=ahead, go_on=alone)):
                        computed, ahead = computed + done.computed, done.ahead
        on_step(StepTiming(time.perf_counter() - begun, len(rows), computed))
        yield from (row.output() for row in rows if row.finished)
        rows = [row for row in rows if not row.finished]
