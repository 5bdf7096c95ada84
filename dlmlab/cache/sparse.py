"""Sparse-dLLM: of all that lies outside the block, only the keys that its queries attend to most are kept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dlmlab.errors import UserError
from dlmlab.policy import CHOSEN_KEYS, Frozen, KeyChoice, Plan, Policy, View
from dlmlab.settings import Fraction, PositiveInt


@dataclass(frozen=True)
class Sparse(Policy):
    """Compute everything in a block's first two passes; then the block alone, which sees itself and the keys kept.

    In the second pass each layer keeps ⌊n · keep_ratio⌋ of the n positions outside the block: those with the largest
    importance, the product of their key and the mean of the block's queries, averaged over heads, and the largest of
    `kernel_size` neighbours among the n. The first pass's keys are of masks that are about to change.

    Source: Sparse-dLLM, arXiv:2508.02558. Its published code knows the schedule alone; here any decoder goes.
    """

    keep_ratio: Fraction = 0.5
    kernel_size: PositiveInt = 3
    needs = CHOSEN_KEYS
    frozen = Frozen.EARLIER_BLOCKS

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kernel_size % 2 == 0:
            raise UserError(f"kernel_size={self.kernel_size} has no middle: choose an odd number")

    def plan(self, view: View) -> Plan:
        if view.step > 1:
            return Plan(view.block)
        return Plan(view.everything, hook=MostAttended(view.block, self) if view.step == 1 else None)


@dataclass(frozen=True)
class MostAttended(KeyChoice):
    """Chooses the keys of one pass."""

    block: np.ndarray
    policy: Sparse

    def choose(self, q_HLE: Tensor, k_HLE: Tensor) -> Tensor:
        """Return the block, and the most important positions outside.

        Args:
            q_HLE: Rotated queries, of all heads and positions.
            k_HLE: Rotated keys, of as many heads.

        Returns:
            The positions whose keys stay, bool (L,), on the queries' device.
        """
        block_L = torch.from_numpy(self.block).to(q_HLE.device)
        mean_HE1 = q_HLE[:, block_L].mean(1).unsqueeze(-1)
        importance_N = (k_HLE[:, ~block_L] @ mean_HE1).squeeze(-1).mean(0)
        size = self.policy.kernel_size
        pooled_N = F.max_pool1d(importance_N[None], size, stride=1, padding=size // 2)[0]
        kept_N = torch.zeros_like(pooled_N, dtype=torch.bool)
        order = pooled_N.argsort(descending=True, stable=True)  # neighbours tie, and the leftmost go first
        kept_N[order[: int(len(pooled_N) * self.policy.keep_ratio)]] = True
        return block_L.masked_scatter(~block_L, kept_N)
