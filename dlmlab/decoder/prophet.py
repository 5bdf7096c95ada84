"""Prophet: when the answer will not change any more, fill in all that is left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dlmlab.decoder.around import Around, within
from dlmlab.decoder.baseline import Baseline
from dlmlab.errors import UserError
from dlmlab.rule import Decision, Rule, Step
from dlmlab.settings import NonNegativeFloat, NonNegativeInt

WATCHED = 5
"""Positions of the answer that are looked at."""


@dataclass(frozen=True)
class Prophet(Around):
    """Commit every mask of the canvas once the mean gap of the two highest logits, at the answer, is large enough.

    Large enough is `thresholds.early` in the first 33 % of the scheduled steps, `mid` before 67 %, `late` after. The
    gap is looked at in five positions from answer_start on, counted from the canvas's first, committed or not. Before,
    another rule decides: LLaDA's scheduled one, or `rule`.

    Source: Prophet, arXiv:2508.19982, and its code (`generate_earlyexit.py`), which looks behind the words that
    introduce an answer; where that is, is the task's to know.
    """

    answer_start: NonNegativeInt
    thresholds: Mapping[str, NonNegativeFloat]
    rule: Rule | None = None
    sees_canvas: ClassVar[bool] = True
    measures: ClassVar[bool] = True
    everywhere: ClassVar[bool] = True
    scheduled: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if set(self.thresholds) != {"early", "mid", "late"}:
            raise UserError(f"thresholds has {', '.join(self.thresholds)}: give early, mid and late")

    @property
    def inner(self) -> Rule:
        return self.rule or Baseline()

    def measure(self, probability_NV: Tensor) -> Tensor:
        high_N, next_N = probability_NV.topk(2, dim=-1).values.log().unbind(-1)
        gap = (high_N - next_N)[:, None]
        if not self.inner.measures:
            return gap
        return torch.cat((gap, self.inner.measure(probability_NV).view(len(gap), -1)), -1)

    def __call__(self, step: Step) -> Decision:
        assert step.measure_BK is not None
        assert step.active_BK is not None
        position_K = torch.arange(step.active_BK.shape[-1], device=step.active_BK.device)
        answer_BK = (position_K >= self.answer_start) & (position_K < self.answer_start + WATCHED)
        gap_B1 = step.measure_BK[..., 0].where(answer_BK, 0.0).sum(-1, keepdim=True) / answer_BK.sum(-1, keepdim=True)
        exits_B1 = gap_B1 >= self.large_enough(step)

        theirs = step.measure_BK[..., 1:].squeeze(-1) if self.inner.measures else None
        if theirs is not None and not self.inner.everywhere:
            out_BK = ~step.eligible_BK.view(*step.eligible_BK.shape, *[1] * (theirs.ndim - 2))
            theirs = theirs.masked_fill(out_BK, -torch.inf)
        decision = self.inner(within(self.inner, step._replace(measure_BK=theirs), step.active_BK))
        commit_BK = torch.where(exits_B1, step.eligible_BK, decision.commit_BK)
        revoke_BK = None if decision.revoke_BK is None else decision.revoke_BK & ~exits_B1
        return decision._replace(commit_BK=commit_BK, revoke_BK=revoke_BK)

    def large_enough(self, step: Step) -> Tensor:
        """Return the threshold at this point of the schedule, (B, 1)."""
        progress_B1 = step.progress_B1
        assert progress_B1 is not None
        early, mid, late = (self.thresholds[name] for name in ("early", "mid", "late"))
        limit_B1 = torch.full_like(progress_B1, late)
        return limit_B1.masked_fill(progress_B1 < 0.67, mid).masked_fill(progress_B1 < 0.33, early)
