"""Mistakes in a user's own rules, models, tasks and configs, each of which is one line that names the remedy."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

RULES = '''
from dataclasses import dataclass

from dlmlab.decoder.topk import top_k
from dlmlab.rule import Decision, Rule


class Bare(Rule):
    level: float

    def __call__(self, step):
        return Decision(top_k(step.confidence_BK, 1))


@dataclass(frozen=True)
class Masks(Rule):
    def __call__(self, step):
        return top_k(step.confidence_BK, 1)


@dataclass(frozen=True)
class Nothing(Rule):
    def __call__(self, step):
        return Decision(step.confidence_BK > 2)


@dataclass(frozen=True)
class Two(Rule):
    level: float
    least: int


class Faulty(Rule):
    def __init__(self):
        self.nothing


class Empty:
    """A model that has nothing."""


def load():
    return Empty()
'''
JSONL = 'defaults: [jsonl, _self_]\nname: own\npath: own.jsonl\nprompt: "{{ q }}"\nanswer: "{{ a }}"\ngen_length: 8\n'
FILES = {
    "own_rules_of_a_user.py": RULES,
    "own.jsonl": '{"q": "Hi", "a": "Ho"}\n',
    "my/decoder/bare.yaml": "_target_: own_rules_of_a_user.Bare\nlevel: 0.5\n",
    "my/decoder/masks.yaml": "_target_: own_rules_of_a_user.Masks\n",
    "my/decoder/nothing.yaml": "_target_: own_rules_of_a_user.Nothing\n",
    "my/decoder/two.yaml": "_target_: own_rules_of_a_user.Two\nlevel: 0.5\n",
    "my/decoder/target.yaml": "target: own_rules_of_a_user.Two\nlevel: 0.5\n",
    "my/decoder/broken.yaml": "_target_: own_rules_of_a_user.Two\nlevel: [0.5\n",
    "my/decoder/faulty.yaml": "_target_: own_rules_of_a_user.Faulty\n",
    "my/model/empty.yaml": "_target_: own_rules_of_a_user.load\n",
    "my/task/own.yaml": JSONL,
    "my/task/filtered.yaml": f"{JSONL}filter:\n  _target_: dlmlab.task.extract.last_nmber\n",
}
MINE = ("--config-dir", "my", "experiment=evaluate", "task=tiny_mmlu", "task.limit=1", "memo=off")
BAD = {
    "no dataclass": ((*MINE, "decoder=bare"), r"decoder\.level is not a setting .*, which has none: .*dataclass"),
    "no Decision": ((*MINE, "decoder=masks"), r"Masks\(\) answered a Tensor, not a Decision"),
    "no commit": ((*MINE, "decoder=nothing"), r"Nothing\(\) left 16 masks at step 0 of a block, where there may be 15"),
    "a fault": ((*MINE, "decoder=faulty"), r"'Faulty' object has no attribute 'nothing'"),
    "no value": ((*MINE, "decoder=two"), r"own_rules_of_a_user\.Two needs least: add it to its YAML"),
    "no target": ((*MINE, "decoder=target"), r"decoder has no _target_: .*`_target_: module\.Name`"),
    "no YAML": ((*MINE, "decoder=broken"), r"broken\.yaml.*line 2.*: correct the file"),
    "no model": ((*MINE, "decoder=baseline", "model=empty"), r"Empty has no commit, no config, .*\.Denoiser"),
    "no filter": ((*MINE, "task=filtered"), r"dlmlab\.task\.jsonl\.Jsonl: Error locating target .*last_nmber"),
    "no folder": ((*MINE[2:], "decoder=bare"), r"Could not find 'decoder/bare'.* is found with --config-dir"),
    "a key": ((*MINE, "task=own", "task.promt=x"), r"task\.promt is not a setting; did you mean task\.prompt\?"),
    "a gate's key": (("experiment=quality_gate", "gates.own.margin=0.1"), r"; \+gates\.own\.margin=… adds it"),
    "no gate": (
        ("--config-dir", "my", "experiment=quality_gate", "+gates.own.margin=0.1"),
        r"gates\.own is not among tasks: 'tasks=\[mmlu,humaneval,bleu,determinism,own\]'",
    ),
    "no task": (
        ("--config-dir", "my", "experiment=quality_gate", "+gates.onw.margin=0.1", "tasks=[onw]"),
        r"gates\.onw: onw is no task of conf/task/ or model\.tasks; did you mean own\?",
    ),
    "no list": (
        ("experiment=compare", "decoders=eb"),
        r"decoders='eb' is not a non-empty list.*: write decoders=\[eb\]",
    ),
    "no group": (("--help", "jsonl"), r"--help jsonl: it is no group of conf/; did you mean task=jsonl\?"),
    "a batch": (("prompts=2", "batch_sizes=[1,2]"), r"cannot fill a batch of 4: .*\(batch 4 is always timed\)"),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with these files, which is the current one."""
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("name", BAD)
def test_a_mistake_is_one_line(command, name: str) -> None:
    arguments, expected = BAD[name]
    status, _, errors = command(*arguments)
    assert status == 1
    assert re.fullmatch(r"error: .+\n", errors), errors
    assert re.search(expected, errors), errors
