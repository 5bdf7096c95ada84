"""Fast-dLLM++: commit together what is right together, by a bound on all confidences instead of the least."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from dlmlab.decoder.topk import longest_prefix
from dlmlab.rule import Decision, Rule, Step
from dlmlab.settings import NonNegativeFloat


@dataclass(frozen=True)
class Frechet(Rule):
    """Of the confidences from high to low, commit the longest prefix whose Fréchet score exceeds delta.

    The score of n positions is Lₙ − Uₙ: Lₙ = Σ_{j≤n} c₍ⱼ₎ − (n − 1) bounds from below the probability that all n tokens
    are right, Uₙ = 1 − c₍ₙ₎ from above that of anything else. It only falls with n. Where all n are equally confident
    this is the factor rule with f = 1 − delta. Steps play no part.

    Source: Fast-dLLM++, arXiv:2606.02955. The paper cuts Lₙ off at 0, which changes nothing for delta ≥ 0.
    """

    delta: NonNegativeFloat
    scheduled: ClassVar[bool] = False

    def __call__(self, step: Step) -> Decision:
        confidence_BK = step.confidence_BK.sort(-1, descending=True).values
        before_K = torch.arange(confidence_BK.shape[-1], device=confidence_BK.device)
        score_BK = confidence_BK.cumsum(-1) - before_K - (1 - confidence_BK)
        return Decision(longest_prefix(step.confidence_BK, score_BK > self.delta))
