"""KLASS: commit what is confident and has stopped changing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dlmlab.decoder.topk import top_k
from dlmlab.rule import Decision, Rule, Step
from dlmlab.settings import Fraction, NonNegativeFloat, PositiveInt


@dataclass(frozen=True)
class KLASS(Rule):
    """Commit the positions with c > tau whose KL(p_t ‖ p_{t−1}) was below epsilon in each of the last `history` steps.

    When there are none, the scheduled top-k. A row's first step has no step before it, and counts as a change. A
    position's history goes back to the steps of earlier blocks; in a block's first `history` − 1 steps none is ready.

    Source: KLASS, arXiv:2511.05664 (KL-adaptive stability sampling), and its code. Where the schedule runs out that
    code goes on to the next block and leaves masks; here a position is committed at each further step. The state holds
    a distribution for each position of the canvas, (K, V) for a row, and logits are computed at all its masks.
    """

    tau: Fraction
    epsilon: NonNegativeFloat
    history: PositiveInt
    needs_logits: ClassVar[bool] = True
    sees_canvas: ClassVar[bool] = True

    def initial_state(self, block_length: int, vocab_size: int, like: Tensor) -> tuple[Tensor, ...]:
        """Return the log-probabilities of the step before, (K, V), for how many steps they have hardly changed, (K,),
        and the block's steps, (1,).

        Args:
            block_length: K, the positions of the canvas.
            vocab_size: V, the width of the logits.
            like: A tensor with the device, and with the dtype of logits.
        """
        never_KV = like.new_full((block_length, vocab_size), -torch.inf)
        none = torch.zeros(1, dtype=torch.int64, device=like.device)
        return never_KV, none.expand(block_length), none

    def __call__(self, step: Step) -> Decision:
        assert step.logits_BKV is not None
        assert step.active_BK is not None
        before_BKV, calm_BK, steps_B1 = step.state
        now_BKV = step.logits_BKV.log_softmax(-1)
        divergence_BK = (now_BKV.exp() * (now_BKV - before_BKV)).sum(-1)
        calm_BK = torch.where(divergence_BK < self.epsilon, calm_BK + 1, 0)
        begun_B1 = (step.active_BK & ~step.eligible_BK).any(-1, keepdim=True)
        steps_B1 = torch.where(begun_B1, steps_B1 + 1, 1)

        confidence_BK = step.confidence_BK.masked_fill(~step.active_BK, -torch.inf)
        stable_BK = (calm_BK >= self.history) & (steps_B1 >= self.history)
        ready_BK = step.eligible_BK & (confidence_BK > self.tau) & stable_BK
        fallback_BK = ~ready_BK.any(-1, keepdim=True) & top_k(confidence_BK, step.quota_B1)
        return Decision(ready_BK | fallback_BK, state=(now_BKV, calm_BK, steps_B1))
