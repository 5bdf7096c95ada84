"""Does who wins depend on how the question is put? Orders of decoders under several conditions, on the same items."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlmlab.measure.stats import CONFIDENCE

RESAMPLES = 2000
ENDS = (0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2)


def resampled_means(score_CDN: NDArray[np.float64], resamples: int, seed: int) -> NDArray[np.float64]:
    """Return means over items, (R, C, D): the items of a resample are the same for all conditions C and decoders D.

    Args:
        score_CDN: The score of each item N by each decoder D under each condition C.
        resamples: R, how many times the items are resampled.
        seed: Fixes the resamples.
    """
    items = score_CDN.shape[-1]
    weight_RN = np.random.default_rng(seed).multinomial(items, np.full(items, 1 / items), size=resamples) / items
    mean_RCD: NDArray[np.float64] = np.einsum("rn,cdn->rcd", weight_RN, score_CDN)
    return mean_RCD


def compare_orders(
    score_CDN: NDArray[np.float64], decoders: Sequence[str], resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Any]:
    """Say whether the order of decoders is the same under every condition, by a paired bootstrap over items.

    Args:
        score_CDN: The score of each item N by each decoder D under each condition C.
        decoders: D names.
        resamples: Of the items.
        seed: Fixes the resamples.

    Returns:
        pairs: for each pair of decoders its difference (first less second) with a 95 % interval under each condition,
        and a verdict: `holds` where all intervals lie on one side of 0, `flips` where two lie on opposite sides, else
        `inconclusive`. flipped: the share of pairs whose differences have opposite signs under two conditions, with
        the interval of the resamples. verdict: `flips` where a pair flips, `holds` where all hold, else `inconclusive`.
    """
    mean_RCD = resampled_means(score_CDN, resamples, seed)
    pairs = list(itertools.combinations(range(len(decoders)), 2))
    rows = []
    for first, second in pairs:
        gap_C = (score_CDN[:, first] - score_CDN[:, second]).mean(-1)
        gap_RC = mean_RCD[:, :, first] - mean_RCD[:, :, second]
        low_C, high_C = np.quantile(gap_RC, ENDS, axis=0)
        rows.append(
            {
                "first": decoders[first],
                "second": decoders[second],
                "differences": gap_C.tolist(),
                "low": low_C.tolist(),
                "high": high_C.tolist(),
                "verdict": _verdict(low_C, high_C),
            }
        )
    share_R = np.array([flipped_share(mean_CD) for mean_CD in mean_RCD])
    low, high = np.quantile(share_R, ENDS)
    verdicts = {row["verdict"] for row in rows}
    overall = "flips" if "flips" in verdicts else "holds" if verdicts == {"holds"} else "inconclusive"
    flipped = {"share": flipped_share(score_CDN.mean(-1)), "ci_low": float(low), "ci_high": float(high)}
    return {"pairs": rows, "flipped": flipped, "verdict": overall}


def flipped_share(mean_CD: NDArray[np.float64]) -> float:
    """Return the share of pairs of decoders that are in one order under a condition and in the other under another."""
    first, second = np.triu_indices(mean_CD.shape[1], 1)
    sign_CP = np.sign(np.round(mean_CD[:, first] - mean_CD[:, second], 12))
    return float(((sign_CP > 0).any(0) & (sign_CP < 0).any(0)).mean())


def _verdict(low_C: NDArray[np.float64], high_C: NDArray[np.float64]) -> str:
    above, below = low_C > 0, high_C < 0
    if above.any() and below.any():
        return "flips"
    return "holds" if above.all() or below.all() else "inconclusive"
