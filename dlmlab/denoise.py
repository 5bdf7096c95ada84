"""The decoding loop: admit, propose, decide, commit, evict. It names no model and no algorithm.

Rows advance independently: a finished row leaves at once and the next request takes its place. Canvases live on the
host, and one copy of the committed tokens is all that a step waits for.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from dlmlab import interrupt
from dlmlab.batch import Batch
from dlmlab.finite import on_host
from dlmlab.look import Memo, by_kind, look, look_up, stacked, states
from dlmlab.propose import Proposal, sent
from dlmlab.row import Row
from dlmlab.trace import record
from dlmlab.types import Denoiser, Generation, Output, Request, Step

POOL_ROWS = 1024
"""Rows that advance together where a memo, not the device, says what a step costs."""


class Tick(NamedTuple):
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
    on_step: Callable[[Tick], None] = lambda tick: None,
) -> Iterator[Output]:
    """Fill the canvas of every request; outputs come as rows finish.

    batch_size: canvases that go through the model at once, fewer where they don't fit. share: identical canvases go
    through it once. memo: where proposals are looked up before the model is asked, and kept; then rows of all rules
    and settings share them. Rows that it won't keep, which a kill loses, are a batch at most for each kind of rule.
    Where the user has asked for an end, nothing new is admitted, and rows that the memo keeps are left as they are.
    """
    waiting, rows, batch = deque(requests), list[Row](), Batch.of(batch_size)
    fleeting = partial(filter, lambda row: memo is None or not row.memoisable)
    while waiting or rows:
        begun, computed = time.perf_counter(), 0
        if interrupt.asked():
            waiting.clear()
            rows = list(fleeting(rows))
        most = max(POOL_ROWS, batch.size)
        crowd = Counter(memo is None or row.request.rule.kind for row in fleeting(rows))
        while waiting and crowd[kind := memo is None or waiting[0].rule.kind] < batch.size and len(rows) < most:
            rows.append(Row(waiting.popleft(), generation, model, seed))
            crowd[kind] += memo is None or not rows[-1].memoisable
        for alike in by_kind(rows):
            if memo is not None and alike[0].memoisable:
                proposal, asked = look_up(model, alike, memo, batch)
                decide(model, alike, proposal)
                computed += asked
            else:
                computed += sum(batch.each(alike, partial(advance, model, share=share)))
        on_step(Tick(time.perf_counter() - begun, len(rows), computed))
        yield from (row.output() for row in rows if row.finished)
        rows = [row for row in rows if not row.finished]


def advance(model: Denoiser, rows: Sequence[Row], share: bool) -> int:
    """One step of rows that share a batch, and how many canvases it computed. Where it finds no room, it undoes it."""
    before = [(row, row.generator.get_state()) for row in rows if row.draws]
    try:
        proposal, computed = look(model, rows, share)
        decide(model, rows, proposal)
    except torch.OutOfMemoryError:
        for row, state in before:
            row.generator.set_state(state)
        raise
    return computed


@torch.inference_mode()
def decide(model: Denoiser, rows: Sequence[Row], proposal: Proposal) -> None:
    """Apply the rows' rules to what is proposed, and commit what they answer."""
    device = proposal.token_BK.device
    rule = stacked(rows, like=proposal.confidence_BK)
    step = Step(
        proposal.token_BK,
        proposal.confidence_BK,
        eligible_BK=proposal.confidence_BK > -torch.inf,
        quota_B1=sent(np.array([[row.quota] for row in rows]), device),
        measure_BK=proposal.measure_BK,
        logits_BKV=proposal.logits_BKV,
        kept_BK=proposal.kept_BK,
        noise_BK=torch.stack([row.noise() for row in rows]).to(device) if rule.needs_noise else None,
        state=states(model, rows, device),
    )
    decision = rule(step)
    change_BK = torch.where(decision.commit_BK, step.token_BK, -1)
    if decision.revoke_BK is not None:
        change_BK = change_BK.masked_fill(decision.revoke_BK, model.config.mask_token_id)
    changes = on_host(model, rows, change_BK, step.confidence_BK)
    record(rows, rule, step, decision)
    for place, (row, change_K) in enumerate(zip(rows, changes, strict=True)):
        row.commit(change_K, tuple(part[place] for part in decision.state))
