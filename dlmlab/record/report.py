"""The answer of an experiment, and the finished run around it that trackers are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

Cell = str | int | float | bool | None
RESERVED = {"experiment", "title", "question", "labels", "settings", "summary", "tables", "verdict"}
"""Keys of results.json that an experiment may not use for its own results."""


@dataclass(frozen=True)
class Table:
    """Rows under named columns. A cell that should read in one way only, with its unit, is text; None is empty.

    Attributes:
        title: Names the rows; empty where the report's title does.
        columns: The columns' names.
        rows: The cells of each row.
        note: Explains the table in a sentence.

    Raises:
        ValueError: A row hasn't as many cells as there are columns.
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
    """The answer of an experiment.

    Attributes:
        title: The kind of record, as the performance log heads it.
        question: The question that the experiment asked, in a sentence.
        settings: The settings that a reader must know to compare this with another run.
        tables: Tables for people; the first one answers the question.
        verdict: The answer, in a sentence or two.
        results: Everything measured, for programs; its keys become keys of results.json.
        summary: The few figures that runs are compared by.
        pictures: Image files in the run's folder.

    Raises:
        ValueError: Results come under a key that results.json has already.
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

    Attributes:
        folder: The folder that the run wrote, and no other run.
        experiment: The experiment's name.
        labels: The choices by which runs are grouped and found, by group (`model`, `decoder`, `task`).
        manifest: A record of what made the result, see `dlmlab.manifest`.
        report: The experiment's answer.
    """

    folder: Path
    experiment: str
    labels: Mapping[str, str]
    manifest: Mapping[str, Any]
    report: Report


def results_of(run: RunRecord) -> dict[str, Any]:
    """Return the content of a run's results.json."""
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
    """Reports finished runs somewhere. Named by `_target_` in conf/tracking/."""

    def log(self, run: RunRecord) -> None:
        """Report a run.

        Raises:
            OSError: The report can't be written.
        """


@runtime_checkable
class Follower(Tracker, Protocol):
    """Reports a run from its beginning on."""

    def begin(self, run: RunRecord) -> None:
        """Take note that the run begins; its report is empty."""

    def end(self, error: BaseException | None) -> None:
        """Take note that the run ends, by an error if one is given. A run that `log` reported has ended already."""


def show_cell(cell: Cell) -> str:
    """Return a cell as text: four significant digits, whole from 10,000 on; a tick or a cross; nothing for None."""
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "✓" if cell else "✗"
    if isinstance(cell, float):
        return f"{cell:.0f}" if 1e4 <= abs(cell) < 1e15 else f"{cell:.4g}"
    return str(cell)
