"""Caches on quantised weights: what is kept is what would be computed, and no more is computed."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

import dlmlab
from dlmlab.cache.dkv import DKV
from dlmlab.cache.dllm import DLLM
from dlmlab.cache.dual import Dual
from dlmlab.cache.none import NoCache
from dlmlab.decoder.baseline import Baseline
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
