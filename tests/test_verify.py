"""A result is held to what the run left: whatever is changed afterwards, in either file, is named."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dlmlab.errors import UserError
from dlmlab.record.samples import Sample, SampleFile
from dlmlab.run import cli, trust
from dlmlab.run.multirun import Job
from dlmlab.verify import verify
from tests.experiments.fakes import Bench

ROOT = Path(__file__).resolve().parents[1]
COMMON = ["device=cpu", "tracking=terminal", "memo=off"]
GRID = ["grid.kappa=[0.5,0.9]", "grid.tau=[0.6]", "grid.radius=[4]"]
UNTIMED = ["calibration.timed_items=0"]
RUNS = {
    "evaluate": ["experiment=evaluate", "task=tiny_mmlu", "task.limit=6", "task.num_shards=2", "task.shard=1"],
    "functions": ["experiment=evaluate", "task=tiny_humaneval", "task.limit=2", "generation.steps=4"],
    "quality_gate": ["experiment=quality_gate", "tasks=[mmlu,bleu,determinism]", "gates.mmlu.limit=3", "task.limit=2"],
    "compare": ["experiment=compare", "decoders=[localleap,threshold]", "tasks=[tiny_open]", "task.limit=3",
                "baseline_steps=16", "timed_items=1", "timed_rounds=1"],
    "calibration": ["experiment=calibration", "task=tiny_open", "task.limit=6", *GRID, *UNTIMED],
    "throughput": ["repeats=1", "prompts=4", "batch_sizes=[1]", "generation.gen_length=8", "generation.steps=2"],
}  # fmt: skip


def start(*arguments: str) -> int:
    spec = importlib.util.spec_from_file_location("run", ROOT / "run.py")
    assert spec is not None
    assert spec.loader is not None
    run = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(run)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["run.py", *arguments])
        return cli.exit_status(run.main)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for name, arguments in RUNS.items():
        assert start(*arguments, *COMMON, f"hydra.run.dir={folder / name}") in (0, cli.FAILED_GATE)
    sweep = ["-m", "experiment=evaluate", "task=tiny_mmlu", "task.limit=2", "decoder.kappa=0.5,0.9"]
    assert start(*sweep, *COMMON, f"hydra.sweep.dir={folder / 'multirun'}") == 0
    return folder


@pytest.fixture
def copy(runs: Path, tmp_path: Path) -> Callable[[str], Path]:
    return lambda name: Path(shutil.copytree(runs / name, tmp_path / name))


def edit_results(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    file = folder / "results.json"
    results = json.loads(file.read_text())
    edit(results)
    file.write_text(json.dumps(results))


def edit_samples(folder: Path, edit: Callable[[Sample], dict[str, Any]], place: int = -1) -> None:
    """Change one of the candidate's samples, and leave a file that is sound by itself."""
    samples = sorted(Job(folder, "").samples, key=lambda sample: sample.decoder == "candidate")
    samples[place] = replace(samples[place], **edit(samples[place]))
    (folder / "samples.jsonl").unlink()
    file = SampleFile(folder)
    for sample in samples:
        file.add(sample)
    file.finish()


@pytest.mark.parametrize("name", [*RUNS, "multirun"])
def test_an_untouched_run_follows(runs: Path, name: str) -> None:
    found = verify(runs / name)
    assert (found.problems, found.unchecked) == ([], [])


FIGURES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "evaluate": (lambda r: r.update(score=0.5), r"^score: "),
    "functions": (lambda r: r["summary"].update({"forwards per item": 1.0}), r"^summary.forwards per item: "),
    "quality_gate": (lambda r: r["gates"][0].update(verdict="pass"), r"^gates\[0\].verdict: .*inconclusive.*pass"),
    "compare": (lambda r: r["points"][1]["against_baseline"].update(ci_low=0.0), r"^points\[1\].against_baseline.ci_"),
    "calibration": (lambda r: r.update(chosen="κ=0.1"), r"^chosen: "),
    "throughput": (lambda r: r["timings"][1]["repeats"][0].update(seconds=1e-3), r"^performance_gates\[0\].value: "),
    "multirun": (lambda r: r["jobs"][1]["figures"].update(score=0.1), r"^jobs\[1\].figures.score: "),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_changed_figure_is_named(copy: Callable[[str], Path], name: str) -> None:
    edit, message = FIGURES[name]
    folder = copy(name)
    edit_results(folder, edit)
    problems = verify(folder).problems
    assert any(re.search(message, each) for each in problems), problems


SAMPLES: dict[str, tuple[str, Callable[[Sample], dict[str, Any]], str]] = {
    "a better score": ("evaluate", lambda s: {"score": 1 - (s.score or 0)}, "sample .* by candidate: scored"),
    "another text": ("evaluate", lambda s: {"text": s.text + "!"}, "its text is not that of its tokens"),
    "another token": ("evaluate", lambda s: {"tokens": [5, *s.tokens[1:]]}, "its text is not that of its tokens"),
    "fewer passes": ("evaluate", lambda s: {"forwards": s.forwards - 1}, "its steps are not those of"),
    "another item": ("evaluate", lambda s: {"prompt": "Name a colour."}, "no such item in the task"),
    "a function's verdict": ("functions", lambda s: {"variants": s.variants | {"raw": 2.0}}, "scored"),
    "a gate's answer": ("quality_gate", lambda s: {"text": "yes"}, r"gates\[1\].candidate: "),
}  # fmt: skip


