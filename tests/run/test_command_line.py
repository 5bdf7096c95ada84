"""The command line's edges: what is typed, where it is written, and what is left when it is refused."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dlmlab.errors import UserError
from dlmlab.run import display, resume
from dlmlab.run.arguments import prepare, quoted
from dlmlab.run.help import text
from dlmlab.run.streams import Steady
from tests.conftest import ROOT

EVALUATE = ["experiment=evaluate", "task=tiny_mmlu", "task.limit=2", "memo=off", "device=cpu", "tracking=terminal"]


def test_a_run_goes_on_when_the_reader_of_its_output_is_gone(tmp_path):
    run = [sys.executable, str(ROOT / "run.py"), *EVALUATE, f"hydra.run.dir={tmp_path / 'run'}"]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(run, stdout=writer, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0
    assert len(done.stderr.splitlines()) == 1
    assert (tmp_path / "run" / "results.json").exists()
    assert not (tmp_path / "run" / "unfinished").exists()


def test_a_character_that_the_output_lacks_is_replaced(tmp_path):
    with (tmp_path / "out").open("w", encoding="ascii") as file:
        file.reconfigure(errors="replace")
        steady = Steady(file)
        assert steady.write("×2\n") == 3
    assert (tmp_path / "out").read_text() == "?2\n"


def test_what_is_printed_without_a_reader_is_told_once(capsys):
    reader, writer = os.pipe()
    os.close(reader)
    stream = Steady(io.TextIOWrapper(os.fdopen(writer, "wb"), write_through=True))
    for _ in range(3):
        stream.write("a line\n")
        stream.flush()
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    "prompt",
    [
        "Hello, world",
        "a = b",
        "it's",
        "a # b",
        "a < b",
        "你好,世界",
        "[1, 2]",
        "{a",
        "back\\slash, 'quoted'",
        "2 + 2 = ?",
    ],
)
def test_a_prompt_needs_the_shell_s_quotes_alone(prompt):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    override = OverridesParser.create().parse_override(quoted(f"prompt={prompt}"))
    assert override.value() == prompt or str(override.value()) == prompt
    assert not override.is_sweep_override()


@pytest.mark.parametrize("text", ["prompt='Hello, world'", 'prompt="a = b"', "prompt=Hello", "prompt=null", "seed=1,2"])
def test_what_hydra_reads_already_stays(text):
    assert quoted(text) == text


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["hydra.run.dir="], "hydra.run.dir= is empty: name a folder"),
        (["-m", "hydra.sweep.dir=''"], "is empty: name a folder"),
        (["-m", "decoder.kappa=0.5,0.7", "--cfg", "job"], "--cfg shows one job's config: leave out -m"),
        (["model.path=a=b{"], "model.path=a=b{ cannot be read: quote a value"),
    ],
)
def test_an_argument_that_cannot_be_meant_is_refused(arguments, line):
    with pytest.raises(UserError, match=line.replace("{", r"\{")):
        prepare(arguments)


def test_another_multirun_s_folder_is_refused_before_anything_is_written(tmp_path):
    (tmp_path / "multirun.yaml").write_text("hydra: {overrides: {task: ['seed=1,2', 'tracking=terminal']}}")
    folder = f"resume={tmp_path}"
    for given in (["seed=1,2"], ["seed=1,2", "tracking=markdown"], ["seed=3,4", "resume_force=true"]):
        assert prepare(["-m", *given, folder])
    for given in (["seed=1,3"], ["seed=2,1"], ["seed=1,2", "batch_size=4"]):
        with pytest.raises(UserError, match="holds another multirun"):
            prepare(["-m", *given, folder])


LINES = {
    "resume_force=nan": "resume_force=nan is not true or false",
    "tracking=markdown tracking.markdown=null": "tracking.markdown=None is not a place for results",
    "decoder=[[]]": "a group has one of its choices",
    "decoder=${oc.decode:'[1,2]'}": "a group has one of its choices",
    "tracking.wandb.project=x": "tracking.wandb.project is not a setting unless tracking=wandb is chosen: add that",
    "+experiment_key=1": "experiment_key is not a setting",
    "display=loud": "display='loud' is not one of auto, rich, plain, none",
}


@pytest.mark.parametrize("typed", LINES)
def test_a_refused_command_is_one_line_and_leaves_nothing(command, tmp_path, typed):
    status, out, errors = command(*EVALUATE, *typed.split())
    assert (status, out) == (1, "")
    assert len(errors.splitlines()) == 1, errors
    assert LINES[typed] in errors
    assert not (tmp_path / "run").exists()


def test_a_sweep_without_a_job_is_an_error(command, tmp_path):
    status, _, errors = command("-m", *EVALUATE, "decoder.kappa=range(1,1)", f"hydra.sweep.dir={tmp_path / 'sweep'}")
    assert status == 1
    assert errors == "error: the sweep has no job: give a setting some values, as in decoder.kappa=0.5,0.7\n"
    assert not (tmp_path / "sweep").exists()


def test_a_folder_with_anything_else_in_it_stays(tmp_path):
    for name, gone in (("run.log", True), ("notes.txt", False), ("manifest.json", False)):
        folder = tmp_path / "run"
        (folder / ".hydra").mkdir(parents=True)
        (folder / ".hydra" / "config.yaml").touch()
        (folder / name).touch()
        resume.clear_refused(folder)
        assert folder.exists() != gone
        shutil.rmtree(folder, ignore_errors=True)


def test_help_says_what_keys_mean():
    shown = text([])
    assert "gen_length: null" in shown
    assert "batch_size: 8 # canvases that go through the model at once" in shown
    assert "submitit_slurm" in shown
    assert "hydra:" not in shown
    assert "margin: 0.02 # what a decoder may lose" in text(["experiment=compare"])


def test_help_for_tasks_lists_their_sizes():
    shown = text(["task", "--help"])
    assert "tiny_mmlu         500 items  Held-out multiple choice" in shown
    assert "humaneval_paper   all items" in shown
    assert {path.stem for path in Path(ROOT / "conf" / "task").glob("[!_]*.yaml")} <= set(shown.split())
    assert "_base" not in shown


def test_progress_without_a_terminal_is_a_line_now_and_then(capsys, monkeypatch, caplog):
    monkeypatch.setattr(display, "EVERY_SECONDS", 0.0)
    with caplog.at_level("INFO"), display.bar("words, leap", total=3, display="plain") as bar:
        for _ in range(3):
            bar.advance()
    out, errors = capsys.readouterr()
    assert re.fullmatch(r"words, leap: 1 of 3, about 0 s left\nwords, leap: 2 of 3, about 0 s left\n", out)
    assert errors == ""
    assert caplog.text.count("of 3") == 2, "run.log has them too"


def test_progress_can_be_left_out(capsys, monkeypatch):
    monkeypatch.setattr(display, "EVERY_SECONDS", 0.0)
    with display.bar("words", total=2, display="none") as bar:
        bar.advance()
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("seconds", "words"), [(12, "12 s"), (600, "10 min"), (9000, "2.5 h")])
def test_a_time_left_is_as_people_say_it(seconds, words):
    assert display.duration(seconds) == words


def test_a_run_tells_its_log_what_it_was_and_came_to(command, tmp_path):
    status, _, errors = command(*EVALUATE)
    assert (status, errors) == (0, "")
    log = (tmp_path / "run" / "run.log").read_text()
    assert "begins: " in log
    assert f"ends: {json.loads((tmp_path / 'run' / 'results.json').read_text())['verdict']}\n" in log
