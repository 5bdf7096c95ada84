"""lm-eval's tasks as ours: the same prompts to the letter, and scores by every way that there is."""

from __future__ import annotations

import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from dlmlab.errors import UserError
from dlmlab.sandbox import Sandbox
from dlmlab.task import harness
from dlmlab.task.base import until
from dlmlab.task.lm_eval import LmEval
from dlmlab.task.mbpp import MBPP, entry_point
from dlmlab.task.minerva_math import MinervaMath
from tests.task import benchmark_data as data

pytest.importorskip("lm_eval", reason="needs pip install 'dlmlab[eval]'")
CANVAS: dict[str, Any] = {"name": "x", "version": "1", "gen_length": 8, "block_length": 8, "steps": 8}
PATHS = {"gsm8k": "gsm8k", "minerva_math500": "math500", "mbpp": "mbpp", "ifeval": "ifeval",
         "mmlu_astronomy_generative": "mmlu"}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return data.write(tmp_path_factory.mktemp("benchmarks"))


def task(folder: Path, name: str, **settings: Any) -> LmEval:
    return LmEval(task=name, path=str(folder / PATHS[name]), **CANVAS | settings)


@pytest.mark.parametrize("name", PATHS)
def test_prompts_are_those_of_lm_eval_to_the_letter(folder: Path, tmp_path: Path, name: str) -> None:
    shots = {"num_fewshot": 5} if name.startswith("mmlu") else {}
    with harness.importing():
        manager, direct = data.direct(name, data.splits(folder)[name], tmp_path, **shots)
        [other] = harness.leaves(manager.load_task_or_group([direct]))
        other.set_fewshot_seed(1234)
        other.build_all_requests(limit=None, rank=0, world_size=1)
    items = task(folder, name, **shots).items()
    assert [item.prompt for item in items] == [request.args[0] for request in other.instances]
    assert [item.meta["until"] for item in items] == [request.args[1]["until"] for request in other.instances]
    if name == "gsm8k":
        assert items[0].prompt.count("Question:") == 6


def test_gsm8k_is_scored_strictly_and_flexibly(folder: Path) -> None:
    own = task(folder, "gsm8k", scoring="exact_match,flexible-extract")
    item = own.items()[0]
    gold, loose, wrong = (own.score(item, text) for text in (data.GSM8K[8]["answer"], "So there are 19.", "20"))
    assert gold.variants == {"exact_match,strict-match": 1.0, "exact_match,flexible-extract": 1.0}
    assert loose.variants == {"exact_match,strict-match": 0.0, "exact_match,flexible-extract": 1.0}
    assert (loose.value, wrong.value, wrong.reason) == (1.0, 0.0, "wrong answer")
    assert own.score(item, "19\n\nQuestion: What is 3 + 4? 7").value == 1.0  # what follows a stop does not count


def test_ifeval_is_scored_by_prompt_and_by_instruction(folder: Path) -> None:
    own = task(folder, "ifeval")
    first, second = own.items()
    assert own.score(first, "It falls").value == 1.0
    score = own.score(second, "It, falls, on, the, ground")
    assert (score.value, score.variants["inst_level_strict_acc"]) == (0.0, 0.5)


def test_math_is_scored_three_ways(folder: Path) -> None:
    own = MinervaMath(task="minerva_math500", path=str(folder / "math500"), **CANVAS)
    half, seven = own.items()
    assert own.score(half, r"\boxed{0.5}").variants == {"math_verify": 1.0, "boxed": 0.0, "exact": 0.0}
    assert own.score(half, data.MATH[0]["solution"]).variants == {"math_verify": 1.0, "boxed": 1.0, "exact": 0.0}
    stated = "Final Answer: The final answer is $7$. I hope it is correct."
    assert own.score(seven, stated).variants == {"math_verify": 1.0, "boxed": 0.0, "exact": 1.0}
    for text in ("", "no idea", r"\boxed{8}", r"\boxed{", "9**9**9**9**9**9"):
        assert own.score(seven, text).value == 0.0


