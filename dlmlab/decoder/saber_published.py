"""Saber as its published code has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from dlmlab.decoder.topk import top_k
from dlmlab.rule import Decision, Rule, Step
from dlmlab.settings import PositiveInt


@dataclass(frozen=True)
class SaberPublished(Rule):
    """Commit what is surer than all that was ever committed was on average, at least n; mask again what fell most.

    As `dlmlab.decoder.saber.Saber`, but: of m positions committed max(⌊n / 2⌋, ⌈m / mu⌉), m − 1 at most, are masked
    again; a token that has just been committed may be among them; what falls is the probability of a position's
    likeliest token, be it the committed one or not; tokens that were masked again stay in the mean. Nothing is masked
    again once the block is full. Steps of the schedule play no part.

    Source: the code of Saber, arXiv:2510.18165 (`generate_with_saber`), where mu is a constant, 8. It loops over blocks
    and masks tokens of earlier ones again; its authors run it with one, and here each block is by itself. Where fewer
    than n masks are left, it overwrites committed tokens as ties happen to fall; here they stay.
    """

    n: PositiveInt
    mu: PositiveInt
    revokes: ClassVar[bool] = True
    measures: ClassVar[bool] = True
    scheduled: ClassVar[bool] = False

    @staticmethod
    def measure(probability_NV: Tensor) -> Tensor:
        return probability_NV.amax(-1)

    def initial_state(self, block_length: int, vocab_size: int, like: Tensor) -> tuple[Tensor, ...]:
        """Return the likeliest tokens' probabilities as of the last step, and as of the last commit, each (K,).

        At first the former are 0, and the latter -inf, which stands for no commit.

        Args:
            block_length: K, the positions of the active block.
            vocab_size: V, the width of the logits; no part of this state.
            like: A tensor with the device, and with the dtype of confidences.
        """
        return like.new_zeros(block_length), like.new_full((block_length,), -float("inf"))

    def __call__(self, step: Step) -> Decision:
        assert step.measure_BK is not None
        before_BK, then_BK = step.state
        ever_BK = then_BK > -float("inf")
        mean_B1 = then_BK.where(ever_BK, 0.0).sum(-1, keepdim=True) / ever_BK.sum(-1, keepdim=True)
        surer_BK = step.eligible_BK & (step.confidence_BK > mean_B1)  # none at first: the mean of nothing is NaN
        chosen_BK = surer_BK | top_k(step.confidence_BK, self.n)

        count_B1 = chosen_BK.sum(-1, keepdim=True)
        again_B1 = ((count_B1 + self.mu - 1) // self.mu).maximum(count_B1 * 0 + self.n // 2).minimum(count_B1 - 1)
        unfinished_B1 = (step.eligible_BK & ~chosen_BK).any(-1, keepdim=True)
        drop_BK = (before_BK - step.measure_BK).masked_fill(step.eligible_BK & ~chosen_BK, -float("inf"))
        removed_BK = top_k(drop_BK, again_B1 * unfinished_B1)

        state = (step.measure_BK, step.confidence_BK.where(chosen_BK, then_BK))
        return Decision(chosen_BK & ~removed_BK, removed_BK & ~step.eligible_BK, state)
