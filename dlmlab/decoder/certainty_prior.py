"""The certainty prior: what is sure, and near to what is known already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from dlmlab.decoder.topk import top_k
from dlmlab.rule import Decision, Rule, Step
from dlmlab.settings import Limits


@dataclass(frozen=True)
class CertaintyPrior(Rule):
    """Commit the scheduled number of positions with the highest c · D, D the density of committed positions around.

    D_i = Σ_j known_j G(i − j) / Σ_d G(d), with G(d) = exp(−d² / 2 sigma²). What lies left of the block is known; what
    lies right of it is known where the block's last position is.

    Source: d²Cache, arXiv:2509.23094, section 3.3, and its code (`certainty_density`), which runs it with one block and
    one position a step.
    """

    sigma: Annotated[float, Limits(1e-3)]

    keeps_to_quota: ClassVar[bool] = True

    def __call__(self, step: Step) -> Decision:
        score_BK = step.confidence_BK * self.density(~step.eligible_BK).to(step.confidence_BK.dtype)
        return Decision(top_k(score_BK.masked_fill(~step.eligible_BK, -torch.inf), step.quota_B1))

    def density(self, known_BK: Tensor) -> Tensor:
        """How much of what is around each position is known, (B, K), from 0 to 1."""
        width = known_BK.shape[-1]
        around_BK = torch.cat((torch.ones_like(known_BK), known_BK, known_BK[:, -1:].expand_as(known_BK)), -1)
        position_K = torch.arange(-width, 2 * width, device=known_BK.device, dtype=torch.float64)
        distance_KK = position_K[width : 2 * width, None] - position_K
        every_K = torch.arange(-3 * width, 3 * width, device=known_BK.device, dtype=torch.float64)
        sigma = self.sigma[..., None] if isinstance(self.sigma, Tensor) else self.sigma
        near_BKK, all_BK = (torch.exp(-(d**2) / (2 * sigma**2)) for d in (distance_KK, every_K))
        return (near_BKK * around_BK[:, None]).sum(-1) / all_BK.sum(-1)
