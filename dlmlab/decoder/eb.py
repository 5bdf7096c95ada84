"""EB-Sampler: as many positions at once as a bound on what they say about each other allows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from dlmlab.decoder.entropy import negative_entropy
from dlmlab.decoder.topk import descending, longest_prefix
from dlmlab.rule import Decision, Rule, Step
from dlmlab.settings import NonNegativeFloat


@dataclass(frozen=True)
class EB(Rule):
    """Of the positions from the most confident to the least, commit the largest k with Σ_{i≤k} Hᵢ − max_{i≤k} Hᵢ ≤
    gamma.

    H: entropies in nats. gamma: how much the positions may depend on each other; 0 commits one position and what is
    certain besides. The left side only grows with k, and is 0 for the first position. Each row is bounded by itself.
    Steps play no part.

    Source: EB-Sampler, arXiv:2505.24857, with confidence as the order of positions (its error proxy).
    """

    gamma: NonNegativeFloat
    scheduled: ClassVar[bool] = False
    measures: ClassVar[bool] = True

    @staticmethod
    def measure(probability_NV: Tensor) -> Tensor:
        return negative_entropy(probability_NV)

    def __call__(self, step: Step) -> Decision:
        assert step.measure_BK is not None
        order_BK = descending(step.confidence_BK)
        entropy_BK = (-step.measure_BK).masked_fill(~step.eligible_BK, 0.0).gather(-1, order_BK)
        dependence_BK = entropy_BK.cumsum(-1) - entropy_BK.cummax(-1).values
        return Decision(longest_prefix(step.confidence_BK, dependence_BK <= self.gamma))
