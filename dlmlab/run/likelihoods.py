"""What the likelihoods of items' choices come to: of one run, or of its shards joined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dlmlab.measure.stats import proportion_interval
from dlmlab.run import shown
from dlmlab.tracking import Cell, Table


def report_fields(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the entries say, in a Report's fields.

    Args:
        entries: One for each item, with its `score` and, by metric, its `variants`.
    """
    n = len(entries)
    rows: list[list[Cell]] = []
    for name in entries[0]["variants"]:
        scores = [entry["variants"][name] for entry in entries]
        low, high = proportion_interval(sum(score == 1 for score in scores), n)
        rows.append([name, shown.points(sum(scores) / n), shown.interval(low, high), n])
    low, high = proportion_interval(sum(entry["score"] == 1 for entry in entries), n)
    figures = {"score": sum(entry["score"] for entry in entries) / n, "ci_low": low, "ci_high": high, "n": n}
    return {
        "tables": [Table("Score by metric", ["metric", "score", "95 % interval", "items"], rows, "In points of 100.")],
        "verdict": f"Score {shown.points(figures['score'])} (95 % interval {shown.interval(low, high)}, {n} items).",
        "results": figures,
        "summary": figures,
    }
