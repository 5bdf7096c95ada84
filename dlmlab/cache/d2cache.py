"""d2Cache: the masks that are next, and the positions that all others draw on."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from dlmlab.policy import ATTENTION, AttentionProbe, Frozen, Plan, Policy, View
from dlmlab.settings import Fraction, Limits, NonNegativeInt, PositiveInt, one_of


@dataclass
class RollOut(AttentionProbe):
    """Follows attention through the layers (arXiv:2005.00928), and remembers how sure the model was of each mask.

    Attributes:
        confidence_L: The largest probability at each position, in float64; 0 where it is unknown.
        scored: Positions whose confidences this pass notes, bool (L,); None for none.
        total_LL: How much of each position's output comes from each position's input; None before the first layer.
    """

    confidence_L: np.ndarray
    scored: np.ndarray | None
    total_LL: Tensor | None = None

    def attend(self, layer: int, position_T: Tensor, attention_TL: Tensor) -> None:
        """Multiply by (A + I) / row sum, which is the identity where nothing is computed.

        Args:
            layer: The layer, counted from 0, at which a pass begins anew.
            position_T: The row's positions that are computed.
            attention_TL: A, their attention to all positions, the mean of the heads.
        """
        if layer == 0:
            size = attention_TL.shape[1]
            self.total_LL = torch.eye(size, dtype=attention_TL.dtype, device=attention_TL.device)
        assert self.total_LL is not None
        mixed_TL = attention_TL @ self.total_LL + self.total_LL[position_T]
        self.total_LL[position_T] = mixed_TL / (attention_TL.sum(-1, keepdim=True) + 1)

    def score(self, confidence_N: Tensor) -> None:
        """See `AttentionProbe`."""
        assert self.scored is not None
        self.confidence_L[self.scored] = confidence_N.cpu().numpy()

    @property
    def drawn_on(self) -> np.ndarray:
        """(L,): how much all positions together draw on each."""
        assert self.total_LL is not None
        return self.total_LL.sum(0).double().cpu().numpy()


@dataclass(frozen=True)
class D2Cache(Policy):
    """Compute everything once, then three kinds of positions.

    These are the current_k masked ones of the highest confidence × certainty density, among those from the block's
    start to the block edge that has as many masks before it, the active block's first; what the last pass committed;
    and of the rest, those that attention roll-out draws on most, as many as make up rollout_p of it, one at least. Gaps
    of up to inflate_w between them are filled. The density of a position is the share of committed tokens around it,
    weighted by a Gaussian.

    Source: d2Cache, arXiv:2509.23094. Its published code also leaves masks that it doesn't compute eligible, at the
    confidence of a flat distribution; puts no masks first in the pass that follows a full block; and in a batch
    computes more positions of some rows, so that all have as many. Here none of this is so.

    Attributes:
        current_k: How many masked positions a pass computes for their score, at most.
        rollout_p: The share of the roll-out that the positions it draws on most may make up.
        sigma: Standard deviation of the Gaussian, in positions.
        inflate_w: The largest distance between two chosen neighbours that is filled, in positions; 0 and 1 fill
            nothing.
        variant: With `paper` the confidence is that of the last pass over a position, and a block is as long as it is
            set. `published` follows two slips of the published code. Its update of the confidences has no effect, so
            that those of the first pass are used for good. And its check of whether a block has masks left narrows the
            block in place (`check_can_generate`), so that block edges lie at multiples of what was left to fill before
            the last pass.
    """

    current_k: PositiveInt = 32
    rollout_p: Fraction = 0.1
    sigma: Annotated[float, Limits(1e-3)] = 10.0
    inflate_w: NonNegativeInt = 0
    variant: Annotated[str, one_of(("paper", "published"))] = "published"
    needs = ATTENTION
    frozen = Frozen.COMMITS

    def plan(self, view: View) -> Plan:
        if view.last is None:
            return Plan(view.everything, hook=RollOut(np.zeros(len(view.committed_L)), scored=view.masked))
        seen: RollOut = view.last.hook
        chosen_L = self._candidates(view, seen.confidence_L) | (view.committed_L == view.forwards - 1)
        chosen_L |= nucleus(np.where(chosen_L, 0.0, seen.drawn_on), self.rollout_p)
        computed_L = filled(chosen_L, self.inflate_w)
        scored_L = computed_L & view.masked if self.variant == "paper" else None
        return Plan(computed_L, hook=RollOut(seen.confidence_L.copy(), scored_L))

    def _candidates(self, view: View, confidence_L: np.ndarray) -> np.ndarray:
        masked = np.flatnonzero(view.masked & view.between(view.start, len(view.masked)))
        width = view.end - view.start if self.variant == "paper" else left_before(view)
        kth = masked[: self.current_k][-1] - view.prompt
        masked = masked[masked < view.prompt + (kth // width + 1) * width]
        density_G = certainty_density(~view.masked[view.prompt :], self.sigma)
        score = confidence_L[masked] * density_G[masked - view.prompt]
        score += (masked < view.end) * score.max()
        chosen_L = np.zeros_like(view.masked)
        chosen_L[masked[np.argsort(-score, kind="stable")[: self.current_k]]] = True
        return chosen_L


def left_before(view: View) -> int:
    """Return how many masks the block that the last pass was for had before it."""
    begin, end = (view.start, view.end) if view.step else (view.prompt, view.start)
    return int(np.count_nonzero(view.between(begin, end) & (view.committed_L >= view.forwards - 1)))


def certainty_density(certain_G: np.ndarray, sigma: float) -> np.ndarray:
    """Return the share of certain positions around each position of the canvas, weighted by a Gaussian.

    All before the canvas is certain; what follows it is what its last position is.

    Args:
        certain_G: bool: whether each of the canvas's G positions holds a token.
        sigma: Standard deviation of the Gaussian, in positions; above 0.

    Returns:
        A fraction for each position, (G,), in float64.
    """
    size = len(certain_G)
    around = np.concatenate([np.ones(size), certain_G, np.full(size, certain_G[-1])])
    weights = np.exp(-(np.arange(-3 * size, 3 * size) ** 2) / (2 * sigma**2))
    distance = np.arange(3 * size) - np.arange(size, 2 * size)[:, None]
    density_G: np.ndarray = weights[distance + 3 * size] @ around / weights.sum()
    return density_G


def nucleus(score_L: np.ndarray, share: float) -> np.ndarray:
    """Return the largest scores that together make up at most a share of all, and the largest at any rate.

    Args:
        score_L: A number for each position, at least 0; a position of 0 is never chosen.
        share: The share, as a fraction of the sum of all scores.

    Returns:
        The positions of these scores, bool (L,).
    """
    order = np.argsort(-score_L, kind="stable")
    within = np.cumsum(score_L[order] / (score_L.sum() + 1e-9)) <= share
    within[0] = True
    chosen_L = np.zeros(len(score_L), dtype=bool)
    chosen_L[order[within]] = True
    return chosen_L & (score_L > 0)


def filled(chosen_L: np.ndarray, width: int) -> np.ndarray:
    """Return the chosen positions, and those between two that are at most `width` apart.

    Args:
        chosen_L: bool: the positions that are chosen.
        width: Largest distance between two chosen neighbours that is filled, in positions; 0 and 1 fill nothing.

    Returns:
        The positions, bool (L,), in an array of their own.
    """
    chosen = np.flatnonzero(chosen_L)
    filled_L = chosen_L.copy()
    for before, after in pairwise(chosen):
        if after - before <= width:
            filled_L[before:after] = True
    return filled_L
