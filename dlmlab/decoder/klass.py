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

    When there are none, the scheduled top-k. A row's first step has no step before it, and counts as a change.
    Each block begins without a history; in the published code a position's history goes back to earlier blocks.

    Source: KLASS, arXiv:2511.05664 (KL-adaptive stability sampling). The state holds a distribution for each position,
    (K, V) for a row.
    """

    tau: Fraction
    epsilon: NonNegativeFloat
    history: PositiveInt
    needs_logits: ClassVar[bool] = True

    def initial_state(self, block_length: int, vocab_size: int, like: Tensor) -> tuple[Tensor, ...]:
        """The log-probabilities of the step before, and for how many steps they have hardly changed."""
        never_KV = like.new_full((block_length, vocab_size), -torch.inf)
        return never_KV, torch.zeros(block_length, dtype=torch.int64, device=like.device)

    def __call__(self, step: Step) -> Decision:
        assert step.logits_BKV is not None
        before_BKV, calm_BK = step.state
        now_BKV = step.logits_BKV.log_softmax(-1)
        divergence_BK = (now_BKV.exp() * (now_BKV - before_BKV)).sum(-1)
        calm_BK = torch.where(divergence_BK < self.epsilon, calm_BK + 1, 0)
        ready_BK = step.eligible_BK & (step.confidence_BK > self.tau) & (calm_BK >= self.history)
        fallback_BK = ~ready_BK.any(-1, keepdim=True) & top_k(step.confidence_BK, step.quota_B1)
        return Decision(ready_BK | fallback_BK, state=(now_BKV, calm_BK))
