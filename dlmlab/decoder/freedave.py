"""FreeDave: the scheduled steps, several of them in one pass where the model would have taken them alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from dlmlab.decision import chosen
from dlmlab.decoder.topk import top_k
from dlmlab.rule import Decision, Rule, Step
from dlmlab.settings import MOST, Limits


@dataclass(frozen=True)
class FreeDave(Rule):
    """Draft the next scheduled steps from one pass, verify all of them in the next, and keep those that come true.

    A pass computes draft_steps canvases: the row's own, and drafts that are one, two … steps further, if each step took
    the tokens which the last pass proposed. A draft comes true where the scheduled step from the canvas before it leads
    to just that draft; the first that doesn't is dropped with all that follow it, and the step that should have led to
    it is taken instead. So a pass takes one step at least. At temperature 0 the tokens are the baseline's, one by one,
    in no more passes, each of which costs up to draft_steps times as much; above 0 they have the baseline's
    distribution, by other draws.

    Source: FreeDave, arXiv:2510.00294, algorithm 1, whose d is draft_steps, and its code, which begins a block with a
    pass more. What it adds for thresholds, where nothing is lossless, is left out.
    """

    draft_steps: Annotated[int, Limits(2, MOST)]
    alike: ClassVar[tuple[str, ...]] = ("draft_steps",)

    @property
    def drafts(self) -> int:  # type: ignore[override]
        return self.draft_steps - 1

    def __call__(self, step: Step) -> Decision:
        assert step.candidates is not None
        assert step.quotas_BN is not None
        filled_BCK, token_BCK, confidence_BCK = step.candidates
        count = filled_BCK.shape[1]
        take_BCK = most(confidence_BCK, step.quotas_BN[:, :count])
        target_BCK = token_BCK.where(take_BCK, filled_BCK)
        true_BC = (target_BCK[:, :-1] == filled_BCK[:, 1:]).all(-1).cumprod(-1)
        last_B1 = true_BC.sum(-1, keepdim=True)

        target_BK, token_BK, confidence_BK, take_BK = (
            chosen(part_BCK, last_B1) for part_BCK in (target_BCK, token_BCK, confidence_BCK, take_BCK)
        )
        ahead_BC = step.quotas_BN.gather(1, last_B1 + torch.arange(count, device=last_B1.device)).cumsum(-1)[:, 1:]
        drafted_BCK = most(confidence_BK[:, None].expand(-1, count - 1, -1), ahead_BC) & ~take_BK[:, None]
        draft_BCK = torch.where(drafted_BCK, token_BK[:, None], -1)
        return Decision(target_BK >= 0, token_BK=target_BK, taken_B1=last_B1 + 1, draft_BCK=draft_BCK)


def most(confidence_BCK: Tensor, quota_BC: Tensor) -> Tensor:
    """Return the surest positions of each canvas, as many as its quota says.

    Args:
        confidence_BCK: The proposals' probabilities on C canvases of each row; -inf where nothing is proposed.
        quota_BC: int64: how many positions of each canvas; where fewer have a proposal, all of them.

    Returns:
        The positions, bool (B, C, K); of equals the leftmost go first.
    """
    return top_k(confidence_BCK.flatten(0, 1), quota_BC.flatten()[:, None]).view_as(confidence_BCK)
