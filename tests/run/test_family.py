"""A second model family: a target with its own parameters, a model that has the Denoiser protocol and no more."""

from __future__ import annotations

import json

import pytest
import torch

from dlmlab.denoiser import Query, check_denoiser
from dlmlab.errors import UserError
from tests.fakes import FakeModel

CONF = """
_target_: tests.run.test_family.load
words: 23
sharpness: 3.0
"""
OVERRIDES = ["decoder=threshold", "memo=off", "tracking=terminal", "generation.gen_length=8", "generation.steps=4"]


class Denoiser:
    """No module, no checkpoint, no tokenizer."""

    commit = tokenizer = None
    fingerprint = "made up"
    keeps: frozenset[str] = frozenset()
    packs_rows = greedy_kernel = works_ahead = lays_out = False
    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, sharpness: float) -> None:
        self._fake = FakeModel(sharpness=sharpness)
        self.config, self.end_token_ids = self._fake.config, self._fake.end_token_ids

    def hidden(self, query: Query) -> torch.Tensor:
        return self._fake.hidden(query)

    def head(self, hidden_ND: torch.Tensor) -> torch.Tensor:
        assert hidden_ND.ndim == 2
        return self._fake.head(hidden_ND)


def load(words: int, sharpness: float = 1.0) -> Denoiser:
    """The family's own loader, which knows of no path, dtype or device."""
    assert words == 23
    return Denoiser(sharpness)


@pytest.fixture
def family(command, tmp_path):
    conf = tmp_path / "conf" / "model"
    conf.mkdir(parents=True)
    (conf / "fake.yaml").write_text(CONF)

    def call(*arguments):
        found = command(f"hydra.searchpath=[file://{tmp_path}/conf]", "model=fake", *arguments)
        written = tmp_path / "run" / "results.json"
        return *found, json.loads(written.read_text()) if written.exists() else None

    return call


def test_throughput_needs_the_protocol_alone(family):
    quick = ["prompts=4", "batch_sizes=[1]", "repeats=1", "task=open_prompts", "task.limit=4"]
    status, _, errors, results = family(*OVERRIDES, *quick)
    assert (status in (0, 3), errors) == (True, "")
    assert results["same_tokens_as_reference"] == 1.0
    assert "fake" in results["question"]


def test_a_roofline_needs_the_protocol_alone(family):
    own = [each for each in OVERRIDES if not each.startswith("decoder=")]
    quick = ["experiment=roofline", "batch_sizes=[2]", "repeats=1", "prompt_length=4"]
    status, _, errors, results = family(*quick, *own)
    assert (status, errors) == (0, "")
    assert results["steps"][0]["ratio"] is None
    assert {part["name"] for part in results["steps"][0]["parts"]} >= {"LM head and confidence"}


def test_a_target_is_held_to_its_own_annotations(family):
    status, _, errors, _ = family(*OVERRIDES, "model.words=many", "+model.dtype=float32", "task=open_prompts")
    assert status == 1
    assert errors.splitlines() == [
        "error: model.words='many' is not a whole number",
        "error: model.dtype is not a setting of model, which has words, sharpness",
    ]


def test_a_family_without_tasks_says_so(family):
    status, _, errors, _ = family(*OVERRIDES)
    assert status == 1
    assert errors.startswith("error: model.tasks.bleu=None names no task of the model's for bleu: choose a task=")


def test_a_model_that_works_ahead_makes_passes_ready() -> None:
    model = load(words=23)
    check_denoiser(model)
    model.works_ahead = True
    with pytest.raises(UserError, match="Denoiser has no ready: see"):
        check_denoiser(model)
