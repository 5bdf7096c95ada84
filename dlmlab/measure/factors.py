"""What a score varies with: a full factorial of settings on the same items, split by factor (arXiv:2604.13413)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlmlab.measure.ranking import ENDS, RESAMPLES
from dlmlab.measure.stats import proportion_interval


def split(
    score: NDArray[np.float64], factors: Sequence[str], resamples: int = RESAMPLES, seed: int = 0
) -> list[dict[str, Any]]:
    """Return, for each factor, how many items it flips and how much of the score's variance it explains.

    Args:
        score: An axis of levels for each factor, in their order, and one of N items last.
        factors: Their names.
        resamples: Of the items, the same for all cells.
        seed: Fixes the resamples.

    Returns:
        A row a factor. flipped: the share of items whose score differs between two of its levels, all else being
        equal, in some cell; with Wilson's interval. explained: its main effect's share of the variance of the cells'
        scores, None where no cell differs; with a bootstrap interval over items.
    """
    items = score.shape[-1]
    weight_RN = np.random.default_rng(seed).multinomial(items, np.full(items, 1 / items), size=resamples) / items
    drawn = np.array([explained(score @ weight_N) for weight_N in weight_RN])
    point = explained(score.mean(-1))
    rows = []
    for axis, name in enumerate(factors):
        changed_N = (np.ptp(score, axis=axis) > 0).reshape(-1, items).any(0)
        low, high = proportion_interval(int(changed_N.sum()), items)
        known = drawn[:, axis][~np.isnan(drawn[:, axis])]
        ends = np.quantile(known, ENDS).tolist() if len(known) else [None, None]
        rows.append(
            {
                "factor": name,
                "levels": score.shape[axis],
                "flipped": float(changed_N.mean()),
                "flipped_low": low,
                "flipped_high": high,
                "explained": None if np.isnan(point[axis]) else float(point[axis]),
                "explained_low": ends[0],
                "explained_high": ends[1],
            }
        )
    return rows


def explained(cell: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return each factor's main effect as a share of the variance of the cells' scores; NaN where all are equal."""
    centred = cell - cell.mean()
    total = float((centred**2).mean())
    others = [tuple(axis for axis in range(cell.ndim) if axis != own) for own in range(cell.ndim)]
    effects = np.array([float((centred.mean(axes) ** 2).mean()) for axes in others])
    return effects / total if total > 1e-15 else np.full(cell.ndim, np.nan)
