"""LLaDA's own decoding: low-confidence remasking on a fixed schedule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from dlmlab.decoder.topk import top_k
from dlmlab.rule import Decision, Rule, Step


@dataclass(frozen=True)
class Baseline(Rule):
    """Commit the scheduled number of most confident positions.

    Source: LLaDA, arXiv:2502.09992, section 2.4 and algorithm 5; semi-autoregressive where a block is shorter than
    the canvas.
    """

    keeps_to_quota: ClassVar[bool] = True

    def __call__(self, step: Step) -> Decision:
        return Decision(top_k(step.confidence_BK, step.quota_B1))
