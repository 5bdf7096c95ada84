"""WINO: commit widely, and take back at the next pass what a look from beside the canvas speaks against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dlmlab.decoder.topk import top_k
from dlmlab.rule import Decision, Rule, Step
from dlmlab.settings import Fraction

MOST_AT_FIRST = 30
"""What counts as committed by the pass before a block's first one, in the published code."""
SHARE, FEWEST, MOST = 0.7, 5, 20
"""A pass commits at most this share of a block's masks, but may commit `FEWEST`, and never more than `MOST`."""


@dataclass(frozen=True)
class WINO(Rule):
    """Commit what is surer than `threshold`, else the surest; mask again what shadows find unlikely.

    A shadow is a mask token beside the canvas, at the position of a committed token: it sees the canvas but for that
    position, so that its probability of the token is what all the rest says of it. Each pass computes K positions more
    for the shadows. Of m masks at most min(max(⌊0.7 m⌋, 5), 20) are committed, the surest. A pass that commits more
    than one masks again earlier tokens of the block whose shadow's probability is below `threshold_back`, the least
    likely first, and fewer than the pass before committed.

    It ends: since a pass takes back fewer than the one before has committed, n passes leave at least n positions of a
    block filled. Steps of the schedule play no part.

    Source: WINO, arXiv:2507.18578, algorithm 1. The bounds on what is committed and taken back are the published
    code's, as is that shadows see each other. On a GPU a pass with shadows is the plain one.
    """

    threshold: Fraction
    threshold_back: Fraction
    revokes: ClassVar[bool] = True
    shadows: ClassVar[bool] = True
    scheduled: ClassVar[bool] = False

    def initial_state(self, block_length: int, vocab_size: int, like: Tensor) -> tuple[Tensor, ...]:
        """Return how many positions the pass before has committed, (1,).

        Args:
            block_length: K, the positions of the active block; no part of this state.
            vocab_size: V, the width of the logits; no part of this state.
            like: A tensor on the device that the state is for.
        """
        return (torch.full((1,), MOST_AT_FIRST, device=like.device),)

    def __call__(self, step: Step) -> Decision:
        assert step.kept_BK is not None
        [before_B1] = step.state
        masks_B1 = step.eligible_BK.sum(-1, keepdim=True)
        most_B1 = (masks_B1.double() * SHARE).long().clamp(FEWEST, MOST)
        surer_BK = step.eligible_BK & (step.confidence_BK > self.threshold)
        commit_BK = surer_BK & top_k(step.confidence_BK, most_B1) | top_k(step.confidence_BK, 1)
        count_B1 = commit_BK.sum(-1, keepdim=True)

        doubted_BK = (step.kept_BK < self.threshold_back) & (step.kept_BK > -torch.inf)
        again_B1 = (before_B1 - 1) * (count_B1 > 1)
        revoke_BK = top_k((-step.kept_BK).masked_fill(~doubted_BK, -torch.inf), again_B1)
        return Decision(commit_BK, revoke_BK, state=(count_B1,))
