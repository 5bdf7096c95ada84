"""Runs as data frames: what the page shows, in columns."""

from __future__ import annotations

import csv
import json

import pytest

import dlmlab
from dlmlab.errors import UserError
from dlmlab.report import main


def test_runs_and_samples_are_frames(outputs):
    runs, samples = dlmlab.read_runs(outputs)
    first = runs[runs.run == "2026-11-20/first"].iloc[0]
    saved = json.loads((outputs / "2026-11-20/first/results.json").read_text())
    assert (first.score, first.n, first.task) == (saved["score"], saved["n"], "words")
    own = samples[samples.run == "2026-11-20/first"]
    assert len(own) == saved["n"]
    assert own.score.mean() == pytest.approx(saved["score"])
    assert runs[runs.run == "killed"].iloc[0].state == "unfinished"


def test_a_table_of_runs_is_written(outputs, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["report", str(outputs), "--csv", str(tmp_path / "runs.csv")])
    assert main() == 0
    with (tmp_path / "runs.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert {line["run"] for line in lines} >= {"2026-11-20/first", "speed", "grid"}


@pytest.mark.parametrize("name", ["nowhere", ""])
def test_a_folder_without_runs_is_one_line(tmp_path, name):
    with pytest.raises(UserError, match="name a folder of runs"):
        dlmlab.read_runs(tmp_path / name)
