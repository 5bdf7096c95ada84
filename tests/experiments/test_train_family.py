"""Training by families: what is computed in training is what decoding asks for, and checkpoints load as their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

import dlmlab
from dlmlab.decoder.baseline import Baseline
from dlmlab.decoder.threshold import Threshold
from dlmlab.denoiser import Query
from dlmlab.errors import UserError
from experiments.train.distributed import together
from experiments.train.loss import Batch, Masks, Objective, Weights, blocks_apart
from experiments.train.network import Network, save_checkpoint, start
from experiments.train.optimize import Data
from experiments.train.state import Progress
from experiments.train.step import Recorder, Steps
from experiments.train.train import layouts_of, rounds_of, train
from tests.experiments.test_train import recipe

FEW = {"data": {"rows": 40, "workers": 1}, "training": {"batch_size": 6}}
FAMILIES = ("tiny_dream", "tiny_sdar")


def fresh(name: str) -> tuple[Network, dict[str, Any]]:
    parts = recipe(name, FEW)
    torch.manual_seed(0)
    network = start(parts["tokenizer"], parts["architecture"], parts["training"]["initial"], seed=0)
    with torch.no_grad():
        for parameter in network.model.parameters():  # so that new biases and norms count
            parameter.add_(0.02 * torch.randn_like(parameter))
    return network, parts


def in_training(network: Network, parts: dict[str, Any], block_share: float) -> tuple[Objective, Batch, Tensor, float]:
    """An objective, a batch of one layout, its logits, and its loss if entropies were tokens times their places."""
    data = Data(layouts_of(parts["data"]), rounds_of(network, parts["data"], 0, Progress([]))(0))
    [batch] = next(data.drawn([6], torch.Generator().manual_seed(0)))
    masks = Masks(tuple(parts["training"]["block_lengths"]), block_share)
    objective = Objective(network.model, data.layouts, masks, Weights(1, 1.0), room=900)
    seen: list[Tensor] = []

    def record(head: Any, hidden: Tensor, token: Tensor) -> Tensor:
        seen.append(head(hidden))
        return token * (1.0 + torch.arange(token.shape[-1]))

    objective.entropy = record
    loss, _ = objective([batch])
    return objective, batch, seen[0].detach(), loss.item()


@pytest.mark.parametrize("block_share", [0.0, 1.0])
def test_dreams_training_predicts_each_position_from_the_one_before_it_as_decoding_does(block_share: float) -> None:
    network, parts = fresh("tiny_dream")
    parts["training"]["block_lengths"] = [8, 16, 32]
    objective, batch, logits_NV, loss = in_training(network, parts, block_share)
    layout = objective.layouts[0]
    p_BK = objective.probability(batch, torch.arange(layout.canvas), objective.block_lengths(batch))
    first, counted = 0, 0.0
    for row in range(6):
        prompt, canvas = int(batch.prompt_B[row]), int(batch.canvas_B[row])
        tokens = batch.ids_BL[row, layout.prompt - prompt : layout.prompt + canvas].long().clone()
        masked = batch.uniform_BK[row, :canvas] < p_BK[row, :canvas]
        wanted = prompt + torch.arange(canvas)
        counted += (tokens[prompt:] * (first + wanted) / p_BK[row, :canvas])[masked].sum().item()
        tokens[prompt:][masked] = network.model.config.mask_token_id
        expected = network.model.head(network.model.hidden(Query(tokens[None], wanted_N=wanted)))
        assert torch.allclose(logits_NV[first + wanted - 1], expected, atol=1e-4)
        first += prompt + canvas
    assert loss == pytest.approx(counted, rel=1e-5)


def test_sdars_training_shows_every_block_the_clean_ones_before_it_as_decoding_does() -> None:
    network, parts = fresh("tiny_sdar")
    parts["training"]["block_lengths"] = [4, 8, 16, 32, 64]
    objective, batch, logits_BKV, _ = in_training(network, parts, 0.0)
    layout, lengths = objective.layouts[0], objective.block_lengths(batch).tolist()
    assert len(set(lengths)) > 2
    begin_B = layout.prompt - batch.prompt_B
    position_BK = torch.arange(layout.prompt, layout.positions) - begin_B[:, None]
    p_BK = blocks_apart(batch, position_BK, objective.block_lengths(batch))
    for row, length in enumerate(lengths):
        prompt, canvas = int(batch.prompt_B[row]), int(batch.canvas_B[row])
        clean = batch.ids_BL[row, layout.prompt - prompt : layout.prompt + canvas].long()
        noisy = clean.clone()
        noisy[prompt:][batch.uniform_BK[row, :canvas] < p_BK[row, :canvas]] = network.model.config.mask_token_id
        for first in range(prompt // length * length, prompt + canvas, length):
            end = min(first + length, prompt + canvas)
            tokens = torch.cat((clean[:first], noisy[first:end]))
            wanted = torch.arange(max(first, prompt), end)
            query = Query(tokens[None], wanted_N=wanted, block_length=length)
            expected = network.model.head(network.model.hidden(query))
            assert torch.allclose(logits_BKV[row, wanted - prompt], expected, atol=1e-4)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_familys_checkpoint_loads_and_decodes(name: str, tmp_path: Path) -> None:
    network, _ = fresh(name)
    save_checkpoint(network, tmp_path)
    model = dlmlab.load(str(tmp_path), device="cpu")
    assert model.config.family == name.removeprefix("tiny_")
    for (own, one), two in zip(network.model.named_parameters(), model.parameters(), strict=True):
        assert torch.equal(one.bfloat16().float(), two), own
    for rule in (Baseline(), Threshold(0.9)):
        [output] = dlmlab.generate(model, ["What is 3 + 4?"], rule, gen_length=16, block_length=8, steps=16)
        assert 0 < len(output.tokens) <= 16
        assert model.config.mask_token_id not in output.tokens


def test_initial_weights_of_another_shape_are_refused() -> None:
    parts = recipe("tiny_sdar", {"architecture": {"intermediate_size": 256}})
    with pytest.raises(UserError, match=r"training\.initial=tiny/v1: .* is \(.*\), not \(.*\)"):
        start(parts["tokenizer"], parts["architecture"], "tiny/v1", seed=0)
    parts = recipe("tiny_sdar", {"architecture": {"num_hidden_layers": 7}})
    with pytest.raises(UserError, match="tiny/v1 has no .*blocks.6"):
        start(parts["tokenizer"], parts["architecture"], "tiny/v1", seed=0)


def test_layouts_that_hold_no_exercise_are_refused() -> None:
    network, parts = fresh("tiny_dream")
    parts["data"]["layouts"] = [{"prompt": 8, "canvas": 64}]
    with pytest.raises(
        UserError, match=r"hold none of 2000 exercises, whose prompts have \d+ tokens and more: raise prompt"
    ):
        rounds_of(network, parts["data"], 0, Progress([]))(0)


def test_two_processes_train_what_one_does(tmp_path: Path) -> None:
    changes = {
        "data": {"rows": 24, "workers": 1},
        "architecture": {"d_model": 32, "n_layers": 1, "n_heads": 2, "mlp_hidden_size": 32},
        "tokenizer": {"vocab_size": 600, "samples": 20},
        "training": {"steps": 1, "seconds": None, "batch_size": 8, "measure_at": [], "warmup_steps": 1},
        "progress": {"per_kind": 1, "final_steps": []},
    }
    parts = recipe("tiny", changes)
    parts["data"]["weights"] = {"Arithmetic": 1.0}
    weights = []
    for count in (1, 2):
        out = tmp_path / str(count) / "checkpoint"
        results = together(train, "cpu", count, out=out, **parts, seed=0)
        assert results["steps"] == 1  # a later update, made orthogonal in bfloat16, makes rounding larger
        assert len(results["losses"]) == 1
        weights.append(dlmlab.load(str(out), device="cpu").state_dict())
    for name, one in weights[0].items():  # Adam's first steps are as large for a gradient that rounding alone makes
        assert (one - weights[1][name]).abs().mean() < 1e-4, name


def test_two_processes_take_up_the_next_round_together(tmp_path: Path) -> None:
    rows = {"rows": 16, "workers": 2, "passes": 1}
    training = {"steps": 5, "seconds": None, "batch_size": 8, "measure_at": [], "checkpoint_every": 1}
    parts = recipe("tiny", {"data": rows, "training": training, "progress": {"final_steps": []}})
    parts["tokenizer"] = {"vocab_size": 600, "samples": 20, "template": "llada"}
    parts["architecture"] |= {"d_model": 32, "n_layers": 1, "n_heads": 2, "mlp_hidden_size": 32}
    results = together(train, "cpu", 2, out=tmp_path / "checkpoint", **parts, seed=0)
    assert results["steps"] == 5
    with safe_open(tmp_path / "checkpoint.state.safetensors", "pt") as state:
        kept = json.loads(state.metadata()["progress"])
    assert (kept["step"], kept["round"], kept["round_began"]) == (4, 2, 4)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint",
        "checkpoint.results.json",
        "checkpoint.state.safetensors",
    ]


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("name", ["tiny_v2", "tiny_dream", "tiny_sdar", "sudoku"])
def test_recorded_steps_train_as_steps_one_by_one_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, name: str
) -> None:
    training = {"batch_size": 4, "steps": 8, "seconds": None, "measure_at": []}
    parts = recipe(name, {"data": {"rows": 64, "workers": 1}, "training": training, "progress": {"final_steps": []}})
    if name == "tiny_dream":
        parts["data"] |= {"rows": 16, "passes": 1}  # two rounds
    if name == "tiny_v2":
        parts["architecture"] |= {"n_layers": 2}
        parts["data"]["layouts"] = [{"prompt": 48, "canvas": 32}, {"prompt": 96, "canvas": 128}]
    monkeypatch.setattr("experiments.train.optimize.LOG_EVERY", 1)
    if device == "cpu":
        monkeypatch.setattr(Recorder, "__call__", lambda self, work: work)
    losses = []
    for recorded in (False, True):
        monkeypatch.setattr(
            "experiments.train.optimize.Steps", lambda *told, recorded, how=recorded: Steps(*told, recorded=how)
        )
        losses.append(train(tmp_path / str(recorded), **parts, seed=0, device=device)["losses"])
    assert losses[0] == (losses[1] if device == "cpu" else pytest.approx(losses[1], rel=0.01))
    assert len(set(losses[0])) == 8
    assert max(losses[0]) < 30, "a mean over the batch"
