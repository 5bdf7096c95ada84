"""A finished run is written first and then reported, and a place that fails costs a line."""

from __future__ import annotations

import json

import pytest

from dlmlab.record.files import visible
from dlmlab.record.report import show_cell
from dlmlab.tracking import Report, Table, following, track


class Full:
    def log(self, run):
        raise OSError("No space left on device")


class Kept:
    def __init__(self):
        self.runs = []

    def log(self, run):
        self.runs.append(run)


def test_results_and_manifest_are_written_and_every_tracker_is_asked(make_run, caplog):
    measured = {"tokens_per_second": 32.9, "spread": float("nan")}
    run, kept = make_run(tables=[Table("", ["a"], [["✓"]])], results=measured), Kept()
    track([Full(), kept], run)
    results = json.loads((run.folder / "results.json").read_text())
    assert results == {
        "experiment": "throughput",
        "title": run.report.title,
        "question": run.report.question,
        "labels": run.labels,
        "settings": run.report.settings,
        "summary": run.report.summary,
        "tables": [{"title": "", "columns": ["a"], "rows": [["✓"]], "note": ""}],
        "verdict": "LocalLeap is 1.77× as fast.",
        "tokens_per_second": 32.9,
        "spread": None,
    }
    assert json.loads((run.folder / "manifest.json").read_text()) == run.manifest
    assert kept.runs == [run]
    assert caplog.messages == ["full tracking failed: No space left on device"]


def test_a_row_has_as_many_cells_as_there_are_columns():
    with pytest.raises(ValueError, match="2 columns"):
        Table("t", ["a", "b"], [["one"]])


def test_results_cannot_hide_what_the_file_says_itself():
    with pytest.raises(ValueError, match="labels"):
        Report("t", results={"labels": 1})


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (None, ""),
        (True, "✓"),
        (False, "✗"),
        (3, "3"),
        (1 / 3, "0.3333"),
        (110.6, "110.6"),
        (18450.4, "18450"),
        ("1.77×", "1.77×"),
    ],
)
def test_cells_as_text(cell, text):
    assert show_cell(cell) == text


def test_what_acts_or_hides_is_shown():
    assert visible("a\x1b[31m\nb\u202e\u200bκ ✓") == r"a\x1b[31m\nb\u202e\u200bκ ✓"


def test_a_run_that_is_cut_off_while_it_begins_has_ended():
    told = []

    class Cut:
        def begin(self, run):
            raise KeyboardInterrupt

        def log(self, run): ...

        def end(self, error):
            told.append(type(error))

    with pytest.raises(KeyboardInterrupt), following([Cut()], None):
        pass
    assert told == [KeyboardInterrupt]
