"""What holds for a run of every task: it goes on after a kill, is split, remembered, shown and verified."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dlmlab.record.journal import Journal
from dlmlab.verify import verify
from tests.task import benchmark_data as data

pytest.importorskip("lm_eval", reason="needs pip install 'dlmlab[eval]'")
ARC = [
    {"id": f"own/{n}", "question": f"What is {n} + {n}?", "answerKey": "B",
     "choices": {"text": [str(n), str(2 * n), "none"], "label": ["A", "B", "C"]}}
    for n in range(1, 4)
]  # fmt: skip
EVALUATE = ["experiment=evaluate", "decoder=threshold", "generation.gen_length=8", "generation.block_length=8"]
TASKS = {
    "gsm8k": [*EVALUATE, "task=gsm8k", "task.num_fewshot=0"],
    "gsm8k_cot": [*EVALUATE, "task=gsm8k_cot"],
    "math500": [*EVALUATE, "task=math500", "task.num_fewshot=0"],
    "mbpp": [*EVALUATE, "task=mbpp", "task.num_fewshot=0", "sandbox=rlimit"],
    "ifeval": [*EVALUATE, "task=ifeval"],
    "mmlu_generated": [*EVALUATE, "task=mmlu_generated", "task.task=mmlu_astronomy_generative", "task.num_fewshot=0"],
    "countdown": [*EVALUATE, "task=countdown"],
    "sudoku": [*EVALUATE, "task=sudoku"],
    "arc": ["experiment=evaluate", "samples=2", "task=lm_eval", "task.task=arc_challenge"],
}
FILES = ("samples.jsonl", "likelihoods.jsonl")
PATHS = {"countdown": "countdown/countdown.jsonl", "sudoku": "sudoku/sudoku.csv"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some items of every benchmark, in the format in which it is published."""
    folder = data.write(tmp_path_factory.mktemp("benchmarks"))
    shutil.copytree(folder / "gsm8k", folder / "gsm8k_cot")
    shutil.copytree(folder / "mmlu", folder / "mmlu_generated")
    data.lines(folder / "arc" / "test.jsonl", ARC)
    file = folder / "mmlu" / "test" / "astronomy_test.csv"
    for own in (file, folder / "mmlu_generated" / "test" / "astronomy_test.csv"):
        own.write_text(own.read_text() * 2)
    for name in PATHS.values():
        lines = (folder / name).read_text().splitlines(keepends=True)
        (folder / name).write_text("".join([*lines, lines[-1]]))
    return folder


@pytest.mark.parametrize("name", TASKS)
def test_a_run_of_every_task(
    command: Callable[..., tuple[int, str, str]], folder: Path, tmp_path: Path, name: str
) -> None:
    run, whole = tmp_path / "run", tmp_path / "whole"
    common = [
        *TASKS[name],
        f"task.path={folder / PATHS.get(name, name)}",
        "device=cpu",
        f"memo_path={tmp_path}/memo.sqlite",
        "~tracking.markdown",
    ]

    def kept(run: Path) -> Path:
        [path] = [run / each for each in FILES if (run / each).exists()]
        return path

    def read(run: Path) -> tuple[bytes, dict[str, Any]]:
        results = json.loads((run / "results.json").read_text())
        return kept(run).read_bytes(), {key: results[key] for key in ("score", "ci_low", "ci_high", "n", "verdict")}

    def succeed(*arguments: str) -> str:
        status, shown, errors = command(*arguments, *common)
        assert status == 0, errors
        return shown

    assert "95 % interval" in succeed()
    assert (run / "index.html").exists()
    found = verify(run, sandbox="rlimit")
    assert (found.problems, found.unchecked) == ([], [])
    run.rename(whole)

    # A kill leaves what was finished, and no results.
    shutil.copytree(whole, run)
    (run / "results.json").unlink()
    journal = Journal(kept(run))
    journal.rewrite(journal.entries[:1])
    succeed()
    assert read(run) == read(whole)
    shutil.rmtree(run)

    succeed()  # again, from the memo where there is one
    if kept(run).name == "samples.jsonl":
        assert json.loads((run / "results.json").read_text())["forwards"]["computed"] == 0
    assert read(run) == read(whole)
    shutil.rmtree(run)

    succeed("-m", "task.num_shards=2", "task.shard=0,1", f"hydra.sweep.dir={run}")
    assert json.loads((run / "results.json").read_text())["summary"]["score"] == read(whole)[1]["score"]
    found = verify(run, sandbox="rlimit")
    assert (found.problems, found.unchecked) == ([], [])
