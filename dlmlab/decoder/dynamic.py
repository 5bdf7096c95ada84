"""SDAR's and LLaDA2's dynamic decoding: a threshold, and never fewer positions than scheduled."""

from __future__ import annotations

from dataclasses import dataclass

from dlmlab.decoder.topk import top_k
from dlmlab.rule import Decision, Rule, Step
from dlmlab.settings import Fraction


@dataclass(frozen=True)
class Dynamic(Rule):
    """Commit every position above `threshold`, and at any rate the scheduled number of most confident positions.

    Source: SDAR, arXiv:2510.06303 (`low_confidence_dynamic`); LLaDA2.0, arXiv:2512.15745.
    """

    threshold: Fraction

    def __call__(self, step: Step) -> Decision:
        return Decision((step.confidence_BK > self.threshold) | top_k(step.confidence_BK, step.quota_B1))
