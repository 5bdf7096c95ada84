"""LocalLeap: commit in parallel around confident anchors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from dlmlab.decoder.topk import top_k
from dlmlab.rule import Decision, Rule, Step
from dlmlab.settings import Fraction, NonNegativeInt, one_of


@dataclass(frozen=True)
class LocalLeap(Rule):
    """Around an anchor, commit every position that is confident enough.

    Source: LocalLeap, arXiv:2510.07081, section 3.

    Attributes:
        kappa: The least confidence of an anchor.
        tau: The least confidence that its neighbours need.
        radius: How far a neighbour may be from an anchor, in positions; an anchor is its own neighbour.
        anchors: Which of the positions with c ≥ kappa are anchors, and what is committed besides. `scheduled` (the
            performance log's rule): those of the scheduled top-k, which is committed as well; there are never more
            steps than the baseline's. `all` (the paper's rule): every one of them; the most confident position is
            committed as well, and steps play no part.
    """

    kappa: Fraction
    tau: Fraction
    radius: NonNegativeInt
    anchors: Annotated[str, one_of(("scheduled", "all"))] = "scheduled"

    @property
    def scheduled(self) -> bool:  # type: ignore[override]
        return self.anchors == "scheduled"

    def __call__(self, step: Step) -> Decision:
        always_BK, _, leap_BK = self._parts(step)
        return Decision(always_BK | leap_BK)

    def marks(self, step: Step) -> Mapping[str, Tensor]:
        """Return the anchors, and the neighbours: what is committed for an anchor's sake alone."""
        always_BK, anchor_BK, leap_BK = self._parts(step)
        return {"anchor": anchor_BK, "neighbour": leap_BK & ~anchor_BK & ~always_BK}

    def _parts(self, step: Step) -> tuple[Tensor, Tensor, Tensor]:
        """Return what is committed at any rate, the anchors, and what is committed around them; each (B, K)."""
        anchor_BK = step.confidence_BK >= self.kappa
        if self.scheduled:
            always_BK = top_k(step.confidence_BK, step.quota_B1)
            anchor_BK &= always_BK
        else:
            always_BK = top_k(step.confidence_BK, 1)
        near_BK = distance_to_nearest(anchor_BK) <= self.radius
        return always_BK, anchor_BK, near_BK & (step.confidence_BK >= self.tau)


def distance_to_nearest(mark_BK: Tensor) -> Tensor:
    """For each position the distance to the row's nearest marked position, (B, K); larger than any radius where none
    is.

    Two running maxima instead of a K × K table, so that rows may differ in radius at no cost.
    """
    position_K = torch.arange(mark_BK.shape[-1], device=mark_BK.device, dtype=torch.float32)
    left_BK = torch.where(mark_BK, position_K, -torch.inf).cummax(-1).values
    right_BK = -torch.where(mark_BK, -position_K, -torch.inf).flip(-1).cummax(-1).values.flip(-1)
    return torch.minimum(position_K - left_BK, right_BK - position_K)
