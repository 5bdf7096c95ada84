"""SlowFast: explore how far the model is sure, then fill in so far, and see no further meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dlmlab.decoder.topk import top_k
from dlmlab.rule import Decision, Rule, Step
from dlmlab.settings import Fraction, NonNegativeFloat, PositiveInt


@dataclass(frozen=True)
class SlowFast(Rule):
    """Fill a block in cycles: a slow phase of k_exploration_steps finds out where the cycle ends, a fast one fills it.

    Slow: after each pass, the cycle would end behind the last position with c ≥ cycle_len_confidence_threshold, one
    position on where none is. It is settled once the last `window` ends have a standard deviation below the threshold;
    if none do, it is their mean. Fast: passes but the first see nothing behind the cycle's end. In both phases all
    with c ≥ high_confidence_threshold are committed where there are two or more, else the surest. Steps play no part.

    Source: SlowFast, arXiv:2506.10848, and its code, whose names and defaults these are, without its feature cache.
    That code goes on exploring a full block, with passes that commit nothing; here the next block begins. With a cache
    a pass computes what the cache says.
    """

    k_exploration_steps: PositiveInt
    cycle_len_confidence_threshold: Fraction
    high_confidence_threshold: Fraction
    cycle_length_stability_window: PositiveInt
    cycle_length_stability_std_dev_threshold: NonNegativeFloat
    scheduled: ClassVar[bool] = False
    cuts: ClassVar[bool] = True
    alike: ClassVar[tuple[str, ...]] = ("cycle_length_stability_window",)

    def initial_state(self, block_length: int, vocab_size: int, like: Tensor) -> tuple[Tensor, ...]:
        """Return where the cycle begins and ends, whether that is settled, its slow passes, the last ends (NaN: none).

        The last ends are (cycle_length_stability_window,), the others (1,).

        Args:
            block_length: K, the positions of the active block, where the first cycle ends.
            vocab_size: V, the width of the logits; no part of this state.
            like: A tensor on the device that the state is for.
        """
        zero = torch.zeros(1, dtype=torch.int64, device=like.device)
        last = torch.full((self.cycle_length_stability_window,), torch.nan, dtype=torch.float64, device=like.device)
        return zero, zero + block_length, zero, zero, last

    def __call__(self, step: Step) -> Decision:
        begin_B1, end_B1, settled_B1, slow_B1, last_BW = step.state
        width = step.token_BK.shape[-1]
        position_K = torch.arange(width, device=step.token_BK.device)
        slows_B1 = slow_B1 < self.k_exploration_steps

        sure_BK = (step.confidence_BK >= self.cycle_len_confidence_threshold) & (position_K >= begin_B1)
        far_B1 = (sure_BK * (position_K + 1)).amax(-1, keepdim=True).maximum(begin_B1 + 1).clamp(max=width)
        asks_B1 = slows_B1 & (settled_B1 == 0)
        last_BW = torch.where(asks_B1, torch.cat((last_BW[:, 1:], far_B1.to(last_BW.dtype)), -1), last_BW)
        mean_B1 = last_BW.nanmean(-1, keepdim=True)
        spread_B1 = (last_BW - mean_B1).square().mean(-1, keepdim=True).sqrt()  # NaN while there are too few
        calm_B1 = spread_B1 < self.cycle_length_stability_std_dev_threshold
        ends_B1 = torch.where(calm_B1, far_B1, mean_B1.nan_to_num().floor().long())
        end_B1 = torch.where(asks_B1, ends_B1, end_B1)
        settled_B1 = torch.where(asks_B1 & calm_B1, 1, settled_B1)

        scope_BK = step.eligible_BK & (position_K >= begin_B1) & (slows_B1 | (position_K < end_B1))
        high_BK = scope_BK & (step.confidence_BK >= self.high_confidence_threshold)
        surest_BK = top_k(step.confidence_BK.masked_fill(~scope_BK, -torch.inf), 1)
        commit_BK = torch.where(high_BK.sum(-1, keepdim=True) > 1, high_BK, surest_BK)

        slow_B1 = slow_B1 + slows_B1
        left_BK = step.eligible_BK & ~commit_BK & (position_K >= begin_B1) & (position_K < end_B1)
        over_B1 = (slow_B1 >= self.k_exploration_steps) & ~left_BK.any(-1, keepdim=True)
        seen_B1 = torch.where(slows_B1 | over_B1, width, end_B1)
        state = (
            torch.where(over_B1, end_B1, begin_B1),
            end_B1,
            settled_B1.masked_fill(over_B1, 0),
            slow_B1.masked_fill(over_B1, 0),
            last_BW.masked_fill(over_B1, torch.nan),
        )
        return Decision(commit_BK, state=state, seen_B1=seen_B1)
