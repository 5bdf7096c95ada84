"""Ask the model for proposals, once for canvases that are the same."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import accumulate, groupby
from operator import itemgetter
from typing import NamedTuple, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from dlmlab.denoiser import Denoiser, Ready
from dlmlab.loop.batch import Batch
from dlmlab.loop.canvases import Canvases
from dlmlab.loop.finite import check_finite
from dlmlab.loop.propose import Pass, Proposal, propose, sent
from dlmlab.loop.row import Row
from dlmlab.rule import Candidates, Rule

Proposed = tuple[np.ndarray, np.ndarray]
"""One row's proposed tokens and confidences, each (K,)."""

GPU_OVERHEAD = 512
"""What a pass costs beside its positions, in positions, where a GPU reads all weights for it."""
OVERHEAD = 64
"""The same elsewhere, where few positions are enough to compute."""


class Memo(Protocol):
    """Keeps proposals by the canvas and block that they follow from: a dict, or a memo that outlasts the process."""

    def get(self, key: bytes, /) -> Proposed | None:
        """Return what is kept under a key; None where nothing is."""

    def update(self, found: Mapping[bytes, Proposed], /) -> None:
        """Keep these proposals."""


class Ahead(NamedTuple):
    """The next forward pass of rows that go on together, begun before they have noted what the last one led to.

    Attributes:
        rows: The rows.
        canvases: Their canvases, already changed.
        launched: The pass.
    """

    rows: Sequence[Row]
    canvases: Canvases
    launched: Pass

    @classmethod
    def of(
        cls, rows: Sequence[Row], canvases: Canvases, ready: Ready, begun: bool, change_BK: np.ndarray
    ) -> Self | None:
        """Begin the next pass over canvases, unless it has begun, and write down how they have changed.

        Args:
            rows: The rows of the canvases.
            canvases: The canvases as that pass sees them, but for the change.
            ready: The pass.
            begun: Whether it has begun.
            change_BK: The new tokens; -1 where nothing changes.

        Returns:
            The pass; None where a canvas is full after the change, or may be ended.
        """
        if not canvases.goes_on(change_BK, may_end=any(row.end_tokens for row in rows)):
            return None
        if not begun:
            ready.begin()  # before all else: the device waits
        canvases.change(change_BK)
        slot = canvases.slots(rows[0].request.rule.everywhere)
        return cls(rows, canvases, Pass(slot, ready.hidden(canvases.wanted(slot))))


class SharedPass(NamedTuple):
    """The proposals for a batch of rows, and the canvases that went through the model for them."""

    proposal: Proposal
    canvases: Canvases


def share_pass(model: Denoiser, rows: Sequence[Row], share: bool, ahead: Ahead | None = None) -> SharedPass:
    """Return the proposals for a batch of rows.

    Args:
        model: The model.
        rows: The rows of the batch.
        share: Whether canvases that are identical go through the model once.
        ahead: A pass under way, which is used if it is these rows'.
    """
    if ahead is not None and ahead.rows == rows:
        return SharedPass(run_pass(model, rows, ahead.canvases, ahead.launched), ahead.canvases)
    keys = [row.key if share and row.shareable else id(row).to_bytes(8, "little") for row in rows]
    fresh = dict(zip(keys, rows, strict=True))
    canvases = canvases_of(model, list(fresh.values()))
    proposal = run_pass(model, list(fresh.values()), canvases)
    if len(fresh) < len(rows):
        order = {key: position for position, key in enumerate(fresh)}
        position_B = torch.tensor([order[key] for key in keys], device=proposal.token_BK.device)
        proposal = Proposal._make(part if part is None else part[position_B] for part in proposal)
    return SharedPass(proposal, canvases)


def recall_or_run(model: Denoiser, rows: Sequence[Row], memo: Memo, batch: Batch) -> tuple[Proposal, int]:
    """Return the proposals for any number of rows, from a memo where it has them.

    Args:
        model: The model.
        rows: The rows, all of one kind.
        memo: Is asked first, and keeps what the model then proposes.
        batch: How many canvases go through the model at once.

    Returns:
        The proposals, on the host, and the number of canvases that went through the model.
    """
    keys = [row.key for row in rows]
    different = dict(zip(keys, rows, strict=True))
    known = {key: kept for key in different if (kept := memo.get(key)) is not None}
    fresh = sorted((key for key in different if key not in known), key=len, reverse=True)  # little is padded then

    def compute(part: Sequence[bytes]) -> dict[bytes, Proposed]:
        asked = [different[key] for key in part]
        proposal = run_pass(model, asked, canvases_of(model, asked))
        tokens, confidences = proposal.token_BK.cpu().numpy(), proposal.confidence_BK.cpu().numpy()
        check_finite(model, asked, np.isnan(confidences))  # before it is remembered
        return dict(zip(part, zip(tokens, confidences, strict=True), strict=True))

    for computed in batch.each(fresh, compute):
        memo.update(computed)
        known |= computed
    token_B, confidence_B = zip(*(known[key] for key in keys), strict=True)
    return Proposal(torch.from_numpy(np.stack(token_B)), torch.from_numpy(np.stack(confidence_B))), len(fresh)


