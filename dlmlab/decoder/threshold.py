"""Fast-dLLM's confidence-aware parallel decoding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from dlmlab.decoder.topk import top_k
from dlmlab.rule import Decision, Rule, Step
from dlmlab.settings import Fraction


@dataclass(frozen=True)
class Threshold(Rule):
    """Commit the most confident position and every position of at least `threshold`; steps play no part.

    Source: Fast-dLLM, arXiv:2505.22618, section 3.3.
    """

    threshold: Fraction
    scheduled: ClassVar[bool] = False

    def __call__(self, step: Step) -> Decision:
        return Decision((step.confidence_BK >= self.threshold) | top_k(step.confidence_BK, 1))
