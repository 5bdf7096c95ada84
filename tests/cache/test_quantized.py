"""Caches on quantised weights: what is kept is what would be computed, and no more is computed."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch

import dlmlab
from dlmlab.cache.dkv import DKV
from dlmlab.cache.dllm import DLLM
from dlmlab.cache.dual import Dual
from dlmlab.cache.none import NoCache
from dlmlab.decoder.baseline import Baseline
from dlmlab.denoiser import Query, Reuse
from dlmlab.errors import UserError
from dlmlab.model.cached import in_float8
from dlmlab.model.llada import LLaDAModelLM
from dlmlab.policy import Policy
from dlmlab.types import Output

pytest.importorskip("bitsandbytes")
TINY = Path(dlmlab.__file__).parent / "model" / "tiny" / "v1"
PROMPTS = ["Share 21 nuts fairly among Ann, Ida and Bob.", "Count to 5."]
quantised = pytest.mark.parametrize("quantization", ["int8", "nf4"])


@cache
def model(quantization: str) -> LLaDAModelLM:
    return dlmlab.load(str(TINY), dtype="float32", device="cpu", quantization=quantization)


def decoded(quantization: str, policy: Policy) -> list[Output]:
    settings = {"gen_length": 32, "block_length": 16, "steps": 16, "batch_size": 2}
    return dlmlab.generate(model(quantization), PROMPTS, Baseline(), cache=policy, **settings)


@quantised
@pytest.mark.parametrize("policy", [DKV(refresh_steps=1), DLLM(prompt_interval=1, response_interval=1)], ids=str)
def test_a_cache_that_renews_everything_answers_as_none_does(quantization: str, policy: Policy) -> None:
    assert decoded(quantization, policy) == decoded(quantization, NoCache())


@quantised
def test_a_cache_computes_what_it_does_on_other_weights(quantization: str) -> None:
    found, full = decoded(quantization, Dual()), decoded("none", Dual())
    assert [(each.forwards, each.positions) for each in found] == [(each.forwards, each.positions) for each in full]
    assert all(each.full_passes < each.forwards for each in found)


def test_keys_and_values_in_fp8_take_a_byte_each_and_change_little() -> None:
    ids = torch.randint(0, 500, (1, 40), generator=torch.Generator().manual_seed(0))
    hidden, sizes = [], []
    for kv_cache_dtype in ("auto", "fp8"):
        own = dlmlab.load(str(TINY), dtype="bfloat16", device="cpu", kv_cache_dtype=kv_cache_dtype)
        store = own.new_store(40)
        sizes.append(store.nbytes)
        with torch.inference_mode():
            for positions in (torch.arange(40), torch.arange(16, 24)):
                query = Query(ids[:, positions], None, torch.arange(8), Reuse(positions[None], [None], [store], [None]))
                hidden.append(own.hidden(query).float())
    assert sizes[0] == 2 * sizes[1]
    for exact, near in zip(hidden[:2], hidden[2:], strict=True):
        assert 1e-3 < (near - exact).norm() / exact.norm() < 0.1


def test_what_fp8_can_not_hold_becomes_its_largest_number() -> None:
    assert in_float8(torch.tensor([-1e4, 0.5, 1e4])).tolist() == [-448.0, 0.5, 448.0]


def test_another_dtype_for_a_cache_is_refused() -> None:
    with pytest.raises(UserError, match="kv_cache_dtype='int4' is not one of auto, fp8"):
        dlmlab.load(str(TINY), device="cpu", kv_cache_dtype="int4")
