"""How far can a model's confidences be trusted? Reliability by bins, and the expected calibration error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

BINS = 10
"""Bins of equal width from 0 to 1, as in arXiv:1706.04599."""


class Bin(NamedTuple):
    """Predictions whose confidences are close to each other: their number, mean confidence and share that is right."""

    n: int
    confidence: float
    right: float


class Reliability(NamedTuple):
    """What predictions' confidences were worth.

    Attributes:
        n: Predictions.
        confidence: Their mean confidence; NaN without any, as the next two.
        right: The share that is right.
        error: The expected calibration error: |confidence − right| of each bin, weighted by its predictions
            (arXiv:1706.04599, equation 3).
        bins: The bins that hold any, from the lowest confidence.
    """

    n: int
    confidence: float
    right: float
    error: float
    bins: list[Bin]


def reliability(confidences: Sequence[float], right: Sequence[bool]) -> Reliability:
    """Compare predictions' confidences with whether they are right.

    Args:
        confidences: The probability of each prediction, from 0 to 1.
        right: Whether each is right, in the same order.
    """
    confidence_N, right_N = np.asarray(confidences, dtype=float), np.asarray(right, dtype=float)
    if len(confidence_N) == 0:
        return Reliability(0, np.nan, np.nan, np.nan, [])
    bin_N = np.minimum((confidence_N * BINS).astype(int), BINS - 1)
    bins = [
        Bin(int(own.sum()), float(confidence_N[own].mean()), float(right_N[own].mean()))
        for own in (bin_N == number for number in range(BINS))
        if own.any()
    ]
    error = sum(each.n * abs(each.confidence - each.right) for each in bins) / len(confidence_N)
    return Reliability(len(confidence_N), float(confidence_N.mean()), float(right_N.mean()), error, bins)
