"""Fast-dLLM's factor rule: the surer the positions are, the more of them at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch

from dlmlab.decoder.topk import longest_prefix
from dlmlab.rule import Decision, Rule, Step
from dlmlab.settings import NonNegativeFloat, one_of


@dataclass(frozen=True)
class Factor(Rule):
    """Of the confidences from high to low, commit the largest n with (n + 1)(1 − c₍ₙ₎) < f; steps play no part.

    The left side only grows with n, so one look at all n finds the largest.

    Source: Fast-dLLM, arXiv:2505.22618, section 3.3.

    Attributes:
        f: The bound; a smaller one commits less.
        variant: `paper`, or `published`: what NVlabs' code does, which takes c₍ₙ₎ ≥ 1 − f / (n + 1), and where only the
            least confident position fails, commits that too.
    """

    f: NonNegativeFloat
    variant: Annotated[str, one_of(("paper", "published"))] = "paper"
    scheduled: ClassVar[bool] = False

    def __call__(self, step: Step) -> Decision:
        confidence_BK = step.confidence_BK.sort(-1, descending=True).values
        count_K = torch.arange(1, confidence_BK.shape[-1] + 1, device=confidence_BK.device)
        if self.variant == "paper":
            return Decision(longest_prefix(step.confidence_BK, (count_K + 1) * (1 - confidence_BK) < self.f))
        commit_BK = longest_prefix(step.confidence_BK, confidence_BK >= 1 - self.f / (count_K + 1))
        left_B1 = (step.eligible_BK & ~commit_BK).sum(-1, keepdim=True)
        return Decision(commit_BK | step.eligible_BK & (left_B1 == 1))
