"""Experts' products in their two ways, their matrices in 4 bits, and the memory that the large mixtures take."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from dlmlab.measure.roofline import BYTES
from dlmlab.model.dummy import network_config
from dlmlab.model.experts import Experts, grouped, one_by_one
from dlmlab.model.loader import QUANTIZED_PART, load, skeleton
from dlmlab.model.quantize import NF4Stack
from tests.model.families import CONFIGS

ROOT = Path(__file__).parents[2]
CARD = 12 * 2**30


def published_shape(name: str) -> nn.Module:
    """The model of a file of conf/model/, without storage."""
    return skeleton(
        network_config(OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / "model" / f"{name}.yaml").config))
    )


def stored_bytes(model: nn.Module) -> float:
    """Bytes of the weights in NF4: what `fill` quantises, and the rest in bfloat16."""
    total = 0.0
    for name, parameter in model.named_parameters():
        owner = model.get_submodule(name.rpartition(".")[0])
        packed = name.startswith(QUANTIZED_PART) and parameter.dim() > 1 and isinstance(owner, nn.Linear | Experts)
        total += parameter.numel() * BYTES["nf4" if packed else "bfloat16"]
    return total


@pytest.mark.parametrize(("name", "billions"), [("llada2_mini", 16.26), ("llada_moe", 7.36)])
def test_large_mixtures_fit_a_card_of_12_gb_in_4_bits(name: str, billions: float) -> None:
    model = published_shape(name)
    assert sum(each.numel() for each in model.parameters()) / 1e9 == pytest.approx(billions, abs=0.01)
    unpacked = max(each.numel() for part in model.modules() if isinstance(part, Experts) for each in part.parameters())
    assert stored_bytes(model) + 2 * unpacked < CARD - 2**30, "with the matrices that a product unpacks, and 1 GiB more"


def test_what_is_counted_is_what_a_loaded_model_takes() -> None:
    shape = {"hidden_size": 256, "head_dim": 64, "intermediate_size": 256, "moe_intermediate_size": 128}
    model = load("no-org/no-model", "bfloat16", "cpu", "nf4", load_format="dummy", config=CONFIGS["llada2"] | shape)
    found = sum(each.nbytes for each in model.parameters())
    for part in model.modules():
        if isinstance(part, NF4Stack):
            found += part.scales.nbytes + part.scale_state.absmax.nbytes
        elif (state := getattr(getattr(part, "weight", None), "quant_state", None)) is not None:
            found += state.absmax.nbytes + state.state2.absmax.nbytes
    assert found == pytest.approx(stored_bytes(skeleton(model.config)), rel=2e-3)


@pytest.mark.parametrize("counts", [[3, 0, 4, 9], [0, 0, 16, 0], [4, 4, 4, 4]], ids=str)
def test_one_product_of_all_experts_is_theirs_one_by_one(counts: list[int]) -> None:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(16, 64, generator=draw).bfloat16()
    weight_XNK = torch.randn(4, 32, 64, generator=draw).bfloat16()
    torch.testing.assert_close(
        grouped(x, weight_XNK, torch.tensor(counts)), one_by_one(x, weight_XNK, torch.tensor(counts))
    )


def test_experts_in_4_bits_are_near_what_they_were() -> None:
    weight_XNK = torch.randn(3, 128, 128, generator=torch.Generator().manual_seed(0))
    weight_XNK[1] *= 100  # the others' precision doesn't suffer
    near_XNK = NF4Stack(weight_XNK)()
    assert (near_XNK.shape, near_XNK.dtype) == (weight_XNK.shape, torch.bfloat16)
    error_X = (near_XNK.float() - weight_XNK).norm(dim=(1, 2)) / weight_XNK.norm(dim=(1, 2))
    assert 0.01 < error_X.min() <= error_X.max() < 0.12


@pytest.mark.parametrize(("kind", "experts"), [("nf4", "NF4Stack"), ("int8", "Parameter")])
def test_a_quantised_mixture_says_what_its_experts_are(kind: str, experts: str) -> None:
    model = load("no-org/no-model", "bfloat16", "cpu", kind, load_format="dummy", config=CONFIGS["llada2"])
    parts = [each for part in model.modules() if isinstance(part, Experts) for each in (part.gate_up, part.down)]
    assert [type(each).__name__ for each in parts] == [experts] * 4
