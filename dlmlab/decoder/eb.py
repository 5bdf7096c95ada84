"""EB-Sampler: as many positions at once as a bound on what they say about each other allows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from dlmlab.decoder.entropy import negative_entropy
from dlmlab.decoder.margin import lead
from dlmlab.decoder.topk import descending, longest_prefix
from dlmlab.rule import Decision, Rule, Step
from dlmlab.settings import NonNegativeFloat, one_of


@dataclass(frozen=True)
class EB(Rule):
    """Of the positions from the least error to the largest, commit the largest k with Σ_{i≤k} Hᵢ − max_{i≤k} Hᵢ ≤
    gamma.

    H are entropies in nats. The left side only grows with k, and is 0 for the first position. Each row is bounded by
    itself. Steps play no part.

    Source: EB-Sampler, arXiv:2505.24857, which compares the three proxies. Its authors published no code; the default
    gamma is that of UNI-D2's implementation (`configs/sampling/eb.yaml`), the default proxy d2Cache's.

    Attributes:
        gamma: How much the positions may depend on each other, in nats; 0 commits one position and what is certain
            besides.
        error_proxy: What orders the positions: `confidence` of the proposed token, `entropy`, or `margin`, the lead of
            the likeliest token over the next.
    """

    gamma: NonNegativeFloat
    error_proxy: Annotated[str, one_of(("confidence", "entropy", "margin"))] = "confidence"
    scheduled: ClassVar[bool] = False
    measures: ClassVar[bool] = True

    def measure(self, probability_NV: Tensor) -> Tensor:
        certainty_N = negative_entropy(probability_NV)
        if self.error_proxy == "margin":
            return torch.stack((certainty_N, lead(probability_NV)), -1)
        return certainty_N

    def __call__(self, step: Step) -> Decision:
        assert step.measure_BK is not None
        if self.error_proxy == "margin":
            certainty_BK, score_BK = step.measure_BK.unbind(-1)
        else:
            certainty_BK = step.measure_BK
            score_BK = certainty_BK if self.error_proxy == "entropy" else step.confidence_BK
        entropy_BK = (-certainty_BK).masked_fill(~step.eligible_BK, 0.0).gather(-1, descending(score_BK))
        dependence_BK = entropy_BK.cumsum(-1) - entropy_BK.cummax(-1).values
        return Decision(longest_prefix(score_BK, dependence_BK <= self.gamma))
