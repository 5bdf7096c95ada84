"""A run on trackio, in its own SQLite file, read back; and never at the run's expense."""

from __future__ import annotations

import sqlite3
import subprocess
from pathlib import Path

import pytest

from dlmlab.errors import UserError
from dlmlab.tracking.trackio import Trackio


@pytest.fixture
def run(make_run):
    return make_run()


def test_a_run_is_in_the_file(tmp_path: Path, run, capsys) -> None:
    pytest.importorskip("trackio", reason="needs pip install 'dlmlab[trackio]'")
    Trackio("lab", str(tmp_path / "trackio")).log(run)
    said = capsys.readouterr()
    assert "not on trackio" not in said.err
    [file] = (tmp_path / "trackio").glob("lab*.db")
    with sqlite3.connect(file) as base:
        assert base.execute("SELECT count(*) FROM metrics").fetchone()[0] >= 1


def test_one_that_hangs_is_given_up_in_a_line(run, capsys, monkeypatch) -> None:
    def hang(*_, **__):
        raise subprocess.TimeoutExpired("trackio", 1)

    monkeypatch.setattr(subprocess, "run", hang)
    Trackio("lab", timeout=1).log(run)
    assert capsys.readouterr().err == (
        "warning: the run is not on trackio: it took more than 1 s; raise tracking.trackio.timeout\n"
    )


def test_a_bad_value_is_one_line() -> None:
    with pytest.raises(UserError, match="tracking.trackio.timeout=0 is not a number between"):
        Trackio("lab", timeout=0)
