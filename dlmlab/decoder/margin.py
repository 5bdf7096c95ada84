"""Top-k by probability margin: commit where the model hesitates least between two tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from dlmlab.decoder.topk import top_k
from dlmlab.rule import Decision, Rule, Step


@dataclass(frozen=True)
class Margin(Rule):
    """Commit the scheduled number of positions with the largest p₁ − p₂, the lead of the likeliest token over the next.

    Source: Train for the Worst, Plan for the Best, arXiv:2502.06768, section 4 (top-k probability margin).
    """

    measures: ClassVar[bool] = True
    keeps_to_quota: ClassVar[bool] = True

    @staticmethod
    def measure(probability_NV: Tensor) -> Tensor:
        return lead(probability_NV)

    def __call__(self, step: Step) -> Decision:
        assert step.measure_BK is not None
        return Decision(top_k(step.measure_BK, step.quota_B1))


def lead(probability_NV: Tensor) -> Tensor:
    """Return the probability of the likeliest token less that of the next, (N,)."""
    first_N, second_N = probability_NV.topk(2, dim=-1).values.unbind(-1)
    return first_N - second_N
