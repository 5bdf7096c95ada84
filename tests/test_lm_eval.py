"""The lab inside lm-eval, and lm-eval's tasks inside the lab: the same items give the same texts and scores."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.task import benchmark_data as data

pytest.importorskip("lm_eval", reason="needs pip install 'dlmlab[eval]'")
CANVAS = {"gen_length": 16, "block_length": 8, "steps": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return data.write(tmp_path_factory.mktemp("benchmarks"))


@pytest.fixture(scope="module")
def model() -> Any:
    from dlmlab.lm_eval import DlmLM

    return DlmLM(path="tiny/v1", decoder="threshold", device="cpu", samples=8, memo=False, **CANVAS)


def test_both_ways_give_the_same_texts_and_scores(folder: Path, tmp_path: Path, model: Any, command: Any) -> None:
    from lm_eval.evaluator import simple_evaluate

    from dlmlab.task import harness

    with harness.importing():
        manager, name = data.direct("gsm8k", data.splits(folder)["gsm8k"], tmp_path)
        results = simple_evaluate(
            model=model,
            tasks=[name],
            task_manager=manager,
            apply_chat_template=True,
            fewshot_as_multiturn=False,
            limit=3,
            bootstrap_iters=0,
        )
    theirs = {}
    for sample in results["samples"][name]:
        theirs.setdefault(sample["doc_id"], {"text": sample["resps"][0][0]})[sample["filter"]] = sample["exact_match"]
    status, _, errors = command(
        "experiment=evaluate", "task=gsm8k", f"task.path={folder}/gsm8k", "decoder=threshold", "device=cpu", "memo=off",
        "tracking=terminal", "task.limit=3", *(f"generation.{key}={value}" for key, value in CANVAS.items()),
    )  # fmt: skip
    assert status == 0, errors
    lines = (tmp_path / "run" / "samples.jsonl").read_text().splitlines()
    for line in lines:
        ours = json.loads(line)
        ours = ours.get("entry", ours)
        other = theirs[int(ours["id"].rpartition("/")[2])]
        assert ours["text"].startswith(other["text"])
        for way in ("strict-match", "flexible-extract"):
            assert ours["variants"][f"exact_match,{way}"] == other[way]
    assert len(lines) == len(theirs) == 3


def test_what_is_drawn_for_a_document_does_not_depend_on_those_before_it(model: Any) -> None:
    from lm_eval.api.instance import Instance

    first, second = (
        Instance("generate_until", {}, ("Hello", {}), 0, metadata=("task", number, 2)) for number in range(2)
    )
    items = [request.item for request in model._asked([first, first, second, second])]
    assert len(set(items)) == 4
    assert [request.item for request in model._asked([second, second])] == items[2:]


def test_likelihoods_answer_multiple_choice(folder: Path, tmp_path: Path, model: Any) -> None:
    from lm_eval.evaluator import simple_evaluate

    from dlmlab.task import harness

    with harness.importing():
        files = data.splits(folder)["mmlu_astronomy_generative"]
        manager, name = data.direct("mmlu_astronomy", files, tmp_path, num_fewshot=0)
        first, again = (
            simple_evaluate(model=model, tasks=[name], task_manager=manager, bootstrap_iters=0)["samples"][name]
            for _ in range(2)
        )
    assert [each["resps"] for each in first] == [each["resps"] for each in again]
    assert all(float(response[0][0]) < 0 for response in first[0]["resps"])


def test_the_command_knows_the_model() -> None:
    command = [sys.executable, "-m", "dlmlab.lm_eval", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "lm-eval" in done.stdout
