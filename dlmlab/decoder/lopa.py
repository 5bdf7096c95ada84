"""LoPA: look ahead along several orders of filling at once, and keep the one after which most is sure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch

from dlmlab.decision import chosen
from dlmlab.decoder.topk import descending, top_k
from dlmlab.rule import Decision, Rule, Step
from dlmlab.settings import MOST, Fraction, Limits


@dataclass(frozen=True)
class LoPA(Rule):
    """Commit positions with c ≥ `threshold`, or the surest, on the best of several branches that a pass computes.

    The anchor branch is the row itself; each of the others has one more position filled, one of the `branches` surest
    that the last step left, with its likeliest token. The branch whose masks in the active block have the highest mean
    c becomes the row, the anchor where several do, and what is committed next, and the next branches, come from its
    proposals. A pass computes one canvas for each branch.

    Source: LoPA, arXiv:2512.16229, section 3, around Fast-dLLM's rule. The published code, for D2F, can weigh a
    branch's masks by its first token's c as well, and count the least sure ones alone; the paper doesn't. A branch that
    would fill its block is not computed: it has no mask there that could speak for it.
    """

    threshold: Fraction
    branches: Annotated[int, Limits(1, MOST)]
    scheduled: ClassVar[bool] = False
    alike: ClassVar[tuple[str, ...]] = ("branches",)

    @property
    def drafts(self) -> int:  # type: ignore[override]
        return self.branches

    def __call__(self, step: Step) -> Decision:
        assert step.candidates is not None
        _, _, confidence_BCK = step.candidates
        mask_BCK = confidence_BCK > -torch.inf
        count_BC = mask_BCK.sum(-1)
        mean_BC = confidence_BCK.where(mask_BCK, 0.0).sum(-1) / count_BC.clamp(min=1)
        best_B1 = top_k(mean_BC.masked_fill(count_BC == 0, -torch.inf), 1).long().argmax(-1, keepdim=True)
        filled_BK, token_BK, confidence_BK = (chosen(part_BCK, best_B1) for part_BCK in step.candidates)
        sure_BK = (confidence_BK >= self.threshold) | top_k(confidence_BK, 1)
        target_BK = token_BK.where(sure_BK, filled_BK)

        left_BK = confidence_BK.masked_fill(sure_BK, -torch.inf)
        next_BC1 = descending(left_BK)[:, : self.branches, None]
        position_K = torch.arange(left_BK.shape[-1], device=left_BK.device)
        drafted_BCK = (position_K == next_BC1) & (left_BK > -torch.inf)[:, None]
        draft_BCK = torch.where(drafted_BCK, token_BK[:, None], -1)
        missing = self.branches - draft_BCK.shape[1]
        draft_BCK = torch.nn.functional.pad(draft_BCK, (0, 0, 0, missing), value=-1)
        return Decision(target_BK >= 0, token_BK=target_BK, draft_BCK=draft_BCK)
