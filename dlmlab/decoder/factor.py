"""Fast-dLLM's factor rule: the surer the positions are, the more of them at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from dlmlab.decoder.topk import longest_prefix
from dlmlab.rule import Decision, Rule, Step
from dlmlab.settings import NonNegativeFloat


@dataclass(frozen=True)
class Factor(Rule):
    """Of the confidences from high to low, commit the largest n with (n + 1)(1 − c₍ₙ₎) < f; steps play no part.

    f: a smaller one commits less. The left side only grows with n, so one look at all n finds the largest.
    The published code differs: it takes ≤, and where only the least confident position fails, it commits that too.

    Source: Fast-dLLM, arXiv:2505.22618, section 3.3.
    """

    f: NonNegativeFloat
    scheduled: ClassVar[bool] = False

    def __call__(self, step: Step) -> Decision:
        doubt_BK = 1 - step.confidence_BK.sort(-1, descending=True).values
        count_K = torch.arange(1, doubt_BK.shape[-1] + 1, device=doubt_BK.device)
        return Decision(longest_prefix(step.confidence_BK, (count_K + 1) * doubt_BK < self.f))
