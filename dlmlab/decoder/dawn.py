"""DAWN: a graph of who attends to whom relaxes the threshold behind anchors, and keeps apart what is coupled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dlmlab.decoder.topk import top_k
from dlmlab.rule import Decision, Rule, Step
from dlmlab.settings import Fraction, PositiveInt


@dataclass(frozen=True)
class DAWN(Rule):
    """Commit what is sure, what hangs on a sure committed token, and of the less sure what doesn't hang together.

    Position i hangs on position j where i's attention to j is at least tau_edge, and j is no sink: what is on the
    canvas gives a sink more than tau_sink on average. In the active block are committed: positions with c ≥ threshold;
    those with c ≥ tau_induced that hang on an anchor, which is a committed position whose likeliest token has c ≥
    threshold now; then, surest first, those with c ≥ tau_low that are joined, in either direction, to none that is
    committed before them in this step. If there are none, the surest.

    Source: DAWN, arXiv:2602.06953, sections 4.1 to 4.3 and algorithm 1. The graph is the canvas's: its prompt has no
    anchors here, and counts for no sink. The published code keeps less sure positions from joining only those that are
    sure and induced at once, and that hang on them; algorithm 1, and this rule, from all that are either, in both
    directions. When no candidate is left, its greedy loop commits the row's first position over and over.

    Attributes:
        threshold: The least confidence of a sure position, and of an anchor.
        tau_induced: The least confidence of a position that hangs on an anchor.
        tau_low: The least confidence of the others.
        tau_edge: The least attention by which one position hangs on another.
        tau_sink: The mean attention above which a position is a sink. A position's attention is shared among its row,
            so that this has to be larger on a short one: at its published value most positions of 100 are sinks.
        layers: How many of the network's last layers have their attention averaged; the published code takes 4 of 32.
    """

    threshold: Fraction
    tau_induced: Fraction
    tau_low: Fraction
    tau_edge: Fraction
    tau_sink: Fraction
    layers: PositiveInt
    sees_canvas: ClassVar[bool] = True
    measures: ClassVar[bool] = True
    everywhere: ClassVar[bool] = True
    scheduled: ClassVar[bool] = False
    alike: ClassVar[tuple[str, ...]] = ("layers",)

    @property
    def attends(self) -> int:  # type: ignore[override]
        return self.layers

    def measure(self, probability_NV: Tensor) -> Tensor:
        """Return the largest probability, which says of a committed position whether it is an anchor."""
        return probability_NV.amax(-1)

    def __call__(self, step: Step) -> Decision:
        assert step.active_BK is not None
        assert step.measure_BK is not None
        mask_BK = step.eligible_BK & step.active_BK
        confidence_BK = step.confidence_BK.masked_fill(~mask_BK, -torch.inf)
        anchor_BK = ~step.eligible_BK & (step.measure_BK >= self.threshold)
        hangs_BKK = self.graph(step)

        sure_BK = confidence_BK >= self.threshold
        induced_BK = (hangs_BKK & anchor_BK[:, None]).any(-1) & (confidence_BK >= self.tau_induced)
        taken_BK = sure_BK | induced_BK
        joined_BKK = hangs_BKK | hangs_BKK.mT
        left_BK = (confidence_BK >= self.tau_low) & ~taken_BK & ~(joined_BKK & taken_BK[:, None]).any(-1)
        taken_BK = taken_BK | independent(joined_BKK, confidence_BK.masked_fill(~left_BK, -torch.inf))
        return Decision(torch.where(taken_BK.any(-1, keepdim=True), taken_BK, top_k(confidence_BK, 1)))

    def graph(self, step: Step) -> Tensor:
        """Return whether each position (second axis) hangs on each other one (last axis), (B, K, K)."""
        attention_BKK = step.attention_BKK
        assert attention_BKK is not None
        edge, sink = (tau[..., None] if isinstance(tau, Tensor) else tau for tau in (self.tau_edge, self.tau_sink))
        sink_B1K = attention_BKK.mean(1, keepdim=True) > sink
        itself_KK = torch.eye(attention_BKK.shape[-1], dtype=torch.bool, device=attention_BKK.device)
        return (attention_BKK >= edge) & ~sink_B1K & ~itself_KK


def independent(joined_BKK: Tensor, score_BK: Tensor) -> Tensor:
    """Return positions of which no two are joined, taken greedily from the highest score on; of equals the left one.

    Args:
        joined_BKK: Which positions are joined.
        score_BK: -inf where a position isn't to be had.
    """
    taken_BK = torch.zeros_like(score_BK, dtype=torch.bool)
    for _ in range(score_BK.shape[-1]):  # at most: to ask whether any is left would wait for the device
        next_BK = top_k(score_BK, 1)
        taken_BK = taken_BK | next_BK
        gone_BK = next_BK | (joined_BKK & next_BK[:, None]).any(-1)
        score_BK = score_BK.masked_fill(gone_BK, -torch.inf)
    return taken_BK
