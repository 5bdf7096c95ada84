"""How figures read, the same in every table: scores and differences in points of 100, where + is a gain.

Programs read results.json, which has fractions of 1 under keys that stay; `named` says what people call these.
"""

from __future__ import annotations

from collections.abc import Mapping

from dlmlab.measure.timing import Spread
from dlmlab.tracking import Cell

APART = 0.05
"""By how much, as a share, a ratio of paired runs may differ unsaid from that of the medians beside it."""
NAMES = {"n": "items", "forwards per item": "forward passes an item"}
"""What people call a figure, by its key in results.json."""


def points(value: float | None, sign: str = "") -> str:
    """Return a fraction in points of 100, empty for None.

    Args:
        value: A fraction of 1.
        sign: `+` for differences, where zero has one too.
    """
    return "" if value is None else f"{100 * value:{sign}.1f}"


def interval(low: float | None, high: float | None, sign: str = "") -> str:
    """Return an interval of fractions in points of 100, empty where there is none.

    Args:
        low: The lower end, a fraction of 1; None where there is no interval.
        high: The upper end, likewise.
        sign: `+` for differences, where zero has one too.
    """
    return "" if low is None or high is None else f"{points(low, sign)} … {points(high, sign)}"


def times(ratio: Spread) -> str:
    """Return a ratio with its range over the rounds, which a single round has not."""
    spread = "" if ratio.low == ratio.high else f" ({times_range(ratio)})"
    return f"{ratio.median:.2f}×{spread}"


def times_range(ratio: Spread) -> str:
    """Return a ratio's range over the rounds."""
    return f"{ratio.low:.2f}–{ratio.high:.2f}×"


def paired_times(paired: float, medians: float) -> str:
    """Return a ratio of runs of one round, with that of the medians shown above it where the two contradict.

    Args:
        paired: The median of the rounds' ratios.
        medians: The ratio of the medians.
    """
    contradicts = abs(paired / medians - 1) > APART or (paired - 1) * (medians - 1) < 0
    return f"{paired:.2f}×" + (f" ({medians:.2f}× by the medians above: the rounds differ)" if contradicts else "")


def named(figures: Mapping[str, Cell]) -> dict[str, Cell]:
    """Return figures under names for people: scores in points, and an interval as one.

    Args:
        figures: By their keys in results.json.
    """
    found = dict[str, Cell]()
    for key, value in figures.items():
        if key == "score":
            found[key] = points(value)  # type: ignore[arg-type]
        elif key == "ci_low":
            found["95 % interval"] = interval(value, figures.get("ci_high"))  # type: ignore[arg-type]
        elif key != "ci_high":
            found[NAMES.get(key, key.replace("per item", "an item").replace("per forward", "a forward pass"))] = value
    return found
