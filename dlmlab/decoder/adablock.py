"""AdaBlock: a block ends where a line or a sentence does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from dlmlab.decoder.around import Around, within
from dlmlab.decoder.threshold import Threshold
from dlmlab.decoder.topk import top_k
from dlmlab.errors import UserError
from dlmlab.rule import Decision, Rule, Step
from dlmlab.settings import Fraction, NonNegativeInt


@dataclass(frozen=True)
class AdaBlock(Around):
    """At a block's first step, end it at the surest delimiter that is predicted; commit by another rule inside.

    A delimiter is looked for in the next ⌊G / 4⌋ positions, G those of the canvas. If the surest has c ≥
    delimiter_threshold, the block ends with it; else it has `generation.block_length` positions.

    Source: AdaBlock-dLLM, arXiv:2509.26432, and its code, whose delimiter is LLaDA's newline, 198; delimiter_threshold
    is 0.5 for Dream.

    Attributes:
        delimiter_ids: Tokens that are delimiters.
        delimiter_threshold: The least confidence of a delimiter that ends a block.
        threshold: The least confidence in Fast-dLLM's rule, the paper's, which commits inside where `rule` is None.
        rule: The rule that commits inside. It may not mask tokens again, which it would beyond the block.
    """

    delimiter_ids: Sequence[NonNegativeInt]
    delimiter_threshold: Fraction
    threshold: Fraction = 0.9
    rule: Rule | None = None
    sees_canvas: ClassVar[bool] = True
    alike: ClassVar[tuple[str, ...]] = ("threshold",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.inner.revokes:
            raise UserError(f"rule={type(self.inner).__name__} masks tokens again, which AdaBlock's blocks don't allow")

    @property
    def inner(self) -> Rule:
        return self.rule or Threshold(self.threshold)

    def __call__(self, step: Step) -> Decision:
        assert step.active_BK is not None
        position_K = torch.arange(step.active_BK.shape[-1], device=step.active_BK.device)
        begin_B1 = torch.where(step.active_BK, position_K, len(position_K)).amin(-1, keepdim=True)
        near_BK = (position_K >= begin_B1) & (position_K < begin_B1 + len(position_K) // 4)
        delimits_BK = torch.zeros_like(near_BK)
        for token in self.delimiter_ids:
            delimits_BK |= step.token_BK == token
        sure_BK = near_BK & delimits_BK & (step.confidence_BK >= self.delimiter_threshold)
        surest_BK = top_k(step.confidence_BK.masked_fill(~sure_BK, -torch.inf), 1)
        fresh_B1 = ~(step.active_BK & ~step.eligible_BK).any(-1, keepdim=True)

        usual_B1 = begin_B1 + step.active_BK.sum(-1, keepdim=True)
        found_B1 = (surest_BK * (position_K + 1)).sum(-1, keepdim=True)
        end_B1 = torch.where(fresh_B1 & (found_B1 > 0), found_B1, usual_B1)
        block_BK = (position_K >= begin_B1) & (position_K < end_B1)
        return self.inner(within(self.inner, step, block_BK))._replace(end_B1=end_B1)
