"""DSB: a block that slides, so that nothing unsure holds up what is sure behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from dlmlab.decoder.topk import top_k
from dlmlab.rule import Decision, Rule, Step
from dlmlab.settings import Fraction, PositiveInt


@dataclass(frozen=True)
class DSB(Rule):
    """Commit positions with c ≥ `threshold`, or the surest, in a block that slides over the canvas.

    The block begins at the canvas's first mask. It ends after `initial` positions, and after one more for each that is
    committed, but `largest` positions after its beginning at the latest; None is no bound. `generation.block_length`
    plays no part.

    Source: Dynamic Sliding Block, arXiv:2602.05992, and its code: its constant variant has largest = initial, the
    greedy one has no bound. Its cache is `dlmlab.cache.dsb`.
    """

    threshold: Fraction
    initial: PositiveInt
    largest: PositiveInt | None = None
    sees_canvas: ClassVar[bool] = True
    scheduled: ClassVar[bool] = False

    def __call__(self, step: Step) -> Decision:
        eligible_BK = step.eligible_BK
        position_K = torch.arange(eligible_BK.shape[-1], device=eligible_BK.device)
        begin_B1 = torch.where(eligible_BK, position_K, len(position_K)).amin(-1, keepdim=True)
        end_B1 = self.initial + (~eligible_BK).sum(-1, keepdim=True)
        if self.largest is not None:
            end_B1 = torch.minimum(end_B1, begin_B1 + self.largest)
        confidence_BK = step.confidence_BK.masked_fill(position_K >= end_B1, -torch.inf)
        return Decision((confidence_BK >= self.threshold) | top_k(confidence_BK, 1))