def canvases_of(model: Denoiser, rows: Sequence[Row], following: bool = False) -> Canvases:
    """Return the rows' canvases for the model. With a cache each row gets its store before its first pass.

    Args:
        model: Makes the stores.
        rows: Rows whose rules are of one kind.
        following: Whether they are for the pass after the one under way, which is foreseen.
    """
    rule, needs = rows[0].request.rule, rows[0].request.needs
    if needs is not None:
        for row in rows:
            row.store = model.new_store(len(row.tokens), needs) if row.store is None else row.store
    if following:
        windows = [row.following for row in rows]
    else:
        windows = [window for row in rows for window in (row.windows if rule.drafts else [row.window])]
    return Canvases.of(windows, rows[0].width, model.config, rule.shadows, rows[0].generation.cfg_scale > 0)


def run_pass(model: Denoiser, rows: Sequence[Row], canvases: Canvases, launched: Pass | None = None) -> Proposal:
    """Run one forward pass over the rows, and return its proposals.

    Args:
        model: The model.
        rows: The rows of the canvases, whose rules are of one kind.
        canvases: The canvases.
        launched: The pass, if it is under way.
    """
    rule = stacked(rows, rows[0].like)
    state = states(model, rows, model.device) if rule.needs_logits else ()
    proposal = propose(model, canvases, rows[0].generation, rule, state, launched)
    return by_row(proposal, rows, rule.drafts) if rule.drafts else proposal


def by_row(proposal: Proposal, rows: Sequence[Row], drafts: int) -> Proposal:
    """Return the proposals of each row's own canvas, with those of its drafts beside them.

    Args:
        proposal: The proposals of all canvases, those of a row one after the other.
        rows: The rows.
        drafts: The most drafts that a row has.
    """
    device = proposal.token_BK.device
    counts = np.array([1 + len(row.drafts) for row in rows])
    number_C = np.arange(1 + drafts)
    there_BC = number_C < counts[:, None]
    index_BC = (counts.cumsum() - counts)[:, None] + number_C * there_BC
    filled_BCK = np.full((*index_BC.shape, rows[0].width), -1)
    for filled_CK, row in zip(filled_BCK, rows, strict=True):
        filled_CK[1 : 1 + len(row.drafts)] = row.drafts or filled_CK[:0]
    index = sent(index_BC, device)
    confidence_BCK = proposal.confidence_BK[index].masked_fill(~sent(there_BC, device)[..., None], -torch.inf)
    candidates = Candidates(sent(filled_BCK, device), proposal.token_BK[index], confidence_BCK)
    own = Proposal._make(part if part is None else part[index[:, 0]] for part in proposal)
    return own._replace(candidates=candidates)


def by_kind(rows: Sequence[Row]) -> list[list[Row]]:
    """Group rows whose rules can be applied together, and that go through the model together."""
    kinds = defaultdict[object, list[Row]](list)
    for row in rows:
        kinds[row.request.rule.kind, row.request.needs].append(row)
    return list(kinds.values())


def by_length(rows: Sequence[Row], overhead: int) -> list[list[Row]]:
    """Group rows that go through the model together, longest first, so that their passes cost least.

    A pass pads its rows to the longest. Rows of one length stay together.

    Args:
        rows: The rows.
        overhead: What a pass costs beside its positions, in positions.
    """
    ordered = sorted(((row.length, row) for row in rows), key=itemgetter(0), reverse=True)
    alike = [(length, [row for _, row in same]) for length, same in groupby(ordered, key=itemgetter(0))]
    least = [0] * (len(alike) + 1)  # what the passes from this group of alike rows on cost
    ends = [0] * len(alike)  # where the first of them ends
    for begin in reversed(range(len(alike))):
        longest, sizes = alike[begin][0], accumulate(len(same) for _, same in alike[begin:])
        costs = [overhead + size * longest + least[begin + at] for at, size in enumerate(sizes, 1)]
        least[begin] = min(costs)
        ends[begin] = begin + len(costs) - costs[::-1].index(least[begin])
    parts, begin = [], 0
    while begin < len(alike):
        parts.append([row for _, same in alike[begin : ends[begin]] for row in same])
        begin = ends[begin]
    return parts


def stacked(rows: Sequence[Row], like: Tensor) -> Rule:
    """Return one rule for rows whose rules are of one kind; see `Rule.stack`.

    Args:
        rows: The rows.
        like: Gives device and dtype of numbers that differ.
    """
    rules = [row.request.rule for row in rows]
    return type(rules[0]).stack(rules, like)


def states(model: Denoiser, rows: Sequence[Row], device: torch.device) -> tuple[Tensor, ...]:
    """Return the rows' states as a batch, each tensor (B, …).

    Args:
        model: Says how wide the logits are.
        rows: The rows.
        device: Where the states go.
    """
    parts = zip(*(row.state_for(model) for row in rows), strict=True)
    return tuple(torch.stack([one.to(device) for one in part]) for part in parts)
