"""Fast-dLLM's threshold as its Dream code has it: what is confident, but never ahead of the schedule."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dlmlab.decoder.topk import top_k
from dlmlab.rule import Decision, Rule, Step
from dlmlab.settings import Fraction


@dataclass(frozen=True)
class ScheduledThreshold(Rule):
    """Of as many most confident positions as the schedule has come to by now, commit those of at least `threshold`.

    The most confident position is committed at any rate. What a step leaves out, later ones may take.

    Source: Fast-dLLM, arXiv:2505.22618, published code for Dream (`confidence_threshold`).
    """

    threshold: Fraction

    def initial_state(self, block_length: int, vocab_size: int, like: Tensor) -> tuple[Tensor, ...]:
        """Return how many positions the block is behind its schedule, (1,): none where it begins.

        Args:
            block_length: K, the positions of the active block; no part of this state.
            vocab_size: V, the width of the logits; no part of this state.
            like: A tensor with the device, and with the dtype of confidences.
        """
        return (like.new_zeros(1),)

    def __call__(self, step: Step) -> Decision:
        [behind_B1] = step.state
        allowed_B1 = step.quota_B1 + behind_B1
        chosen_BK = top_k(step.confidence_BK, allowed_B1) & (step.confidence_BK >= self.threshold)
        commit_BK = chosen_BK | top_k(step.confidence_BK, 1)
        return Decision(commit_BK, state=(allowed_B1 - commit_BK.sum(-1, keepdim=True),))
