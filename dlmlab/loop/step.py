"""Take the rows in the pool one step further: propose, decide, commit. This names no model and no algorithm."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from dlmlab.denoiser import AheadDenoiser, Denoiser
from dlmlab.errors import UserError
from dlmlab.loop import shared_pass
from dlmlab.loop.batch import Batch
from dlmlab.loop.canvases import Canvases
from dlmlab.loop.finite import BROKEN, Changes, check_finite
from dlmlab.loop.propose import Proposal, sent
from dlmlab.loop.row import Row
from dlmlab.loop.shared_pass import (
    Ahead,
    Memo,
    by_kind,
    by_length,
    canvases_of,
    recall_or_run,
    share_pass,
    stacked,
    states,
)
from dlmlab.loop.trace import record
from dlmlab.rule import Decision, Step


class Done(NamedTuple):
    """The result of a step beside its commits.

    Attributes:
        computed: Canvases that went through the model.
        ahead: The next pass, if it has begun.
    """

    computed: int
    ahead: Ahead | None


@torch.inference_mode()
def step(
    model: Denoiser, rows: Sequence[Row], batch: Batch, share: bool, memo: Memo | None, ahead: Ahead | None
) -> Done:
    """Take all rows a step further.

    Args:
        model: The model.
        rows: The rows that advance together.
        batch: How many canvases go through the model at once.
        share: Whether canvases that are identical go through it once.
        memo: Keeps proposals, and is asked for them first.
        ahead: The pass that the last step began.
    """
    computed = 0
    for alike in by_kind(rows):
        if memo is not None and alike[0].memoisable:
            proposal, asked = recall_or_run(model, alike, memo, batch)
            decide(model, alike, proposal)
            computed += asked
            continue
        overhead = shared_pass.GPU_OVERHEAD if model.device.type == "cuda" else shared_pass.OVERHEAD
        for part in [alike] if model.packs_rows else by_length(alike, overhead):
            alone = len(part) == len(rows) <= batch.size
            for done in batch.each(part, partial(advance, model, share=share, ahead=ahead, go_on=alone), put_off):
                computed, ahead = computed + done.computed, done.ahead
    return Done(computed, ahead)


def put_off(row: Row) -> bool:
    """Return whether a row may wait for its first step where there is no room: it goes back to the head of the
    queue.
    """
    return row.request.cached and not row.begun


def advance(model: Denoiser, rows: Sequence[Row], share: bool, ahead: Ahead | None = None, go_on: bool = False) -> Done:
    """Take rows that share a batch one step further. A step that finds no room is undone.

    Args:
        model: The model.
        rows: The rows of the batch.
        share: Whether canvases that are identical go through the model once.
        ahead: The pass that the last step began.
        go_on: Whether these rows come next as well, until one of them is full.

    Raises:
        torch.OutOfMemoryError: The device has no room for the batch.
    """
    before = [(row, row.generator.get_state()) for row in rows if row.draws]
    try:
        proposal, canvases = share_pass(model, rows, share, ahead)
        computed = len(canvases.tokens_BL)
        at_once = go_on and model.works_ahead and len(canvases.position_BK) == len(rows)
        following = canvases if at_once and all(row.foreseen for row in rows) else None
        if following is not None and any(row.plan_changes for row in rows):
            following = canvases_of(model, rows, following=True)
        return Done(computed, decide(model, rows, proposal, following))
    except torch.OutOfMemoryError:
        for row, state in before:
            row.generator.set_state(state)
        for row in filter(put_off, rows):
            row.store = None
        raise


def held(rows: Sequence[Row], before: tuple[Tensor, ...], after: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return the rows' new states, with the old ones where a state is one for each position and nothing was computed
    there.

    Args:
        rows: The B rows.
        before: Their states before the step, each (B, …).
        after: Their states as the rule returned them.
    """
    computed_BK = np.stack([row.computed_block for row in rows])
    if computed_BK.all() or not after:
        return after
    mask_BK = sent(computed_BK, after[0].device)
    return tuple(
        torch.where(mask_BK.view(*mask_BK.shape, *[1] * (new.ndim - 2)), new, old)
        if new.shape[:2] == mask_BK.shape
        else new
        for old, new in zip(before, after, strict=True)
    )


