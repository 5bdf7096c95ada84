"""The least that a step can cost: counted as torch counts it, stored as it is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import dlmlab
from dlmlab.denoiser import Query, Reuse
from dlmlab.measure import roofline
from dlmlab.measure.roofline import ATTENTION, HEAD, MLP, Ceilings, KeptRow, Work, count, floor, measure_ceilings
from dlmlab.model.config import LLaDAConfig
from dlmlab.model.dummy import network_config
from dlmlab.model.loader import skeleton
from tests.model.families import CONFIGS
from tests.model.families import NAMES as FAMILIES
from tests.model.helpers import save_small, small_model

CHANGES: dict[str, dict[str, Any]] = {
    "plain": {},
    "grouped heads": {"n_kv_heads": 2},
    "padded vocabulary": {"embedding_size": 128},
    "tied": {"weight_tying": True},
}


@pytest.mark.parametrize("name", CHANGES)
def test_flops_are_those_that_torch_counts(name: str) -> None:
    model, (rows, length, places) = small_model(**CHANGES[name]), (3, 20, 17)
    with FlopCounterMode(display=False) as counter, torch.inference_mode(), sdpa_kernel(SDPBackend.MATH):
        hidden = model.hidden(Query(torch.randint(0, 90, (rows, length)), None, torch.arange(places) * 2))
        model.head(hidden)
    work = count(model.config, "none", "float32", rows, length, places)
    assert sum(part.flops for part in work.values()) == counter.get_total_flops()
    assert work[HEAD].flops == 2 * places * 128 * model.config.padded_vocab_size


def test_a_pass_over_kept_rows_is_counted_by_torch_too() -> None:
    model, keys, where = small_model(n_kv_heads=2), 30, torch.arange(20, 28)
    store = model.new_store(keys)
    query = Query(torch.randint(0, 90, (1, 8)), None, torch.arange(5), Reuse(where[None], [None], [store], [None]))
    with FlopCounterMode(display=False) as counter, torch.inference_mode(), sdpa_kernel(SDPBackend.MATH):
        model.head(model.hidden(query))
    work = count(model.config, "none", "float32", 1, 8, 5, KeptRow(keys, store.nbytes))
    assert sum(part.flops for part in work.values()) == counter.get_total_flops()
    whole = count(model.config, "none", "float32", 1, 8, 5)
    assert work[ATTENTION].weight_bytes - whole[ATTENTION].weight_bytes == store.nbytes


def weights_of(model: Any) -> tuple[int, int]:
    """Parameters that a pass multiplies with or adds, norms aside: all of them, and those that one token meets."""
    config, total, active = model.config, 0, 0
    for name, parameter in model.named_parameters():
        if "norm" in name or "ln_f" in name or name.endswith("router.bias") or ".wte." in name:
            continue
        total += parameter.numel()
        share = config.experts_per_token / config.n_experts if ".experts." in name else 1
        active += round(parameter.numel() * share) if parameter.dim() > 1 else 0
    head = config.padded_vocab_size * config.d_model if config.weight_tying else 0
    return total + head, active + head


@pytest.mark.parametrize("name", FAMILIES)
def test_a_familys_flops_are_counted_by_torch_and_its_bytes_by_its_parameters(name: str) -> None:
    rows, length = 3, 21
    changes = {"head_dim": 24} if "head_dim" in CONFIGS[name] else {}
    model = dlmlab.load("no-org/no-model", load_format="dummy", device="cpu", config=CONFIGS[name] | changes)
    with FlopCounterMode(display=False) as counter, torch.inference_mode(), sdpa_kernel(SDPBackend.MATH):
        model.head(model.hidden(Query(torch.randint(0, 90, (rows, length)), None, torch.arange(17) * 2)))
    work = count(model.config, "none", "float32", rows, length, 17)
    assert sum(part.flops for part in work.values()) == counter.get_total_flops()

    total, active = weights_of(skeleton(model.config))
    everything = count(model.config, "none", "bfloat16", 8, 64, 8 * 64)
    assert sum(part.weight_bytes for part in everything.values()) == pytest.approx(2 * total)
    one = count(model.config, "none", "bfloat16", 1, 1, 1)
    between = 4 * model.config.n_layers * model.config.n_heads * model.config.head_width
    assert sum(part.flops for part in one.values()) - between == 2 * active


def test_one_position_reads_the_experts_that_it_meets() -> None:
    config = skeleton(network_config(CONFIGS["llada2"])).config
    one, many = (count(config, "nf4", "bfloat16", 1, 1, 1)[MLP], count(config, "nf4", "bfloat16", 8, 64, 512)[MLP])
    unread = 2 * (8 - 3) * 3 * 24 * 64 * roofline.BYTES["nf4"]
    assert many.weight_bytes - one.weight_bytes == pytest.approx(unread)
    assert count(config, "int8", "bfloat16", 1, 1, 1)[MLP].weight_bytes > one.weight_bytes


def test_llada_8b_at_batch_8() -> None:
    """The figures that anyone gets on the back of an envelope: 11.3 TFLOP and 15.0 GB of weights."""
    config = LLaDAConfig(mlp_hidden_size=12288)
    work = count(config, "none", "bfloat16", 8, 32 + 64, 8 * 64)
    assert sum(part.flops for part in work.values()) == pytest.approx(11.3e12, rel=0.03)
    assert sum(part.weight_bytes for part in work.values()) == pytest.approx(15.0e9, rel=0.01)
    fp8 = count(config, "fp8", "bfloat16", 8, 32 + 64, 8 * 64)
    assert sum(part.weight_bytes for part in fp8.values()) == pytest.approx(6.98e9 + 1.04e9, rel=0.01)
    assert [part.arithmetic for part in fp8.values()] == ["fp8", "fp8", "bfloat16"]


def stored(module: torch.nn.Module) -> int:
    """Bytes of a projection's weight, with its scales."""
    weight: Any = module.weight
    tensors = [weight.data]
    if quant_state := getattr(weight, "quant_state", None):
        tensors += [quant_state.absmax, quant_state.state2.absmax]
    if getattr(weight, "SCB", None) is not None:
        tensors.append(weight.SCB)
    return sum(tensor.nbytes for tensor in tensors)


