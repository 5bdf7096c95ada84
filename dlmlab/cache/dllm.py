"""dLLM-Cache: of the response, only the positions whose values have changed most are computed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from dlmlab.policy import FEATURES, FeatureReuse, Plan, Policy, View
from dlmlab.settings import Fraction, PositiveInt


@dataclass(frozen=True)
class LeastSimilar(FeatureReuse):
    """Takes the watched positions whose values are least like what they were, by their cosine.

    Attributes:
        computed: Positions where the halves are always computed, bool (L,).
        watched: Positions whose values are compared, bool (L,); None for none.
        count: How many of the watched positions are taken.
    """

    computed: np.ndarray
    watched: np.ndarray | None
    count: int

    @property
    def skipped(self) -> int:
        """See `FeatureReuse`."""
        return int((~self.computed).sum()) - (0 if self.watched is None else self.count)

    def stale(self, new_ND: Tensor, old_ND: Tensor) -> Tensor:
        """Choose the `count` watched positions whose values have the least cosine with what they were.

        Args:
            new_ND: The values of the N watched positions now.
            old_ND: Their values when they were last computed.

        Returns:
            Indices into the N watched positions, the least alike first; equals from left to right.
        """
        return F.cosine_similarity(new_ND, old_ND, dim=-1).argsort(stable=True)[: self.count]


@dataclass(frozen=True)
class DLLM(Policy):
    """Compute the prompt in each prompt_interval-th pass of a row, and the canvas in each response_interval-th.

    In between, each layer computes the values of all of the canvas, and all else for the ⌊gen_length · ratio⌋ positions
    whose values have changed most. Elsewhere attention and MLP add what they added last. The first layer computes
    everything. So every pass goes through all positions, though not through all of each layer: what it spares shows in
    the full-pass equivalents, in which values that are computed to be compared alone count nothing.

    Source: dLLM-Cache, arXiv:2506.06295; the first layer is its published code's.
    """

    prompt_interval: PositiveInt = 100
    response_interval: PositiveInt = 7
    ratio: Fraction = 0.25
    needs = FEATURES

    def plan(self, view: View) -> Plan:
        prompt_L = view.between(0, view.prompt)
        computed_L = np.zeros_like(prompt_L)
        if view.forwards % self.prompt_interval == 0:
            computed_L |= prompt_L
        count, watched_L = int((~prompt_L).sum() * self.ratio), None
        if view.forwards % self.response_interval == 0:
            computed_L |= ~prompt_L
        elif count:
            watched_L = ~prompt_L
        return Plan(view.everything, hook=LeastSimilar(computed_L, watched_L, count))
