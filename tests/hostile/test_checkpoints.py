"""A checkpoint may come from anyone: what it says ends in one line, soon, and nothing of it runs."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from dlmlab import load
from dlmlab.errors import UserError
from dlmlab.model import checkpoint
from tests.experiments.fakes import save_speaker
from tests.hostile.folders import edit


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_speaker(tmp_path_factory.mktemp("models") / "model")


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "model"))


VALUES: dict[str, tuple[Any, str]] = {
    "n_layers": (10**9, "n_layers=1000000000"),
    "max_sequence_length": (10**9, "max_sequence_length=1000000000"),
    "id2label": (5, "config.json has a value|id2label"),
    "activation_type": ({}, "config.json has a value|activation_type"),
    "d_model": (10**8, "d_model=100000000"),
    "vocab_size": ([], "vocab_size"),
    "rope_theta": ("x", "rope_theta"),
    "architectures": ([[]], "architectures"),
    "mask_token_id": (94, "mask_token_id=94 is the token that ends an answer"),
}


@pytest.mark.parametrize("key", VALUES)
def test_a_config_of_any_values_is_a_line(folder: Path, key: str) -> None:
    value, message = VALUES[key]
    edit(folder / "config.json", lambda config: config.update({key: value}))
    with pytest.raises(UserError, match=message) as refusal:
        load(str(folder), device="cpu")
    assert "\n" not in str(refusal.value)


def test_a_mask_that_the_tokenizer_does_not_know_as_one_is_refused(folder: Path) -> None:
    edit(folder / "config.json", lambda config: config.update(mask_token_id=7))
    with pytest.raises(UserError, match="mask_token_id=7 .* is 'w7', but its tokenizer's mask is 95"):
        load(str(folder), device="cpu")
    edit(folder / "tokenizer_config.json", lambda config: config.pop("mask_token"))
    with pytest.raises(UserError, match="mask_token_id=7 .* is the text 'w7'"):
        load(str(folder), device="cpu")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"])
def test_a_pipe_in_place_of_a_file_is_not_waited_for(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(UserError, match="no regular file"):
        load(str(folder), device="cpu")


def test_a_config_nested_without_end_is_a_line(folder: Path) -> None:
    (folder / "config.json").write_text('{"a": ' * 100_000)
    with pytest.raises(UserError, match="cannot be read as JSON"):
        checkpoint.read_config(folder)


TEMPLATES: dict[str, tuple[Any, str]] = {
    "several without a default": ([{"name": "rag", "template": "x"}], "templates \\(rag\\) none is named default"),
    "a number": (5, "chat template|tokenizer of"),
    "division": ("{{ 1 / 0 }}", "ZeroDivisionError"),
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_that_gives_no_text_is_a_line(folder: Path, name: str) -> None:
    from dlmlab.generation import encode

    template, message = TEMPLATES[name]
    edit(folder / "tokenizer_config.json", lambda config: config.update(chat_template=template))
    with pytest.raises(UserError, match=message) as refusal:
        encode(load(str(folder), device="cpu"), "w1", 8, "prompt 0")
    assert "\n" not in str(refusal.value)


def test_of_several_templates_the_default_is_taken(folder: Path) -> None:
    from dlmlab.generation import encode

    own = json.loads((folder / "tokenizer_config.json").read_text())["chat_template"]
    plain = encode(load(str(folder), device="cpu"), "w1 w2", 8, "prompt 0")
    named = [{"name": "rag", "template": "x"}, {"name": "default", "template": own}]
    edit(folder / "tokenizer_config.json", lambda config: config.update(chat_template=named))
    assert encode(load(str(folder), device="cpu"), "w1 w2", 8, "prompt 0") == plain
