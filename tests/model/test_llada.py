import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dlmlab.denoiser import Query
from dlmlab.errors import UserError
from dlmlab.model.config import LLaDAConfig
from dlmlab.model.llada import LLaDAModelLM
from dlmlab.model.loader import load
from dlmlab.model.rotary import rotate
from tests.model.helpers import SMALL, VECTORS, small_model
from tests.model.naive import naive_logits

TOKENS = [3, 17, 95, 2, 60, 95, 41, 8, 0, 95, 77]


@pytest.mark.parametrize("case", ["no_mask", "masked"])
def test_logits_are_those_of_the_published_code(case: str) -> None:
    expected = np.load(VECTORS / "expected.npz")
    mask = torch.from_numpy(expected["attention_mask"]) if case == "masked" else None
    model = load(str(VECTORS), device="cpu")
    with torch.inference_mode():
        logits = model(torch.from_numpy(expected["input_ids"]), attention_mask=mask).logits
    difference = np.abs(logits.numpy() - expected[f"logits_{case}"])
    assert difference[mask.bool().numpy() if mask is not None else ...].max() < 1e-4


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"n_kv_heads": 2},
        {"n_kv_heads": 1},
        {"multi_query_attention": True},
        {"weight_tying": True},
        {"embedding_size": 128},
        {"include_bias": True, "bias_for_layer_norm": None},
        {"include_qkv_bias": True},
        {"bias_for_layer_norm": True},
        {"layer_norm_with_affine": False},
        {"rms_norm_eps": 0.1},
        {"attention_layer_norm": True},
        {"attention_layer_norm": True, "attention_layer_norm_with_affine": False, "n_kv_heads": 2},
        {"rope_theta": 100.0},
        {"activation_type": "gelu"},
        {"activation_type": "relu"},
        {"mlp_hidden_size": None, "mlp_ratio": 2},
        {"input_emb_norm": True},
        {"scale_logits": True},
        {"residual_dropout": 0.5, "attention_dropout": 0.5, "embedding_dropout": 0.5},
    ],
    ids=str,
)
def test_what_the_config_says_is_honoured(changes: dict[str, object]) -> None:
    model = small_model(**changes)
    logits = model(torch.tensor([TOKENS])).logits[0]
    assert logits.shape[-1] == model.config.padded_vocab_size
    torch.testing.assert_close(
        logits.double(), naive_logits(model.config.to_dict(), model.state_dict(), TOKENS), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"alibi": True}, "alibi=True"),
        ({"rope": False}, "rope=False"),
        ({"block_type": "sequential"}, "block_type='sequential'"),
        ({"block_group_size": 2}, "block_group_size=2"),
        ({"layer_norm_type": "default"}, "layer_norm_type='default'"),
        ({"activation_type": "swiglu"}, "activation_type='swiglu'"),
        ({"use_cache": True}, "use_cache=True"),
        ({"clip_qkv": 8.0}, "clip_qkv=8.0"),
        ({"rope_scaling": {"type": "linear", "factor": 2}}, "rope_scaling="),
        ({"tie_word_embeddings": True}, "tie_word_embeddings=True"),
        ({"quantization_config": {"bits": 4}}, "quantization_config="),
        ({"n_kv_heads": 3}, "n_kv_heads=3"),
        ({"n_kv_heads": 4, "multi_query_attention": True}, "multi_query_attention=True"),
        ({"n_heads": 3}, "n_heads=3"),
        ({"d_model": "128"}, "d_model='128'"),
        ({"n_layers": 0}, "n_layers=0"),
        ({"include_bias": "no"}, "include_bias='no'"),
        ({"rope_theta": "1e4"}, "rope_theta='1e4'"),
        ({"embedding_size": 64}, "embedding_size=64"),
        ({"mask_token_id": 96}, "mask_token_id=96"),
        ({"eos_token_id": None}, "eos_token_id=None"),
        ({"residual_dropout": 1.5}, "residual_dropout=1.5"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(changes: dict[str, object], named: str) -> None:
    with pytest.raises(UserError) as error:
        LLaDAConfig(**(SMALL | changes))
    assert named in str(error.value)
    assert "\n" not in str(error.value)


def test_unknown_key_without_a_value_asks_for_nothing() -> None:
    LLaDAConfig(**SMALL, clip_qkv=None)


def test_padding_has_no_effect_on_either_side() -> None:
    model = small_model()
    alone = model(torch.tensor([TOKENS])).logits[0]
    pad, size = [94] * 5, len(TOKENS)
    mask = torch.tensor([[0] * 5 + [1] * size, [1] * size + [0] * 5])
    left, right = model(torch.tensor([pad + TOKENS, TOKENS + pad]), attention_mask=mask).logits
    torch.testing.assert_close(left[5:], alone, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(right[:size], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("mask_dtype", [torch.bool, torch.int64, torch.float32])
def test_row_without_a_real_token_is_no_nan(dtype: torch.dtype, mask_dtype: torch.dtype) -> None:
    mask = torch.tensor([[1] * 6 + [0] * 5, [0] * 11]).to(mask_dtype)
    logits = small_model().to(dtype)(torch.tensor([TOKENS, TOKENS]), attention_mask=mask).logits
    assert logits.isfinite().all()


def test_attention_sees_both_directions() -> None:
    model = small_model()
    changed = [*TOKENS[:-1], 5]
    first, second = model(torch.tensor([TOKENS, changed])).logits
    assert (first[0] - second[0]).abs().max() > 1e-3


def test_head_of_chosen_positions_is_the_logits_there() -> None:
    model = small_model()
    ids = torch.tensor([TOKENS, TOKENS[::-1]])
    chosen = ids == 95
    torch.testing.assert_close(model.head(model.hidden(Query(ids))[chosen]), model(ids).logits[chosen])


def test_hidden_at_chosen_places_is_hidden_there() -> None:
    model = small_model()
    ids = torch.tensor([TOKENS, TOKENS[::-1]])
    mask = torch.ones_like(ids)
    mask[0, :2] = 0
    where = torch.tensor([len(TOKENS) + 1, 3, 4])
    everywhere = model.hidden(Query(ids, mask)).flatten(0, 1)
    torch.testing.assert_close(model.hidden(Query(ids, mask, where)), everywhere[where])


def test_row_longer_than_the_context_is_refused() -> None:
    with pytest.raises(UserError, match="65 tokens are more than the model's context of 64"):
        small_model().hidden(Query(torch.zeros(1, 65, dtype=torch.int64)))


def test_rotation_is_as_precise_in_a_bfloat16_model() -> None:
    model = small_model()
    cos, sin = model.model.rotary(torch.device("cpu"))
    model.to(torch.bfloat16)(torch.tensor([TOKENS]))
    assert [table.dtype for table in model.model.rotary(torch.device("cpu"))] == [torch.float32] * 2
    x = torch.randn(1, 64, 4, 32, dtype=torch.bfloat16)
    torch.testing.assert_close(rotate(x, cos, sin), rotate(x.float(), cos, sin).bfloat16())


def test_low_precision_rotation_is_honoured() -> None:
    ids = torch.tensor([TOKENS])
    full, low = (small_model(rope_full_precision=full).to(torch.bfloat16)(ids).logits for full in (True, False))
    assert (full != low).any()
    torch.testing.assert_close(full, low, rtol=0.1, atol=0.1)


def test_dropout_acts_in_training_alone() -> None:
    model, ids = small_model(residual_dropout=0.5), torch.tensor([TOKENS])
    assert torch.equal(model(ids).logits, model(ids).logits)
    model.train()
    assert not torch.equal(model(ids).logits, model(ids).logits)


def test_every_weight_learns() -> None:
    model = small_model(include_bias=True)
    model.train()
    model(torch.tensor([TOKENS])).logits.square().mean().backward()
    assert not [name for name, parameter in model.named_parameters() if not parameter.grad.any()]


def test_a_model_that_was_asked_can_be_trained() -> None:
    model, ids = small_model(), torch.tensor([TOKENS])
    with torch.inference_mode():
        model(ids)
    model(ids).logits.sum().backward()


def test_fresh_weights_are_mitchells() -> None:
    torch.manual_seed(0)
    transformer = LLaDAModelLM(LLaDAConfig(**SMALL)).model.transformer
    for weight, std in [
        (transformer.wte.weight, 128**-0.5),
        (transformer.ff_out.weight, 128**-0.5),
        (transformer.blocks[0].q_proj.weight, 128**-0.5),
        (transformer.blocks[1].attn_out.weight, 128**-0.5 / 2),
        (transformer.blocks[1].ff_out.weight, 192**-0.5 / 2),
    ]:
        assert weight.std().item() == pytest.approx(std, rel=0.05)
    assert torch.equal(transformer.ln_f.weight, torch.ones(128))


def test_unknown_way_of_drawing_weights_is_refused_only_when_drawing() -> None:
    config = LLaDAConfig(**SMALL, init_fn="kaiming_normal")
    with pytest.raises(UserError, match="init_fn='kaiming_normal'"):
        LLaDAModelLM(config)


def test_saved_checkpoint_has_llada_layout(tmp_path) -> None:
    model = small_model()
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    published = json.loads((VECTORS / "config.json").read_text())
    assert config["architectures"] == ["LLaDAModelLM"]
    assert config["model_type"] == "llada"
    assert config.keys() - published.keys() <= {"dtype"}
    names = {name.replace("blocks.1.", "blocks.0.") for name in load_file(tmp_path / "model.safetensors")}
    assert names == {n.replace("blocks.1.", "blocks.0.") for n in load_file(VECTORS / "model.safetensors")}


def test_forward_compiles_as_one_graph() -> None:
    model, ids, mask = small_model(), torch.tensor([TOKENS]), torch.ones(1, len(TOKENS))
    model.hidden(Query(ids))
    compiled = torch.compile(model.hidden, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(Query(ids, mask)), model.hidden(Query(ids, mask)))
