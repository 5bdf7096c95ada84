"""Compute accuracy under parallelism: quality and speed of a decoder in one number that no hardware changes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise

ALPHA = 3.0
"""Decay rate of the weight of accuracy below the best."""
TOLERANCE = 5.0
"""Largest loss against the least parallel pair, in points of accuracy; a pair that loses more does not count."""


def aup(pairs: Iterable[tuple[float, float]], best: float) -> float:
    """Compute the weighted area under the curve of accuracy against parallelism (d3LLM, arXiv:2601.07568).

    With the pairs in the order of ρ, those left out whose y is below y_1 - 5, and W(y) = min(exp(-3 (1 - y / y_max)),
    1),

        AUP = ρ_1 y_1 + ½ Σ_{i≥2} (ρ_i - ρ_{i-1}) (y_i W(y_i) + y_{i-1} W(y_{i-1})).

    Of pairs with the same ρ, which the definition has none of, the most accurate counts.

    Args:
        pairs: Pairs (ρ, y): ρ > 0 is the tokens per forward pass and y the accuracy in points of 100.
        best: y_max, the highest accuracy that anything reached at the task, above 0.

    Raises:
        ValueError: There is no pair.
    """
    accuracy: dict[float, float] = {}
    for rho, y in pairs:
        accuracy[rho] = max(y, accuracy.get(rho, y))
    if not accuracy:
        raise ValueError("no pair of parallelism and accuracy")
    curve = sorted(accuracy.items())
    first_rho, first_y = curve[0]
    kept = [(rho, y * weight(y, best)) for rho, y in curve if y >= first_y - TOLERANCE]
    slices = [(rho - before) * (y + earlier) / 2 for (before, earlier), (rho, y) in pairwise(kept)]
    return first_rho * first_y + sum(slices)


def weight(y: float, best: float) -> float:
    """Return W(y): 1 at the best accuracy, less below.

    Args:
        y: An accuracy, in points of 100.
        best: y_max, likewise, above 0.
    """
    return min(math.exp(-ALPHA * (1 - y / best)), 1.0)
