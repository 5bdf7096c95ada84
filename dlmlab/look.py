"""What the model proposes for rows, asked once for canvases that are the same."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from dlmlab.batch import Batch
from dlmlab.finite import check_finite
from dlmlab.propose import Proposal, propose
from dlmlab.row import Row
from dlmlab.types import Denoiser, Rule

Proposed = tuple[np.ndarray, np.ndarray]
"""One row's proposed tokens and confidences, each (K,)."""


class Memo(Protocol):
    """Proposals by the canvas and block that they follow from: a dict, or one that outlasts the process."""

    def get(self, key: bytes, /) -> Proposed | None:
        """What is kept under a key, if anything is."""

    def update(self, found: Mapping[bytes, Proposed], /) -> None:
        """Keep these."""


def look(model: Denoiser, rows: Sequence[Row], share: bool) -> tuple[Proposal, int]:
    """Proposals for a batch of rows, and how many canvases went through the model."""
    keys = [row.key if share and row.shareable else id(row).to_bytes(8, "little") for row in rows]
    fresh = dict(zip(keys, rows, strict=True))
    proposal = ask(model, list(fresh.values()))
    if len(fresh) < len(rows):
        order = {key: place for place, key in enumerate(fresh)}
        place_B = torch.tensor([order[key] for key in keys], device=proposal.token_BK.device)
        proposal = Proposal._make(part if part is None else part[place_B] for part in proposal)
    return proposal, len(fresh)


def look_up(model: Denoiser, rows: Sequence[Row], memo: Memo, batch: Batch) -> tuple[Proposal, int]:
    """The same for any number of rows, through a memo; the proposals are on the host."""
    keys = [row.key for row in rows]
    different = dict(zip(keys, rows, strict=True))
    known = {key: kept for key in different if (kept := memo.get(key)) is not None}
    fresh = [key for key in different if key not in known]

    def compute(part: Sequence[bytes]) -> dict[bytes, Proposed]:
        asked = [different[key] for key in part]
        proposal = ask(model, asked)
        tokens, confidences = proposal.token_BK.cpu().numpy(), proposal.confidence_BK.cpu().numpy()
        check_finite(model, asked, np.isnan(confidences).any(-1))  # before it is remembered
        return dict(zip(part, zip(tokens, confidences, strict=True), strict=True))

    for computed in batch.each(fresh, compute):
        memo.update(computed)
        known |= computed
    token_B, confidence_B = zip(*(known[key] for key in keys), strict=True)
    return Proposal(torch.from_numpy(np.stack(token_B)), torch.from_numpy(np.stack(confidence_B))), len(fresh)


def ask(model: Denoiser, rows: Sequence[Row]) -> Proposal:
    """One forward pass over the rows."""
    rule = stacked(rows, rows[0].like)
    state = states(model, rows, model.device) if rule.needs_logits else ()
    return propose(model, [row.window for row in rows], rows[0].generation, rule, state)


def by_kind(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows whose rules can be applied together."""
    kinds = defaultdict[object, list[Row]](list)
    for row in rows:
        kinds[row.request.rule.kind].append(row)
    return list(kinds.values())


def stacked(rows: Sequence[Row], like: Tensor) -> Rule:
    """One rule for rows whose rules are of one kind; see `Rule.stack`."""
    rules = [row.request.rule for row in rows]
    return type(rules[0]).stack(rules, like)


def states(model: Denoiser, rows: Sequence[Row], device: torch.device) -> tuple[Tensor, ...]:
    """The rows' states as a batch, each (B, …)."""
    parts = zip(*(row.state_for(model) for row in rows), strict=True)
    return tuple(torch.stack([one.to(device) for one in part]) for part in parts)
