"""Does our score agree with a published one? Its own uncertainty is rarely published, so that ours decides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ROUNDING = 0.0005
"""Half of the last digit that tables print, as a fraction."""


def judge(published: float, ours: Mapping[str, Any], tolerance: float) -> str:
    """Return whether a score agrees with a published one.

    Args:
        published: The published score, as a fraction.
        ours: `ci_low` and `ci_high`, the ends of our 95 % interval, and `n`, the items that it is of.
        tolerance: Half of the widest interval that shows agreement, as a fraction.

    Returns:
        `differs` where the published score lies outside of our interval; `agrees` where it lies inside and the interval
        is narrow enough to say so; else `cannot tell with n items`.
    """
    low, high = float(ours["ci_low"]), float(ours["ci_high"])
    if not low - ROUNDING <= published <= high + ROUNDING:
        return "differs"
    return "agrees" if high - low <= 2 * tolerance else f"cannot tell with {ours['n']} items"


def explain(published: float, scorings: Mapping[str, Mapping[str, Any]], tolerance: float) -> str:
    """Return the scorings of the same answers with which a score that differs would not; empty without any.

    Args:
        published: The published score, as a fraction.
        scorings: Our score by each way of scoring, as `judge` takes it.
        tolerance: Half of the widest interval that shows agreement, as a fraction.
    """
    others = [name for name, ours in scorings.items() if judge(published, ours, tolerance) != "differs"]
    return f"; within the interval when scored by {' or '.join(others)}" if others else ""
