"""LLaDA2.1's decoding: commit by a threshold, and overwrite what the model has changed its mind about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from dlmlab.decoder.topk import top_k
from dlmlab.rule import Decision, Rule, Step
from dlmlab.settings import Fraction, PositiveInt


@dataclass(frozen=True)
class Editing(Rule):
    """Commit every position above `threshold`, the surest at any rate; overwrite tokens that another one beats.

    A committed token of the active block is overwritten where another is proposed with a confidence above
    `editing_threshold`; at 0 whatever has changed is. A block ends with a pass over it, full, that changes nothing, or
    after `post_steps` such passes. Steps of the schedule play no part.

    Source: LLaDA2.1, published code. Engines differ in their thresholds: 0.5 and 0, 0.7 and 0.5; one takes an
    editing threshold of 0 for none.
    """

    threshold: Fraction
    editing_threshold: Fraction
    post_steps: PositiveInt = 16  # type: ignore[misc]
    edits: ClassVar[bool] = True
    scheduled: ClassVar[bool] = False

    def __call__(self, step: Step) -> Decision:
        commit_BK = (step.confidence_BK > self.threshold) | top_k(step.confidence_BK, 1)
        return Decision(commit_BK, edit_BK=self._edits(step))

    def marks(self, step: Step) -> Mapping[str, Tensor]:
        """The tokens that are overwritten."""
        return {"edited": self._edits(step)}

    def _edits(self, step: Step) -> Tensor:
        assert step.review_BK is not None
        return step.review_BK > self.editing_threshold
