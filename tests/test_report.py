"""Reports rebuilt from disk are the ones that the runs wrote."""

from __future__ import annotations

import json

import pytest

from dlmlab.report import main
from tests.experiments.fakes import Bench


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("bench"))


@pytest.fixture
def runs(bench, tmp_path):
    """A folder with a calibration and a multirun, reported in Markdown."""
    track = ["tracking=markdown", f"tracking.markdown.log_file={tmp_path}/log.md"]
    track.append("tracking.markdown.logged=[calibration,evaluate]")
    grid = ["grid.kappa=[0.02,0.09]", "grid.tau=[0.012]", "grid.radius=[1]"]
    assert bench("experiment=calibration", *grid, *track, f"hydra.run.dir={tmp_path}/calibration") == 0
    sweep = ["decoder.kappa=0.02,0.09", "decoder.tau=0.012", "decoder.radius=1", f"hydra.sweep.dir={tmp_path}/sweep"]
    assert bench("-m", "experiment=evaluate", *sweep, *track) == 0
    return tmp_path


def rebuild(monkeypatch, folder):
    monkeypatch.setattr("sys.argv", ["report", str(folder)])
    return main()


def test_lost_reports_and_pictures_come_back_as_they_were(runs, monkeypatch):
    written = [*runs.glob("**/report.md"), *runs.glob("**/results.json"), *runs.glob("**/*.png")]
    assert len(written) >= 12
    before = {path: path.read_bytes() for path in written}
    for path in written:
        if path.suffix != ".json":
            path.unlink()
    assert rebuild(monkeypatch, runs) == 0
    assert {path: path.read_bytes() for path in written} == before
    assert (runs / "log.md").read_text().count("\n## ") == 2, "nothing is added to the log"


def test_rebuilding_twice_changes_nothing(runs, monkeypatch):
    assert rebuild(monkeypatch, runs) == 0
    before = {path: path.read_bytes() for path in runs.glob("**/*") if path.is_file()}
    assert rebuild(monkeypatch, runs) == 0
    assert {path: path.read_bytes() for path in runs.glob("**/*") if path.is_file()} == before


def test_a_folder_without_runs_is_one_line(tmp_path, monkeypatch, capsys):
    assert rebuild(monkeypatch, tmp_path) == 1
    assert capsys.readouterr().err == f"error: {tmp_path} holds no results.json: name a folder with finished runs\n"


def test_a_damaged_run_costs_a_line_and_the_others_are_rebuilt(runs, monkeypatch, capsys):
    file = runs / "calibration" / "results.json"
    report = next(runs.glob("sweep/**/report.md"))
    for content in ("{", json.dumps({"title": "t"}), "[]", "\ud800"):
        file.write_bytes(content.encode(errors="surrogatepass"))
        report.unlink()
        capsys.readouterr()
        assert rebuild(monkeypatch, runs) == 0
        out, err = capsys.readouterr()
        assert f"{file} is damaged" in err
        assert err.count("\n") == 1
        assert out == f"page: {runs}/index.html\n"
        assert report.exists()


def test_the_page_is_shown_where_asked(runs, monkeypatch):
    shown = []
    monkeypatch.setattr("webbrowser.open", shown.append)
    monkeypatch.setattr("sys.argv", ["report", str(runs), "--open"])
    assert main() == 0
    assert shown == [(runs / "index.html").as_uri()]
