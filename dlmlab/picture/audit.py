"""The picture of a cache's audit (`dlmlab.measure.audit`): agreement by age, and likeness by layer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from dlmlab.picture.plots import save


def draw(folder: Path, found: Mapping[str, Any]) -> list[Path]:
    """Draw what an audit's summary says, as a PNG file in the folder; nothing where there were no audits.

    Args:
        folder: The run's folder.
        found: What `dlmlab.measure.audit.summary` returns.

    Returns:
        The file, if one was written.
    """
    if not found:
        return []
    figure = Figure(figsize=(8, 3), layout="constrained")
    by_age, by_layer = figure.subplots(1, 2)
    by_age.plot([each["from"] for each in found["by_age"]], [each["same"] for each in found["by_age"]], "o-")
    by_age.set(xlabel="passes since a full one, at least", ylabel="same token as a full pass", xscale="log")
    for name in ("keys", "values"):
        by_layer.plot(found[f"{name}_by_layer"], "o-", label=name)
    by_layer.set(xlabel="layer", ylabel="cosine of kept and new")
    by_layer.legend()
    return [save(figure, folder / "cache_audit.png")]
