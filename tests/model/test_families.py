"""Every family's network against transformers' backbones, and what its checkpoints may and may not say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file
from torch import Tensor

import dlmlab
from dlmlab.denoiser import Query
from dlmlab.errors import UserError
from dlmlab.model.dummy import network_config
from dlmlab.model.loader import load, preview, skeleton
from tests.model.families import BLOCK, CONFIGS, EOS, MASK, NAMES, VOCABULARY, save_family
from tests.model.helpers import edit_config, shard

by_name = pytest.mark.parametrize("name", NAMES)


def ids_of(rows: int = 3, length: int = 21) -> Tensor:
    return torch.randint(0, EOS, (rows, length), generator=torch.Generator().manual_seed(1))


def seen(real_BL: Tensor, block_length: int | None) -> Tensor:
    """What sees what, (B, 1, L, L): real tokens, of no later block where attention is block-causal."""
    seen_BLL = real_BL[:, None, :].expand(-1, real_BL.shape[1], -1)
    if block_length:
        block_L = torch.arange(real_BL.shape[1]) // block_length
        seen_BLL = seen_BLL & (block_L <= block_L[:, None])
    return seen_BLL[:, None]


@by_name
@pytest.mark.parametrize("padding", ["none", "left", "right"])
def test_logits_are_the_backbones(tmp_path: Path, name: str, padding: str) -> None:
    backbone = save_family(tmp_path, name)
    model = load(str(tmp_path), device="cpu")
    ids, real = ids_of(), torch.ones(3, 21, dtype=torch.bool)
    if padding != "none":
        real[0, slice(0, 6) if padding == "left" else slice(-6, None)] = False
    block = BLOCK if model.config.block_size else None
    score = torch.zeros(3, 1, 21, 21).masked_fill(~seen(real, block), torch.finfo(torch.float32).min)
    with torch.inference_mode():
        ours = model(ids, None if padding == "none" else real, block_length=block).logits
        theirs = backbone(ids, attention_mask=score).logits
    assert (ours - theirs)[real].abs().max() < 1e-4 * theirs.abs().max()


@by_name
def test_shards_and_a_copy_of_a_tied_head_load(tmp_path: Path, name: str) -> None:
    save_family(tmp_path, name)
    with torch.inference_mode():
        whole = load(str(tmp_path), device="cpu")(ids_of()).logits
        if CONFIGS[name]["tie_word_embeddings"]:
            edit_weights(tmp_path, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].clone()}))
        shard(tmp_path)
        assert torch.equal(load(str(tmp_path), device="cpu")(ids_of()).logits, whole)


@by_name
@pytest.mark.parametrize("quantization", ["none", "nf4", "int8"])
def test_it_computes_in_bfloat16_and_quantised(tmp_path: Path, name: str, quantization: str) -> None:
    widths = {"hidden_size": 128, "head_dim": 32, "intermediate_size": 192, "dense_intermediate_size": 192}
    widths |= {"moe_intermediate_size": 64, "expert_intermediate_size": 64}  # bitsandbytes' kernel for CPUs is choosy
    save_family(tmp_path, name, **{key: width for key, width in widths.items() if key in CONFIGS[name]})
    exact, near = (
        load(str(tmp_path), device="cpu", dtype=dtype, quantization=kind)
        for dtype, kind in (("float32", "none"), ("bfloat16", quantization))
    )
    with torch.inference_mode():
        logits = [model(ids_of()).logits.flatten().float() for model in (exact, near)]
    assert torch.nn.functional.cosine_similarity(*logits, dim=0) > 0.9


def test_biases_that_choose_experts_stay_in_float32(tmp_path: Path) -> None:
    save_family(tmp_path, "llada2")
    model = load(str(tmp_path), device="cpu", dtype="bfloat16")
    assert {p.dtype for name, p in model.named_parameters() if "router.bias" in name} == {torch.float32}


@by_name
def test_what_predicts_a_position_stands_left_of_it_where_logits_are_shifted(tmp_path: Path, name: str) -> None:
    save_family(tmp_path, name)
    model = load(str(tmp_path), device="cpu")
    ids, where = ids_of(2, 10), torch.tensor([0, 1, 7, 10, 15])
    with torch.inference_mode():
        everywhere = model.hidden(Query(ids)).flatten(0, 1)
        asked = model.hidden(Query(ids, wanted_N=where))
    expected = torch.tensor([0, 0, 6, 10, 14]) if name == "dream" else where
    torch.testing.assert_close(asked, everywhere[expected])


@by_name
def test_dummy_weights_need_its_published_config_alone(name: str) -> None:
    model = load("no-org/no-model", device="cpu", load_format="dummy", config=CONFIGS[name])
    assert model.config.family == name
    with torch.inference_mode():
        assert model(ids_of()).logits.shape == (3, 21, VOCABULARY)


def test_its_ends_are_those_of_both_configs_and_of_its_turns(tmp_path: Path) -> None:
    save_family(tmp_path, "sdar")
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [91, EOS]}))
    write_tokenizer(tmp_path, {"<|im_end|>": 92, "mask": MASK, "eos": EOS})
    assert load(str(tmp_path), device="cpu").end_token_ids == (EOS, 91, 92)


def test_a_mask_that_no_file_states_can_be_given(tmp_path: Path) -> None:
    save_family(tmp_path, "llada2", mask_token_id=None)
    without, given = (load(str(tmp_path), device="cpu", mask_token_id=mask) for mask in (None, MASK))
    with pytest.raises(UserError, match="states no mask_token_id"):
        dlmlab.generate(without, [[1, 2]], rule=None, gen_length=4, steps=4)
    assert given.config.mask_token_id == MASK
    known = preview(str(tmp_path), mask_token_id=MASK)  # before its weights are read
    assert known is not None
    assert known.config.mask_token_id == MASK


def test_illadas_mask_is_known(tmp_path: Path) -> None:
    save_family(tmp_path, "illada", mask_token_id=None)
    assert load(str(tmp_path), device="cpu").config.mask_token_id == 5


def edit_weights(folder: Path, edit: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")


def write_tokenizer(folder: Path, vocabulary: dict[str, int]) -> None:
    words = {"a": 0, "b": 1, **vocabulary}
    model = {"type": "WordLevel", "vocab": words, "unk_token": "a"}
    (folder / "tokenizer.json").write_text(json.dumps({"version": "1.0", "added_tokens": [], "model": model}))


KEYS: list[tuple[str, dict[str, Any], str]] = [
    ("dream", {"mask_token_id": None}, "does not state mask_token_id: add the id"),
    ("dream", {"hidden_size": None}, "does not state hidden_size"),
    ("dream", {"hidden_size": 66}, "hidden_size=66 is no multiple of num_attention_heads=4"),
    ("dream", {"hidden_act": "tanh"}, "config key hidden_act='tanh' is not one of silu"),
    (
        "dream",
        {"rope_scaling": {"type": "yarn"}},
        "config key rope_scaling={'type': 'yarn'} is not supported for dream",
    ),
    ("dream", {"use_sliding_window": True}, "config key use_sliding_window=True is not supported"),
    ("dream", {"qk_norm": True}, "config key qk_norm=True cannot be honoured: dream has no such key"),
    ("dream", {"mask_token_id": 96}, "config key mask_token_id=96 is not a token id below 96"),
    ("dream", {"intermediate_size": 100}, "mlp.gate_proj.weight of"),
    ("dream", {"num_hidden_layers": 4}, "lacks tensor model.layers.3."),
    ("illada", {"attention_bias": True}, "attention_bias=True is not supported for illada: it must be False"),
    ("sdar", {"head_dim": 15}, "config key head_dim=15"),
    ("sdar", {"eos_token_id": [EOS, 200]}, "config key eos_token_id=200 is not a token id"),
    ("llada_moe", {"moe_layer_freq": [1]}, "moe_layer_freq=[1] is no list of num_hidden_layers numbers"),
    ("llada_moe", {"moe_router_score_function": "max"}, "moe_router_score_function='max' is not one of softmax"),
    ("llada_moe", {"num_experts_per_tok": 9}, "config key num_experts_per_tok=9 is more than 8"),
    ("llada_moe", {"num_experts": 7}, "mlp.experts.7.down_proj.weight"),
    ("llada2", {"n_group": 3}, "config key n_group=3 leaves no groups"),
    ("llada2", {"partial_rotary_factor": 2}, "partial_rotary_factor=2 is not a number above 0"),
    ("llada2", {"rotary_dim": 4}, "rotary_dim=4 contradicts the other keys, by which it is 8"),
    ("llada2", {"use_bias": True}, "use_bias=True is not supported for llada2"),
]


@pytest.mark.parametrize(("name", "changes", "message"), KEYS, ids=[message for *_, message in KEYS])
def test_a_config_that_cannot_be_honoured_is_one_line(
    tmp_path: Path, name: str, changes: dict[str, Any], message: str
) -> None:
    save_family(tmp_path, name)
    edit_config(tmp_path, **changes)
    refused(tmp_path, message)


def test_a_tied_head_that_is_no_copy_is_one_line(tmp_path: Path) -> None:
    save_family(tmp_path, "illada")
    edit_weights(tmp_path, lambda t: t.update({"lm_head.weight": torch.zeros(VOCABULARY, 64)}))
    refused(tmp_path, "tensor lm_head.weight of")


@pytest.mark.parametrize(
    ("vocabulary", "message"),
    [
        ({"mask": MASK, "<|im_end|>": 93}, f"has no end of text ({EOS}): "),
        ({"eos": EOS, "<|im_end|>": 93}, f"has no mask ({MASK}): "),
        ({"eos": EOS, "mask": MASK}, "has no end of turn (<|im_end|>): "),
    ],
)
def test_a_tokenizer_without_special_tokens_is_one_line(
    tmp_path: Path, vocabulary: dict[str, int], message: str
) -> None:
    save_family(tmp_path, "dream")
    write_tokenizer(tmp_path, vocabulary)
    refused(tmp_path, message)


def refused(folder: Path, message: str) -> None:
    with pytest.raises(UserError) as error:
        load(str(folder), device="cpu")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


CONF = Path(__file__).parents[2] / "conf" / "model"


@pytest.mark.parametrize("file", sorted(CONF.glob("*.yaml")), ids=lambda file: file.stem)
def test_a_config_of_conf_has_its_models_shape(file: Path) -> None:
    """Billions of parameters, none of which takes memory."""
    config = OmegaConf.to_container(OmegaConf.load(file))
    if "config" in config:
        shape = network_config(config["config"])
        count = sum(parameter.numel() for parameter in skeleton(shape).parameters())
        billions = {"dream": 7.6, "illada": 7.6, "sdar": 8.2, "llada_moe": 7.4, "llada2_mini": 16.3, "llada": 8.0}
        assert count / 1e9 == pytest.approx(billions[file.stem], rel=0.02)
        assert shape.mask_token_id is not None