@pytest.mark.parametrize("name", SAMPLES)
def test_a_changed_sample_is_named(copy: Callable[[str], Path], name: str) -> None:
    run, edit, message = SAMPLES[name]
    folder = copy(run)
    edit_samples(folder, edit)
    problems = verify(folder).problems
    assert any(re.search(message, each) for each in problems), problems


def test_a_lost_sample_shows(copy: Callable[[str], Path]) -> None:
    folder = copy("evaluate")
    lines = (folder / "samples.jsonl").read_text().splitlines(keepends=True)
    (folder / "samples.jsonl").write_text("".join(lines[1:]))
    assert any(each.startswith("n: 2 follows, not 3") for each in verify(folder).problems)


def test_a_sample_that_is_there_twice_shows(copy: Callable[[str], Path]) -> None:
    folder = copy("evaluate")
    edit_samples(folder, lambda sample: {"index": sample.index - 2})
    assert any("is there twice" in each or "no such item" in each for each in verify(folder).problems)


def older(folder: Path) -> None:
    file = folder / "manifest.json"
    made = json.loads(file.read_text())
    del made["model"]["end_token_ids"]
    file.write_text(json.dumps(made))


def call(folder: Path, part: str) -> None:
    """Let a run's config name what would run a command."""
    file = folder / "manifest.json"
    made = json.loads(file.read_text())
    made["config"][part] |= {"_target_": "dlmlab.task.humaneval.os.system", "command": "touch ran"}
    file.write_text(json.dumps(made))


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "no results": (lambda f: (f / "results.json").unlink(), "results.json cannot be read"),
    "half of the results": (lambda f: (f / "results.json").write_text('{"experiment": "ev'), "results.json cannot be"),
    "no manifest": (lambda f: (f / "manifest.json").unlink(), "manifest.json cannot be read"),
    "an older manifest": (older, "older dlmlab, without end_token_ids"),
    "no samples": (lambda f: (f / "samples.jsonl").unlink(), "samples.jsonl cannot be read"),
    "half a sample": (lambda f: (f / "samples.jsonl").open("a").write('{"task": "tin'), "samples.jsonl"),
    "lost keys": (lambda f: edit_results(f, lambda r: r.pop("forwards")), "damaged, or of another version"),
    "another experiment": (lambda f: edit_results(f, lambda r: r.update(experiment="../x")), "none of experiments/"),
    "training": (lambda f: edit_results(f, lambda r: r.update(experiment="train")), "leaves nothing"),
    "a decoder to run": (lambda f: call(f, "decoder"), "names dlmlab.task.humaneval.os.system"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_checked_is_one_line(copy: Callable[[str], Path], name: str) -> None:
    damage, message = REFUSED[name]
    folder = copy("evaluate")
    damage(folder)
    with pytest.raises(UserError, match=message) as refusal:
        verify(folder)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "target",
    ["os.system", "dlmlab.task.humaneval.os.system", "dlmlab.task.humaneval.main", "dlmlab.run.cli.exit_status",
     "dlmlab.task.humaneval.ThreadPoolExecutor", "dlmlab.task.nowhere.X", "dlmlab.task", "subprocess.Popen"],
)  # fmt: skip
def test_only_tasks_and_decoders_of_dlmlab_are_called(target: str) -> None:
    trust.check_part("sandbox", {"_target_": "dlmlab.sandbox.Sandbox"})
    for group in ("task", "decoder"):
        with pytest.raises(UserError, match=f"which is no {group}"):
            trust.check_part(group, {"_target_": target, "_partial_": True})


def test_a_task_of_someone_elses_is_not_called_and_the_rest_is_checked(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    assert bench("experiment=evaluate", f"hydra.run.dir={tmp_path}/run", "decoder=threshold") == 0
    found = verify(tmp_path / "run")
    assert found.problems == []
    assert re.match("scores of words: .* names tests.experiments.fakes.Words", found.unchecked[0])
    edit_samples(tmp_path / "run", lambda sample: {"text": "w1"})
    assert "its text is not that of its tokens" in verify(tmp_path / "run").problems[0]


def test_data_that_changed_are_not_scored_with(copy: Callable[[str], Path]) -> None:
    folder = copy("evaluate")
    file = folder / "manifest.json"
    file.write_text(file.read_text().replace('"fingerprint": "', '"fingerprint": "0'))
    found = verify(folder)
    assert found.problems == []
    assert re.match("scores of tiny_mmlu: its items or scoring are other ones now", found.unchecked[0])


def test_the_command_says_ok_or_names_what_does_not_follow(copy: Callable[[str], Path]) -> None:
    def ask(folder: Path) -> tuple[int, str, str]:
        command = [sys.executable, "-m", "dlmlab.verify", str(folder)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr

    folder = copy("evaluate")
    assert ask(folder) == (0, f"OK: {folder}/results.json follows\n", "")
    edit_results(folder, lambda results: results.update(n=4))
    assert ask(folder) == (1, "does not follow: n: 3 follows, not 4\n", "")
    status, out, error = ask(folder / "nowhere")
    assert (status, out, error.count("\n")) == (2, "", 1)
