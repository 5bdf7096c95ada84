"""Saber: faster as it grows surer, and able to take back what new context speaks against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dlmlab.decoder.topk import top_k
from dlmlab.rule import Decision, Rule, Step
from dlmlab.settings import PositiveInt


@dataclass(frozen=True)
class Saber(Rule):
    """Commit what is surer than the committed tokens were on average; mask again those whose confidence fell most.

    Committed are the positions with c above the mean confidence of the committed tokens, each as of its commit, and at
    any rate the n most confident. Then of the tokens committed at earlier steps max(1, ⌊committed now / mu⌋), those
    with the largest drop in probability since the last step, are masked again: always fewer than were committed.

    It ends: a step that commits d positions masks at most d − 1 again, so that each step leaves fewer masks. Nothing is
    masked again once the block is full. Steps of the schedule play no part.

    Source: Saber, arXiv:2510.18165; n from the published code, as is mu, which is a constant there. That code differs
    (`dlmlab.decoder.saber_published`): it masks max(⌊n / 2⌋, ⌈committed now / 8⌉) again, takes the probability of a
    position's likeliest token for that of the committed one, lets tokens committed now be masked again at once, keeps
    masked tokens in the mean, and masks tokens of earlier blocks again; here each block is by itself.
    """

    n: PositiveInt
    mu: PositiveInt
    revokes: ClassVar[bool] = True
    scheduled: ClassVar[bool] = False

    def initial_state(self, block_length: int, vocab_size: int, like: Tensor) -> tuple[Tensor, ...]:
        """Return the committed tokens' probabilities as of the last step and as of their commit, each (K,).

        Args:
            block_length: K, the positions of the active block.
            vocab_size: V, the width of the logits; no part of this state.
            like: A tensor with the device, and with the dtype of confidences.
        """
        return like.new_zeros(block_length), like.new_zeros(block_length)

    def __call__(self, step: Step) -> Decision:
        assert step.kept_BK is not None
        before_BK, then_BK = step.state
        committed_BK = ~step.eligible_BK
        mean_B1 = then_BK.where(committed_BK, 0.0).sum(-1, keepdim=True) / committed_BK.sum(-1, keepdim=True)
        surer_BK = step.eligible_BK & (step.confidence_BK > mean_B1)  # none at first: the mean of nothing is NaN
        commit_BK = surer_BK | top_k(step.confidence_BK, self.n)

        count_B1 = commit_BK.sum(-1, keepdim=True)
        again_B1 = torch.minimum((count_B1 // self.mu).clamp(min=1), count_B1 - 1)
        unfinished_B1 = (step.eligible_BK & ~commit_BK).any(-1, keepdim=True)
        drop_BK = (before_BK - step.kept_BK).masked_fill(step.eligible_BK, -torch.inf)
        revoke_BK = top_k(drop_BK, again_B1 * unfinished_B1)

        now_BK = step.confidence_BK.where(commit_BK, step.kept_BK)
        return Decision(commit_BK, revoke_BK, state=(now_BK, step.confidence_BK.where(commit_BK, then_BK)))
