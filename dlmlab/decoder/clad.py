"""CLAD: whole runs of confident positions at once, but of two that depend on each other only one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dlmlab.decoder.topk import top_k
from dlmlab.rule import Decision, Rule, Step
from dlmlab.settings import Fraction, NonNegativeFloat, PositiveInt

FEW = 2
"""Runs up to which `conflict` decides, since their mean says nothing."""


@dataclass(frozen=True)
class CLAD(Rule):
    """Commit the runs of neighbouring positions with c ≥ `threshold`, or the surest position; leave out what conflicts.

    How much two runs depend on each other is the largest attention that a position of one gives to, or gets from, the
    other's positions on average. Two runs conflict where each is the other's strongest partner, and that is at least
    the mean of either's dependences; of just two runs, where it is at least conflict / K. The longer one is committed,
    of equals the left one. The position's own block is all that counts.

    Source: CLAD, arXiv:2605.29607, and its code. On a GPU a pass that shows its attention is the plain one.

    Attributes:
        threshold: The least confidence of a position in a run.
        conflict: The least dependence of just two runs that conflict, times K.
        layers: How many of the network's last layers have their attention averaged; the published code takes 4 of 32.
    """

    threshold: Fraction
    conflict: NonNegativeFloat
    layers: PositiveInt
    scheduled: ClassVar[bool] = False
    alike: ClassVar[tuple[str, ...]] = ("layers",)

    @property
    def attends(self) -> int:  # type: ignore[override]
        return self.layers

    def __call__(self, step: Step) -> Decision:
        sure_BK = step.eligible_BK & (step.confidence_BK >= self.threshold)
        sure_BK = torch.where(sure_BK.any(-1, keepdim=True), sure_BK, top_k(step.confidence_BK, 1))
        run_BK = run_of(sure_BK)
        count_BR = torch.zeros_like(run_BK, dtype=torch.int64).scatter_add_(1, run_BK, sure_BK.long())
        depends_BRR = self.dependences(step, sure_BK, run_BK, count_BR)

        runs_B1 = (count_BR > 0).sum(-1, keepdim=True)
        mean_BR = depends_BRR.clamp(min=0).sum(-1) / (runs_B1 - 1).clamp(min=1)
        strongest_BR, partner_BR = depends_BRR.max(-1)
        order_R = torch.arange(run_BK.shape[1], device=run_BK.device)
        mutual_BR = partner_BR.gather(1, partner_BR) == order_R
        enough_BR = (strongest_BR >= mean_BR) & (strongest_BR >= mean_BR.gather(1, partner_BR))
        enough_BR = torch.where(runs_B1 > FEW, enough_BR, strongest_BR >= self.conflict / run_BK.shape[1])
        other_BR = count_BR.gather(1, partner_BR)
        smaller_BR = (count_BR < other_BR) | (count_BR == other_BR) & (order_R > partner_BR)
        dropped_BR = mutual_BR & enough_BR & smaller_BR & (runs_B1 > 1)
        return Decision(sure_BK & ~dropped_BR.gather(1, run_BK))

    def dependences(self, step: Step, sure_BK: Tensor, run_BK: Tensor, count_BR: Tensor) -> Tensor:
        """Return how much runs depend on each other, (B, R, R); -inf where one isn't there, or is the other.

        Args:
            step: The step.
            sure_BK: The positions that belong to runs.
            run_BK: Their runs' numbers.
            count_BR: How many positions each of R = K runs has; 0 for one that isn't there.
        """
        attention_BKK = step.attention_BKK
        assert attention_BKK is not None
        either_BKK = torch.maximum(attention_BKK, attention_BKK.mT).masked_fill(~sure_BK[:, None], 0.0)
        by_run_BKK = run_BK[:, None].expand_as(either_BKK)
        given_BKR = torch.zeros_like(either_BKK).scatter_add_(2, by_run_BKK, either_BKK) / count_BR[:, None].clamp(
            min=1
        )
        given_BKR = given_BKR.masked_fill(~sure_BK[..., None], -torch.inf)
        most_BRR = torch.full_like(given_BKR, -torch.inf).scatter_reduce_(1, by_run_BKK.mT, given_BKR, "amax")
        there_BR = count_BR > 0
        itself_RR = torch.eye(most_BRR.shape[-1], dtype=torch.bool, device=most_BRR.device)
        apart_BRR = there_BR[:, None] & there_BR[..., None] & ~itself_RR
        return torch.maximum(most_BRR, most_BRR.mT).masked_fill(~apart_BRR, -torch.inf)


def run_of(member_BK: Tensor) -> Tensor:
    """Return the number of the run of neighbours that each position belongs to; of the one before where to none."""
    before_BK = torch.nn.functional.pad(member_BK[:, :-1], (1, 0))
    return ((member_BK & ~before_BK).cumsum(-1) - 1).clamp(min=0)
