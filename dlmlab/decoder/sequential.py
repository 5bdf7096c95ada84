"""From left to right: what the other decoders' choice of positions is worth in a block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from dlmlab.decoder.topk import top_k
from dlmlab.rule import Decision, Rule, Step


@dataclass(frozen=True)
class Sequential(Rule):
    """Commit the scheduled number of leftmost positions.

    Source: SDAR, arXiv:2510.06303 (`sequential`).
    """

    keeps_to_quota: ClassVar[bool] = True

    def __call__(self, step: Step) -> Decision:
        score_BK = step.eligible_BK.to(step.confidence_BK.dtype).log()
        return Decision(top_k(score_BK, step.quota_B1))
