"""Logits that are not finite stop a run, whatever the decoder, and the message says where they came from."""

from __future__ import annotations

from itertools import count

import pytest
import torch
from safetensors.torch import load_file, save_file

from dlmlab.denoise import denoise
from dlmlab.denoiser import Query
from dlmlab.errors import UserError
from dlmlab.model.llada import LLaDAModelLM
from dlmlab.run.noise_floor import Padded
from dlmlab.types import Generation, Request
from tests.decoder.steps import NAMES, rule_of
from tests.experiments.fakes import Bench
from tests.model.helpers import small_model

PROMPTS = [(3, 1), (4, 1, 5, 9, 2), (6,)]
LAYER = "model.transformer.blocks.1.ff_proj"


def break_from(model: LLaDAModelLM, layer: str, value: float, passes: int) -> None:
    """Put a value into a layer's output after so many passes."""
    seen = count()

    def spoil(module: torch.nn.Module, inputs: object, output: torch.Tensor) -> torch.Tensor:
        if next(seen) < passes:
            return output
        return output.index_fill(-1, torch.tensor([7]), value)

    model.get_submodule(layer).register_forward_hook(spoil)


def decode(model: LLaDAModelLM, name: str = "baseline", memo: dict | None = None, **settings: float) -> None:
    generation = Generation(gen_length=8, block_length=4, steps=8, **settings)
    requests = [Request(index, prompt, rule_of(name)) for index, prompt in enumerate(PROMPTS)]
    list(denoise(model, requests, generation, batch_size=4, memo=memo))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_every_decoder_stops_at_the_step_and_names_the_layer(name: str, value: float) -> None:
    model = small_model()
    break_from(model, LAYER, value, passes=1)
    with pytest.raises(UserError, match=rf"the logits of request \d are not finite at its step 1: .* {LAYER}: set"):
        decode(model, name)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf], ids=str)
@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0.7},
        {"confidence_eos_eot_inf": True},
        {"confidence_eos_eot_zero": True},
        {"logits_eos_inf": True},
    ],
)
def test_one_logit_of_one_token_is_enough(value: float, settings: dict[str, float]) -> None:
    model = small_model()
    break_from(model, "model.transformer.ff_out", value, passes=2)
    with pytest.raises(UserError, match=r"step \d: .*model.transformer.ff_out"):
        decode(model, **settings)


def test_nothing_broken_is_remembered() -> None:
    model, memo = small_model(), {}
    break_from(model, LAYER, torch.nan, passes=2)
    with pytest.raises(UserError, match="step 2"):
        decode(model, memo=memo)
    assert memo
    assert all((confidence_K == confidence_K).all() for _, confidence_K in memo.values())


def test_a_head_without_a_layer_of_its_own_is_named() -> None:
    model = small_model(weight_tying=True)
    head = model.head
    model.head = lambda hidden_ND: head(hidden_ND) / 0  # type: ignore[method-assign]
    with pytest.raises(UserError, match="the head"):
        decode(model)


def test_what_does_not_happen_again_is_not_blamed_on_a_layer() -> None:
    model = small_model()
    seen = count()

    def spoil(module: torch.nn.Module, inputs: object, output: torch.Tensor) -> torch.Tensor:
        return output * torch.nan if next(seen) == 3 else output

    model.get_submodule(LAYER).register_forward_hook(spoil)
    with pytest.raises(UserError, match="step 3: a second pass over the same canvases is finite"):
        decode(model)


def test_damaged_weights_end_a_run_in_a_line(tmp_path, capfd) -> None:
    bench = Bench(tmp_path)
    file = bench.model / "model.safetensors"
    tensors = load_file(file)
    tensors[f"{LAYER}.weight"][3, 5] = torch.nan
    save_file(tensors, file)
    capfd.readouterr()
    assert bench("experiment=evaluate", f"hydra.run.dir={tmp_path}/run", "decoder=threshold") == 1
    error = capfd.readouterr().err
    assert error.startswith("error: the logits of request ")
    assert error.endswith(f"the weights of {LAYER} are not: fetch the checkpoint again\n")
    assert error.count("\n") == 1
    assert not (tmp_path / "run" / "results.json").exists()


def test_a_faster_pass_that_hides_the_layers_does_not_hide_the_layer() -> None:
    model = small_model()
    plain = model.hidden

    def fast(query: Query) -> torch.Tensor:
        if query.wanted_N is None:
            return plain(query)
        return torch.full((len(query.wanted_N), model.config.d_model), torch.nan)

    model.hidden = fast  # type: ignore[method-assign]
    break_from(model, LAYER, torch.inf, passes=0)
    with pytest.raises(UserError, match=rf"step 0: .* {LAYER}: set"):
        decode(model)


def test_the_noise_floor_s_padded_rows_are_looked_into_too() -> None:
    model = small_model()
    break_from(model, LAYER, torch.inf, passes=0)
    with pytest.raises(UserError, match=rf"step 0: .* {LAYER}: set"):
        decode(Padded(model))  # type: ignore[arg-type]
