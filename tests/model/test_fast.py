"""The fast pass against the plain one, on a GPU; and what can't have it, anywhere."""

from pathlib import Path

import pytest
import torch

from dlmlab.decoder.baseline import Baseline
from dlmlab.errors import UserError
from dlmlab.generation import generate
from dlmlab.model.loader import load
from tests.model.helpers import save_small

WIDE = {"d_model": 256, "n_heads": 4, "mlp_hidden_size": 512, "max_sequence_length": 256}
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
FORMS = [("none", "auto"), ("nf4", "auto"), ("nf4", "fused"), ("nf4", "bnb"), ("fp8", "auto")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_small(tmp_path / "small", **WIDE)
    return tmp_path / "small"


@gpu
@pytest.mark.gpu
@pytest.mark.parametrize(("quantization", "nf4_kernel"), FORMS)
@pytest.mark.parametrize("padded", [False, True])
def test_the_fast_pass_answers_what_the_plain_one_does(
    folder: Path, quantization: str, nf4_kernel: str, padded: bool
) -> None:
    how = {"dtype": "bfloat16", "device": "cuda", "quantization": quantization}
    plain = load(str(folder), compile=False, **how)
    fast = load(str(folder), compile=True, nf4_kernel=nf4_kernel, **how)
    for seed in range(4):  # the first pass is not recorded, the second is, the others are replayed
        torch.manual_seed(seed)
        ids = torch.randint(0, 94, (3, 50), device="cuda")
        mask = torch.ones_like(ids, dtype=torch.bool)
        mask[1, 30 + seed :] = False
        where = torch.randint(0, 30, (20 + seed,), device="cuda")
        with torch.inference_mode():
            exact, near = (model.hidden(ids, mask if padded else None, where).float() for model in (plain, fast))
        assert (exact - near).norm() / exact.norm() < (0.06 if quantization == "fp8" else 0.02)


@gpu
@pytest.mark.gpu
def test_plain_modules_see_the_same_memory(folder: Path) -> None:
    how = {"dtype": "bfloat16", "device": "cuda"}
    plain, fast = (load(str(folder), compile=compile, **how) for compile in (False, True))
    ids = torch.randint(0, 94, (2, 30), device="cuda")
    assert torch.equal(plain(ids).logits, fast(ids).logits)
    block = fast.model.transformer.blocks[0]
    assert block.q_proj.weight.untyped_storage().data_ptr() == block.v_proj.weight.untyped_storage().data_ptr()


@gpu
@pytest.mark.gpu
@pytest.mark.parametrize("quantization", ["none", "nf4", "fp8"])
def test_answers_are_the_same_twice_and_whatever_was_recorded_before(folder: Path, quantization: str) -> None:
    model = load(str(folder), dtype="bfloat16", device="cuda", quantization=quantization)
    assert model.fused
    prompts = [[1, 2, 3], [4, 5, 6, 7, 8], [9] * 20]
    runs = [generate(model, prompts, Baseline(), gen_length=32, steps=16, batch_size=2) for _ in range(3)]
    assert runs[0] == runs[1] == runs[2]


@gpu
@pytest.mark.gpu
def test_auto_leaves_what_it_cannot_do_to_the_plain_pass(folder: Path) -> None:
    assert not load(str(folder), dtype="float32", device="cuda").fused
    assert not load(str(folder), dtype="bfloat16", device="cuda", quantization="int8").fused
    with pytest.raises(UserError, match="dtype=float32"):
        load(str(folder), dtype="float32", device="cuda", compile=True)


def test_a_cpu_has_no_fast_pass(folder: Path) -> None:
    assert not load(str(folder), device="cpu").fused
    with pytest.raises(UserError, match="compile=true needs a CUDA device"):
        load(str(folder), device="cpu", compile=True)
    with pytest.raises(UserError, match="compile='maybe' is not one of auto, true, false"):
        load(str(folder), device="cpu", compile="maybe")


def test_fp8_is_refused_without_its_units(folder: Path) -> None:
    with pytest.raises(UserError, match="quantization=fp8 needs a GPU that multiplies FP8"):
        load(str(folder), device="cpu", quantization="fp8")


@pytest.mark.parametrize(
    ("places", "width"), [(1, 16), (16, 16), (17, 24), (25, 32), (33, 48), (64, 64), (65, 96), (97, 128)]
)
def test_few_widths_are_recorded(places: int, width: int) -> None:
    pytest.importorskip("triton")
    from dlmlab.model.fast import rounded_up

    assert rounded_up(places) == width
