"""`report`, the page, `manifest diff` and a multirun's summary: any folder costs a line at most, and nothing acts."""

from __future__ import annotations

import copy
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dlmlab import manifest, report
from dlmlab.errors import UserError
from dlmlab.page.collect import collect
from dlmlab.record.folder import MULTIRUN
from dlmlab.run import multirun
from tests.hostile.folders import ROOT, edit, write_run

ESCAPE = "\x1b]0;owned\x07\x1b[2J\x9b31m[/b][red]"
JUNK: list[Any] = [None, True, -1, 1e308, 10**400, ESCAPE, "\ud800", [], [[]], {}, {"name": []}, {"a": {"b": None}}]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = write_run(tmp_path_factory.mktemp("runs") / "run")
    point = {"name": "p", "role": "", "score": 0.5, "ci_low": 0.1, "ci_high": 0.9, "forwards": 2.0}
    edit(run / "results.json", lambda results: results.update(points=[point], gates=[{"verdict": "pass"}]))
    return run


@pytest.fixture
def runs(sound: Path, tmp_path: Path) -> Path:
    """A multirun of two jobs."""
    for name in ("0", "1"):
        shutil.copytree(sound, tmp_path / "sweep" / name)
    (tmp_path / "sweep" / MULTIRUN).write_text("tracking: {}\n")
    return tmp_path / "sweep"


def mutated(value: Any, rng: random.Random) -> Any:
    """A value with one thing in it, at any depth, replaced."""
    value = copy.deepcopy(value)
    part = value
    while True:
        keys = list(part) if isinstance(part, dict) else list(range(len(part)))
        key = rng.choice(keys)
        if not isinstance(part[key], dict | list) or not part[key] or rng.random() < 0.3:
            part[key] = rng.choice(JUNK)
            return value
        part = part[key]


@pytest.mark.parametrize("file", ["results.json", "manifest.json"])
def test_a_value_of_any_kind_never_ends_the_report(runs: Path, file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "draw", lambda *given: [])  # takes a second a time
    monkeypatch.setattr(multirun, "draw", lambda *given: [])
    rng, whole = random.Random(0), json.loads((runs / "0" / file).read_text())
    for _ in range(60):
        (runs / "0" / file).write_text(json.dumps(mutated(whole, rng)))
        problems = report.rebuild(runs)
        assert all("\n" not in each for each in problems)
        assert (runs / "1" / "report.md").exists()


def test_points_of_any_kind_are_drawn_or_left_out(runs: Path) -> None:
    point = json.loads((runs / "0" / "results.json").read_text())["points"][0]
    wrong = [{**point, key: junk} for key in point for junk in (None, "x", [], {}, -1)]
    edit(runs / "0" / "results.json", lambda results: results.update(points=[*wrong, *JUNK, point]))
    report.read(runs / "0")
    assert (runs / "0" / "quality_against_forwards.png").exists()


OVERRIDES = ["- ${oc.env:HOME}\n", "!!python/object/apply:os.system [touch ran]", "5", "- {a: b}", "{", "\xff"]


@pytest.mark.parametrize("text", OVERRIDES)
def test_what_a_job_was_told_is_text(runs: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(runs)
    (runs / "1" / ".hydra" / "overrides.yaml").write_text(text, encoding="latin-1")
    (runs / "1" / "manifest.json").unlink()
    record, [problem] = multirun.summarise(runs)
    assert record is not None
    assert problem.name == "1"
    assert os.environ["HOME"] not in problem.settings
    assert not (runs / "ran").exists()


def test_a_job_whose_samples_were_shortened_is_not_in_the_summary(runs: Path) -> None:
    file = runs / "1" / "samples.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:2]))
    _, [problem] = multirun.summarise(runs)
    assert problem.reason == "samples.jsonl has 2 of 3 samples"
    found = {run.name: run for run in collect(runs)}
    assert (found["1"].state, found["1"].problem) == ("damaged", "samples.jsonl has 2 of 3 samples")
    assert found["0"].state == "finished"


def test_pictures_and_reports_do_not_follow_links(runs: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    for name in ("quality_against_forwards.png", "report.md", "table.md", "table.tex", "index.html"):
        (runs / "0" / name).unlink(missing_ok=True)
        (runs / "0" / name).symlink_to(precious)
    assert report.rebuild(runs) == []
    assert precious.read_text() == "mine"
    assert not (runs / "0" / "report.md").is_symlink()


def test_pipes_are_not_waited_for(runs: Path) -> None:
    for name in ("results.json", "samples.jsonl", "traces.jsonl"):
        (runs / "0" / name).unlink(missing_ok=True)
        os.mkfifo(runs / "0" / name)
    os.mkfifo(runs / "perf_log.md")
    assert "it is no regular file" in "".join(report.rebuild(runs))


def test_no_control_character_reaches_the_terminal(runs: Path) -> None:
    (runs / "0").rename(runs / ESCAPE.replace("/", "|"))
    hostile = runs / ESCAPE.replace("/", "|")
    edit(hostile / "manifest.json", lambda made: made.update({ESCAPE: ESCAPE}))
    edit(hostile / "results.json", lambda results: results.update(title=[ESCAPE]))
    for command in (["report", str(runs)], ["manifest", "diff", str(runs / "1"), str(hostile)]):
        done = subprocess.run(
            [sys.executable, "-m", f"dlmlab.{command[0]}", *command[1:]], cwd=ROOT, capture_output=True
        )
        said = (done.stdout + done.stderr).decode()
        assert "owned" in said
        assert all(each.isprintable() or each == "\n" for each in said)


def test_a_bar_shows_how_far_the_report_is(runs: Path, capfd: pytest.CaptureFixture[str]) -> None:
    environment = {**os.environ, "FORCE_COLOR": "1", "TERM": "xterm"}
    subprocess.run([sys.executable, "-m", "dlmlab.report", str(runs)], cwd=ROOT, env=environment, check=True)
    assert "runs reported" in capfd.readouterr().err


def test_a_deeply_nested_manifest_is_a_line(runs: Path) -> None:
    (runs / "0" / "manifest.json").write_text('{"config": ' + '{"a": ' * 5000 + "1" + "}" * 5001)
    with pytest.raises(UserError, match="manifest.json cannot be read"):
        manifest.read(runs / "0")


@pytest.mark.parametrize("change", [lambda made: made.clear(), lambda made: made.update(config=None)])
def test_a_summary_says_which_job_is_damaged(runs: Path, change: Callable[[dict[str, Any]], object]) -> None:
    edit(runs / "1" / "manifest.json", change)
    record, [problem] = multirun.summarise(runs)
    assert record is not None
    assert "manifest.json" in problem.reason
