"""What an experiment answers, and the finished run around it that trackers are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

Cell = str | int | float | bool | None
RESERVED = {"experiment", "title", "question", "labels", "settings", "summary", "tables", "verdict"}
"""Keys of results.json that are not the experiment's."""


@dataclass(frozen=True)
class Table:
    """Rows under named columns. A cell that should read in one way only, with its unit, is text; None is empty.

    title: what the rows are; empty where the report's title says it. note: what to make of them, in a sentence.
    Raises ValueError for a row that hasn't as many cells as there are columns.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"table {self.title!r} has {len(self.columns)} columns, but a row {row!r}")


@dataclass(frozen=True)
class Report:
    """What an experiment answers.

    title: the kind of record, as the performance log heads it. question: what was asked, in a sentence.
    settings: what a reader must know to compare this with another run. tables: for people, the one that answers first.
    verdict: the answer, in a sentence or two. results: everything measured, for programs; its keys stand in
    results.json. summary: the few figures that runs are compared by. pictures: image files in the run's folder.
    Raises ValueError for results under a key that results.json has already.
    """

    title: str
    question: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    tables: Sequence[Table] = ()
    verdict: str = ""
    results: Mapping[str, Any] = field(default_factory=dict)
    summary: Mapping[str, Cell] = field(default_factory=dict)
    pictures: Sequence[Path] = ()

    def __post_init__(self) -> None:
        if taken := RESERVED & self.results.keys():
            raise ValueError(f"results.json says something else under {', '.join(sorted(taken))}")


@dataclass(frozen=True)
class RunRecord:
    """A finished run.

    folder: where it wrote, by itself. experiment: its name. labels: the choices by which runs are grouped and found,
    by group (`model`, `decoder`, `task`). manifest: see `dlmlab.manifest`.
    """

    folder: Path
    experiment: str
    labels: Mapping[str, str]
    manifest: Mapping[str, Any]
    report: Report


def results_of(run: RunRecord) -> dict[str, Any]:
    """Return what stands in a run's results.json."""
    report = run.report
    return {
        "experiment": run.experiment,
        "title": report.title,
        "question": report.question,
        "labels": run.labels,
        "settings": report.settings,
        "summary": report.summary,
        "tables": report.tables,
        "verdict": report.verdict,
        **report.results,
    }


class Tracker(Protocol):
    """A place where finished runs are reported. Named by `_target_` in conf/tracking/."""

    def log(self, run: RunRecord) -> None:
        """Report a run. Raises OSError where the place can't be written."""


@runtime_checkable
class Follower(Tracker, Protocol):
    """A tracker that knows of a run from its beginning."""

    def begin(self, run: RunRecord) -> None:
        """The run begins; its report is empty."""

    def end(self, error: BaseException | None) -> None:
        """The run ends, by an error if one is given. A run that `log` reported has ended already."""


def show_cell(cell: Cell) -> str:
    """A cell as text: four significant digits, a tick or a cross, nothing for None."""
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "✓" if cell else "✗"
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)
