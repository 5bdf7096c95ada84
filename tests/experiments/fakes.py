"""A bench for whole runs: a small random checkpoint that answers in words, and a task that scores them."""

from __future__ import annotations

import importlib.util
import json
import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from dlmlab.run import cli
from dlmlab.task.base import Item, Score, select
from tests.model.helpers import SMALL, save_small

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = "{{ messages[0]['content'] }} <answer>"


def save_speaker(folder: Path) -> Path:
    """A checkpoint folder whose vocabulary is w0, w1, … and whose chat template adds one token."""
    folder.mkdir(parents=True)
    save_small(folder)
    words = {f"w{number}": number for number in range(SMALL["vocab_size"] - 3)}
    special = {"<answer>": 93, "<end>": 94, "<mask>": 95}
    tokenizer = Tokenizer(WordLevel(words | special, unk_token="w0"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.add_special_tokens(list(special))
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"eos_token": "<end>", "pad_token": "<end>", "mask_token": "<mask>", "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@dataclass(frozen=True, kw_only=True)
class Words:
    """Items of two to four words; an answer is right or wrong by a hash of it, which few decoders change at once."""

    name: str = "words"
    version: str = "1"
    gen_length: int = 16
    block_length: int = 8
    steps: int = 8
    limit: int | None = 12
    shard: int = 0
    num_shards: int = 1
    right: float = 0.7

    fingerprint = "the words"

    def items(self) -> Sequence[Item]:
        prompts = [" ".join(f"w{7 * number + place}" for place in range(2 + number % 3)) for number in range(40)]
        items = [Item(f"words/{number}", prompt, "") for number, prompt in enumerate(prompts)]
        return select(items, self.limit, self.shard, self.num_shards)

    def score(self, item: Item, text: str) -> Score:
        right = zlib.crc32(f"{item.id} {text}".encode()) % 100 < 100 * self.right
        return Score(float(right), "" if right else "wrong answer", {"strict": float(right)})


class Bench:
    """run.py in this process, on this checkpoint and task, all within a folder."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.model = save_speaker(folder / "model")
        conf = folder / "conf" / "task"
        conf.mkdir(parents=True)
        text = "".join(f"{key}: {json.dumps(value)}\n" for key, value in vars(Words()).items())
        (conf / "words.yaml").write_text(f"_target_: {Words.__module__}.Words\n{text}")

    @property
    def arguments(self) -> list[str]:
        return [
            f"hydra.searchpath=[file://{self.folder}/conf]",
            f"model.path={self.model}",
            "task=words",
            "tracking=terminal",
            f"memo_path={self.folder}/memo.sqlite",
            "device=cpu",
        ]

    def __call__(self, *arguments: str) -> int:
        """The exit status of `python run.py ARGUMENTS`."""
        spec = importlib.util.spec_from_file_location("run", ROOT / "run.py")
        assert spec is not None
        assert spec.loader is not None
        run = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(run)
        with pytest.MonkeyPatch.context() as patch:
            flags = [each for each in arguments if each.startswith("-")]
            patch.setattr(
                sys, "argv", ["run.py", *flags, *self.arguments, *(each for each in arguments if each not in flags)]
            )
            return int(cli.exit_status(run.main))

    def results(self, name: str) -> dict[str, Any]:
        return dict(json.loads((self.folder / name / "results.json").read_text()))