@pytest.mark.skipif(not shutil.which("bwrap"), reason="bubblewrap is not installed")
def test_mbpp_runs_the_gold_code_and_takes_code_out_three_ways(folder: Path) -> None:
    own = MBPP(task="mbpp", path=str(folder / "mbpp"), sandbox=Sandbox(), **CANVAS)
    items = own.items()
    assert [item.id for item in items] == ["mbpp/11", "mbpp/12", "mbpp/13"]
    for item, row in zip(items, data.MBPP[1:], strict=True):
        assert own.score(item, f"{row['code']}\n[DONE]\nprint(").value == 1.0
        assert own.score(item, "").value == 0.0
    fenced = own.score(items[0], f"Here it is:\n```python\n{data.MBPP[1]['code']}\n```")
    assert fenced.variants == {"raw": 0.0, "fenced": 1.0, "sanitised": 1.0}


def test_the_function_that_mbpp_tests_is_found() -> None:
    assert [entry_point(row) for row in data.MBPP] == ["f", "double", "join", "check"]


@pytest.mark.parametrize("change", [{"code": "def double(x)"}, {"test_list": ["assert double(2) = 4"] * 3}])
def test_an_mbpp_problem_that_is_no_python_is_named_before_anything_starts(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    rows = [*data.MBPP[:2], {**data.MBPP[2], **change}]
    data.lines(tmp_path / "mbpp.jsonl", [{**row, "test_setup_code": "", "challenge_test_list": []} for row in rows])
    [field] = change
    with pytest.raises(UserError, match=f"MBPP's problem 12: '{field}' has what is no Python"):
        MBPP(task="mbpp", path=str(tmp_path), sandbox=Sandbox(), **CANVAS).items()


def test_text_ends_before_the_first_stop() -> None:
    assert until("a\nQ: b</s>", ["</s>", "Q:"]) == "a\n"
    assert until("a", []) == until("a", [""]) == "a"


def test_a_selection_is_of_all_documents_and_keeps_their_examples(folder: Path) -> None:
    whole = task(folder, "gsm8k").items()
    assert task(folder, "gsm8k", limit=3, shard=1, num_shards=2).items() == [whole[1]]


BAD: dict[str, tuple[str, dict[str, Any], str]] = {
    "an unknown task": ("gsm8k", {"task": "gsm8k_cott"}, "'gsm8k_cott' is none of .*did you mean gsm8k_cot"),
    "a likelihood": ("mmlu_astronomy_generative", {"task": "mmlu_astronomy"}, "by text: choose .*=likelihood"),
    "no file": ("gsm8k", {"path": "/nowhere"}, "task.path=/nowhere does not exist"),
    "no examples": ("gsm8k", {"path": "gsm8k/test.jsonl"}, "has no 'train' split, from which the 5 examples come"),
    "another format": ("gsm8k", {"path": "ifeval/input_data.jsonl", "num_fewshot": 0}, "'question' is undefined"),
    "too many files": ("ifeval", {"path": "mmlu"}, "has no file of the 'train' split but astronomy_dev.csv"),
    "an unknown scoring": ("gsm8k", {"scoring": "acc"}, "task.scoring='acc' is not one of exact_match,strict-match"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    usual, settings, message = BAD[name]
    monkeypatch.chdir(folder)
    with pytest.raises(UserError, match=message) as error:
        LmEval(**{"task": usual, "path": PATHS[usual], **CANVAS, **settings}).items()
    assert "\n" not in str(error.value)


def test_a_missing_field_is_named(tmp_path: Path) -> None:
    data.lines(tmp_path / "test.jsonl", [{"question": "a", "answer": "b"}, {"question": "c"}])
    with pytest.raises(UserError, match="test.jsonl, row 2: no field 'answer', which the first row has"):
        LmEval(task="gsm8k", path=str(tmp_path), num_fewshot=0, **CANVAS).items()


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ("0.3.0", r"lm-eval 0.3.0 is older than 0.4.9, as lm-eval\[math\] .* leaves it"),
        (None, "is not installed: pip install"),
    ],
)
def test_without_the_right_lm_eval_a_line_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, found: str | None, message: str
) -> None:
    def version(name: str) -> str:
        if found is None:
            raise metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(metadata, "version", version)
    with pytest.raises(UserError, match=message):
        harness.check_installed()
