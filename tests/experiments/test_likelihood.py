"""Multiple choice by likelihood, from the command line, on the shipped model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dlmlab.verify import verify
from tests.task import benchmark_data as data

pytest.importorskip("lm_eval", reason="needs pip install 'dlmlab[eval]'")
SMALL = ["experiment=likelihood", "task=mmlu_likelihood", "task.task=mmlu_astronomy", "task.num_fewshot=1", "samples=2",
         "decoder=baseline", "device=cpu", "tracking=terminal"]  # fmt: skip


def test_choices_are_scored_resumed_and_verified(command, tmp_path: Path) -> None:
    folder = data.write(tmp_path / "data")
    status, shown, errors = command(*SMALL, f"task.path={folder}/mmlu")
    assert status == 0, errors
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["n"] == 1
    assert results["score"] in (0.0, 1.0)
    assert "acc" in shown
    assert f"Score {100 * results['score']:.1f} (95 % interval " in results["verdict"]
    assert results["tables"][0]["columns"] == ["metric", "score", "95 % interval", "items"]
    found = verify(tmp_path / "run")
    assert (found.problems, found.unchecked) == ([], [])
    before = (tmp_path / "run" / "likelihoods.jsonl").read_text()
    (tmp_path / "run" / "results.json").unlink()
    assert command(*SMALL, f"task.path={folder}/mmlu")[0] == 0
    assert (tmp_path / "run" / "likelihoods.jsonl").read_text() == before


@pytest.mark.parametrize(
    ("task", "message"),
    [("task=tiny_mmlu", "task=tiny_mmlu is not answered by likelihood"),
     ("task=gsm8k", "which is not given by likelihood: choose experiment=evaluate")],
)  # fmt: skip
def test_a_task_of_another_kind_is_one_line(command, tmp_path: Path, task: str, message: str) -> None:
    folder = data.write(tmp_path / "data")
    status, _, errors = command(SMALL[0], *SMALL[5:], task, *([f"task.path={folder}/gsm8k"] if "gsm8k" in task else []))
    assert status == 1
    assert message in errors
    assert errors.count("\n") == 1
