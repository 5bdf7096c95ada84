"""DAPD: together go only positions that hardly attend to each other, those on which most depends first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dlmlab.decoder.dawn import independent
from dlmlab.rule import Decision, Rule, Step
from dlmlab.settings import Fraction

LATE = 0.5
"""The share of the canvas from which on `late` counts."""
LEAST_DEPENDENCE = 1e-8
"""What a largest dependence counts as at least, as in the published code."""


@dataclass(frozen=True)
class DAPD(Rule):
    """Commit an independent set of a graph over the active block's masks, made by attention.

    Two masks depend on each other by the mean of the attention that each gives to the other; a mask is joined to
    another one where that is more than τ of its own largest dependence. Taken are masks, greedily from the highest
    product of c and the sum of dependences on, that are joined to none which is taken. τ grows from `tau_min` to
    `tau_max` with the share of the canvas that is filled.

    Source: DAPD, arXiv:2603.12996, sections 3 and 4, and its code: `late` without `certain` is its `dapd_staged`, the
    other way round its `dapd_direct`. Whether a mask is joined to a taken one is asked of the one that would be taken,
    as the code does, although dependences relative to one's own largest are not the same in both directions. On a GPU a
    pass that shows its attention is the plain one.

    Attributes:
        tau_min: The least of τ, on an empty canvas.
        tau_max: The largest.
        layer_share: How many of the network's layers, the last ones, have their attention averaged, as a share.
        late: The confidence from which on a mask is taken besides, once half of the canvas is filled; None takes none.
        certain: The confidence from which on a mask is taken before all others, which it keeps from nothing; None takes
            none. The code asks for 1.0, which in bfloat16 is all above 0.998.
    """

    tau_min: Fraction
    tau_max: Fraction
    layer_share: Fraction
    late: Fraction | None = None
    certain: Fraction | None = None
    sees_canvas: ClassVar[bool] = True
    scheduled: ClassVar[bool] = False
    alike: ClassVar[tuple[str, ...]] = ("layer_share",)

    @property
    def attends(self) -> float:  # type: ignore[override]
        return self.layer_share

    def __call__(self, step: Step) -> Decision:
        assert step.active_BK is not None
        mask_BK = step.eligible_BK & step.active_BK
        confidence_BK = step.confidence_BK.masked_fill(~mask_BK, -torch.inf)
        filled_B1 = (~step.eligible_BK).double().mean(-1, keepdim=True)
        depends_BKK = self.dependences(step, mask_BK)
        largest_BK1 = depends_BKK.amax(-1, keepdim=True).clamp(min=LEAST_DEPENDENCE)
        tau_B1 = (self.tau_min + (self.tau_max - self.tau_min) * filled_B1).to(depends_BKK.dtype)

        taken_BK = torch.zeros_like(mask_BK)
        if self.certain is not None:
            taken_BK = confidence_BK >= self.certain
        score_BK = (depends_BKK.sum(-1) * confidence_BK).masked_fill(~mask_BK | taken_BK, -torch.inf)
        taken_BK = taken_BK | independent(depends_BKK / largest_BK1 > tau_B1[..., None], score_BK)
        if self.late is not None:
            taken_BK = taken_BK | (filled_B1 >= LATE) & (confidence_BK >= self.late)
        return Decision(taken_BK)

    def dependences(self, step: Step, mask_BK: Tensor) -> Tensor:
        """Return how much masks depend on each other, (B, K, K); zero for one and itself, and where there is no mask.

        Args:
            step: The step.
            mask_BK: The active block's masks.
        """
        attention_BKK = step.attention_BKK
        assert attention_BKK is not None
        itself_KK = torch.eye(attention_BKK.shape[-1], dtype=torch.bool, device=attention_BKK.device)
        pair_BKK = mask_BK[:, None] & mask_BK[..., None] & ~itself_KK
        return ((attention_BKK + attention_BKK.mT) / 2).masked_fill(~pair_BKK, 0.0)