def decide(model: Denoiser, rows: Sequence[Row], proposal: Proposal, following: Canvases | None = None) -> Ahead | None:
    """Apply the rows' rules to the proposals, and commit what they decide.

    Args:
        model: The model.
        rows: The rows of the batch, whose rules are of one kind.
        proposal: The proposals, (B, K).
        following: The rows as their next pass sees them, but for what is committed now, if that pass is to begin before
            all this is written down.

    Returns:
        The next pass, if it has begun.
    """
    device = proposal.token_BK.device
    rule = stacked(rows, like=proposal.confidence_BK)
    attention_BKK = proposal.attention_BKK
    step = Step(
        proposal.token_BK,
        proposal.confidence_BK,
        eligible_BK=proposal.confidence_BK > -torch.inf,
        quota_B1=sent(np.array([[row.quota] for row in rows]), device),
        measure_BK=proposal.measure_BK,
        logits_BKV=proposal.logits_BKV,
        kept_BK=proposal.kept_BK,
        review_BK=proposal.review_BK,
        noise_BK=torch.stack([row.noise() for row in rows]).to(device) if rule.needs_noise else None,
        state=states(model, rows, device),
        candidates=proposal.candidates,
        attention_BKK=None if attention_BKK is None else attention_BKK.to(proposal.confidence_BK.dtype),
    )
    confidence_BK, candidates = step.confidence_BK, proposal.candidates
    if candidates is not None:
        count = 2 * candidates.token_BCK.shape[1]
        step = step._replace(quotas_BN=sent(np.array([row.quotas(count)[0] for row in rows]), device))
        confidence_BK = confidence_BK.where(~candidates.confidence_BCK.isnan().any(1), torch.nan)
    if rule.sees_canvas:
        active_BK = sent(np.stack([row.active for row in rows]), device)
        step = step._replace(active_BK=active_BK, progress_B1=sent(np.array([[row.progress] for row in rows]), device))
    decision = rule(step)
    if not isinstance(decision, Decision):
        raise UserError(f"{rule} answered a {type(decision).__name__}, not a Decision: return Decision(commit_BK)")
    if rows[0].request.cached:
        decision = decision._replace(state=held(rows, step.state, decision.state))
    if decision.token_BK is not None:  # elsewhere the row's own proposals stay, which a trace tells
        step = step._replace(token_BK=decision.token_BK.where(decision.commit_BK, step.token_BK))
    written_BK = decision.commit_BK if decision.edit_BK is None else decision.commit_BK | decision.edit_BK
    change_BK = torch.where(written_BK, step.token_BK, -1)
    if decision.revoke_BK is not None:
        change_BK = change_BK.masked_fill(decision.revoke_BK, model.config.mask_token_id)
    drafts_BN = None if decision.draft_BCK is None else decision.draft_BCK.flatten(1)
    asked = {"end": decision.end_B1, "seen": decision.seen_B1, "taken": decision.taken_B1, "drafts": drafts_BN}
    told = {name: part for name, part in asked.items() if part is not None}
    changing, ahead = Changes.of(change_BK, confidence_BK, list(told.values())), None
    if following is None:
        changes, *numbers = changing.arrived()
    else:
        ready = cast(AheadDenoiser, model).ready(following.written(change_BK))
        if sure := rule.keeps_to_quota and all(row.quota < row.left for row in rows):  # no block is full then
            ready.begin()
        changes, *numbers = changing.arrived()
        ahead = Ahead.of(rows, following, ready, sure, changes)
    check_finite(model, rows, changes == BROKEN)
    found = dict(zip(told, numbers, strict=True))
    record(rows, rule, step, decision)  # from here on nothing may run out of memory: a step undone would stay recorded
    for index, (row, change_K) in enumerate(zip(rows, changes, strict=True)):
        more = noted(row, {name: part[index] for name, part in found.items()}) if found else ()
        row.commit(change_K, tuple(part[index] for part in decision.state), *more)
    return ahead


def noted(row: Row, told: Mapping[str, np.ndarray]) -> tuple[int, Iterable[np.ndarray]]:
    """Tell a row where its block ends and what it sees next; return what its commit is told besides.

    Args:
        row: The row.
        told: What the row's rule has said of it, by name, each (n,).
    """
    if "end" in told:
        row.end = len(row.request.prompt) + int(told["end"][0])
    if "seen" in told:
        row.seen = row.start + int(told["seen"][0])
    taken = int(told["taken"][0]) if "taken" in told else 1
    return taken, told["drafts"].reshape(-1, row.width) if "drafts" in told else ()
