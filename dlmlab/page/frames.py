"""Read runs on disk as data frames, for a notebook or a spreadsheet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dlmlab.errors import UserError
from dlmlab.page.collect import Run, collect
from dlmlab.page.rows import Row, rows_of

if TYPE_CHECKING:
    import pandas

FIGURES = (
    *("task", "decoder", "parameters", "role", "batch", "n", "right", "score", "low", "high"),
    *("forwards", "full_passes", "tokens_per_forward", "speed", "verdict"),
)
"""Fields of a `dlmlab.page.rows.Row` that are columns."""


class Frames(NamedTuple):
    """The result of `read_runs`.

    Attributes:
        runs: A line for each decoder at each task of a run: what made it, and its figures. Scores are fractions, speeds
            are canvas tokens per second.
        samples: A line for each sample of these runs, with the run's name.
    """

    runs: pandas.DataFrame
    samples: pandas.DataFrame


def read_runs(folder: str | Path) -> Frames:
    """Read every run at or below a folder.

    Runs that are unfinished or damaged are there too, with what can be read of them; their `state` says so.

    Args:
        folder: A folder of runs, such as `outputs/`, or one run's.

    Raises:
        UserError: The folder does not exist, or holds no run.
    """
    import pandas

    top = Path(folder)
    if not top.is_dir():
        raise UserError(f"{top} is no folder: name a folder of runs, such as outputs/")
    runs = collect(top)
    if not runs:
        raise UserError(f"{top} holds no run: name a folder of runs, such as outputs/")
    lines = [whole({**facts(run), **figures(row)}) for run in runs for row in rows_of(run)]
    samples = [whole({"run": run.name, **sample}) for run in runs for sample in run.samples]
    return Frames(pandas.DataFrame(lines), pandas.DataFrame(samples))


def whole(line: dict[str, Any]) -> dict[str, Any]:
    """Return a line whose texts are Unicode: half of a surrogate pair, which JSON can hold, is replaced."""
    return {
        key: value.encode(errors="replace").decode() if isinstance(value, str) else value for key, value in line.items()
    }


def facts(run: Run) -> dict[str, Any]:
    """Return what identifies a run, in columns."""
    git = run.manifest.get("git") or {}
    return {
        "run": run.name,
        "state": run.state,
        "experiment": run.results.get("experiment"),
        "model": run.results.get("labels", {}).get("model"),
        "started": run.manifest.get("started"),
        "commit": git.get("commit"),
    }


def figures(row: Row) -> dict[str, Any]:
    """Return a run's figures of a decoder at a task, in columns."""
    return {name: getattr(row, name) for name in FIGURES}
