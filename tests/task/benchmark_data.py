"""A few items of our own wording in the formats in which benchmarks are published, and lm-eval's reading of them."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

GSM8K = [
    {
        "question": f"A shelf has {n} books. Ann adds {n + 1}.\nHow many are there?",
        "answer": f"It is {n} + {n + 1} = <<{n}+{n + 1}={2 * n + 1}>>{2 * n + 1}.\n#### {2 * n + 1}",
    }
    for n in range(1, 12)
]
MATH = [
    {"problem": r"What is $\frac{1}{4} + \frac{1}{4}$?", "solution": r"It is $\boxed{\frac{1}{2}}$.",
     "answer": r"\frac{1}{2}"},
    {"problem": "Solve $x - 3 = 4$ for $x$.", "solution": r"We add 3, so that $x = \boxed{7}$.", "answer": "7"},
]  # fmt: skip
MBPP = [
    {"task_id": 10, "text": "Not a test problem.", "code": "def f(): pass", "test_list": ["f()"] * 3},
    {"task_id": 11, "text": "Write a function that doubles a number.", "code": "def double(x):\r\n  return 2 * x",
     "test_list": ["assert double(2) == 4", "assert double(0) == 0", "assert double(-1) == -2"]},
    {"task_id": 12, "text": "Write a function that joins two words.",
     "code": "def helper(w):\n  return w\ndef join(a, b):\n  return helper(a) + b",
     "test_list": ['assert join("a", "b") == "ab"', 'assert join("", "b") == "b"', 'assert join("x", "") == "x"']},
    {"task_id": 13, "text": "Write a function that says whether a number is even.",
     "code": "def check(n): return n % 2 == 0",
     "test_list": ["assert check(2)", "assert not check(3)", "assert check(0) == True"]},
]  # fmt: skip
IFEVAL = [
    {"key": 1, "prompt": "Describe rain. Use no commas.", "instruction_id_list": ["punctuation:no_comma"],
     "kwargs": [{}]},
    {"key": 2, "prompt": "Describe snow in at least 5 words. Use no commas.",
     "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
     "kwargs": [{}, {"relation": "at least", "num_words": 5}]},
]  # fmt: skip
MMLU = [[f"Which is number {n}?", "one", "two", "three", "four", "ABCD"[n % 4]] for n in range(6)]


def write(folder: Path) -> Path:
    """Write all of them below a folder, a folder a benchmark."""
    lines(folder / "gsm8k" / "train.jsonl", GSM8K[:8])
    lines(folder / "gsm8k" / "test.jsonl", GSM8K[8:])
    lines(folder / "math500" / "anything.jsonl", MATH)
    lines(folder / "mbpp" / "mbpp.jsonl", [{**row, "test_setup_code": "", "challenge_test_list": []} for row in MBPP])
    lines(folder / "ifeval" / "input_data.jsonl", IFEVAL)
    for split, rows in (("dev", MMLU[:5]), ("test", MMLU[5:])):
        file = folder / "mmlu" / split / f"astronomy_{split}.csv"
        file.parent.mkdir(parents=True)
        with file.open("w", newline="") as stream:
            csv.writer(stream).writerows(rows)
    lines(folder / "countdown" / "countdown.jsonl", [{"input": "2,3,4,10", "output": "3*4=12,12-2=10"}])
    (folder / "sudoku").mkdir()
    (folder / "sudoku" / "sudoku.csv").write_text("Puzzle,Solution\n0234341221434321,1234341221434321\n")
    return folder


def lines(file: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as JSON lines."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def splits(folder: Path) -> dict[str, dict[str, str]]:
    """The files of each lm-eval task's splits, in a form that `datasets` reads by itself."""
    for split in ("dev", "test"):
        with (folder / "mmlu" / split / f"astronomy_{split}.csv").open(newline="") as stream:
            rows = [{"question": q, "choices": c, "answer": "ABCD".index(a)} for q, *c, a in csv.reader(stream)]
        lines(folder / "mmlu_json" / f"{split}.jsonl", rows)
    return {
        "gsm8k": {"train": f"{folder}/gsm8k/train.jsonl", "test": f"{folder}/gsm8k/test.jsonl"},
        "minerva_math500": {"test": f"{folder}/math500/anything.jsonl"},
        "mbpp": {"test": f"{folder}/mbpp/mbpp.jsonl"},
        "ifeval": {"train": f"{folder}/ifeval/input_data.jsonl"},
        "mmlu_astronomy_generative": {split: f"{folder}/mmlu_json/{split}.jsonl" for split in ("dev", "test")},
    }


def direct(name: str, files: Mapping[str, str], folder: Path, **settings: Any) -> Any:
    """An lm-eval task over local files, as lm-eval's own documentation says: a YAML that includes the shipped one."""
    import lm_eval.tasks
    import yaml
    from lm_eval.tasks import TaskManager

    root = Path(lm_eval.tasks.__file__).parent
    said = re.compile(rf'^"?task"?: "?{name}"?$', re.MULTILINE)
    [shipped] = [file for file in root.rglob("*.yaml") if said.search(file.read_text(encoding="utf-8"))]
    own = folder / f"{name}_direct.yaml"
    source = {"data_files": dict(files), "cache_dir": str(folder / "cache")}
    data = {"dataset_path": "json", "dataset_name": None, "dataset_kwargs": source}
    config = {"include": str(shipped), "task": f"{name}_direct", **data, **settings}
    own.write_text(yaml.safe_dump(config))
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    return manager, f"{name}_direct"