@pytest.mark.parametrize(
    ("dtype", "quantization"), [("float32", "none"), ("bfloat16", "none"), ("bfloat16", "nf4"), ("bfloat16", "int8")]
)
def test_weights_take_what_the_loaded_model_takes(tmp_path: Path, dtype: str, quantization: str) -> None:
    save_small(tmp_path, d_model=512, mlp_hidden_size=1024)
    model = dlmlab.load(str(tmp_path), dtype=dtype, device="cpu", quantization=quantization)
    projections = {
        ATTENTION: ("q_proj", "k_proj", "v_proj", "attn_out"),
        MLP: ("ff_proj", "up_proj", "ff_out"),
    }
    work = count(model.config, quantization, dtype, 1, 16, 4)
    for part, names in projections.items():
        blocks = model.model.transformer["blocks"].children()
        found = sum(stored(block.get_submodule(name)) for block in blocks for name in names)
        assert work[part].weight_bytes == pytest.approx(found, rel=1e-3)
    assert work[HEAD].weight_bytes == stored(model.model.transformer["ff_out"])


def test_the_floor_is_the_slower_of_computing_and_reading() -> None:
    ceilings = Ceilings(10.0, {"fp8": 4.0, "bfloat16": 2.0})
    fast = Work(products=40.0, others=6.0, arithmetic="fp8", weight_bytes=20.0)
    heavy = Work(products=2.0, others=0.0, arithmetic="bfloat16", weight_bytes=300.0)
    assert floor([fast], ceilings, "bfloat16") == (40 / 4 + 6 / 2, 2.0)
    assert floor([fast], ceilings, "bfloat16").seconds == 13.0
    assert floor([fast, heavy], ceilings, "bfloat16").seconds == 32.0


def test_ceilings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(roofline.SIDE, "cpu", 128)
    monkeypatch.setitem(roofline.COPY_BYTES, "cpu", 2**22)
    found = measure_ceilings(torch.device("cpu"), ["float32", "bfloat16", "float32"])
    assert list(found.flops_per_second) == ["float32", "bfloat16"]
    assert min(found.bytes_per_second, *found.flops_per_second.values()) > 1e6


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_s_ceilings() -> None:
    kinds = ["float32", "bfloat16", "int8"]
    kinds += ["fp8"] if torch.cuda.get_device_capability() >= (8, 9) else []
    found = measure_ceilings(torch.device("cuda"), kinds)
    assert found.flops_per_second["bfloat16"] > found.flops_per_second["float32"]
    assert found.bytes_per_second > 1e11
