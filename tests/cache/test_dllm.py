"""What dLLM-Cache spares inside a pass is what the ledger says."""

from __future__ import annotations

import pytest
from torch import Tensor

from dlmlab.cache.dllm import DLLM
from dlmlab.decoder.baseline import Baseline
from dlmlab.generation import generate
from dlmlab.model import features
from tests.model.helpers import small_model

PROMPTS = [[1, 2, 3], [4, 5, 6, 7, 8]]


@pytest.mark.parametrize("cache", [DLLM(), DLLM(5, 3, 0.5), DLLM(1, 1), DLLM(100, 100, 0.0)], ids=str)
def test_full_pass_equivalents_are_the_mean_of_the_layers(cache: DLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    real, computed = features.computed_positions, 0

    def counted(*asked: object) -> Tensor:
        nonlocal computed
        own_T = real(*asked)  # type: ignore[arg-type]
        computed += len(own_T)
        return own_T

    monkeypatch.setattr(features, "computed_positions", counted)
    model = small_model()
    for prompt in PROMPTS:
        computed = 0
        [out] = generate(model, [prompt], Baseline(), gen_length=16, block_length=8, steps=16, cache=cache)
        length = len(prompt) + 16
        assert out.positions == out.forwards * length
        assert out.full_passes == pytest.approx(computed / model.config.n_layers / length, abs=1e-9)
        assert (out.full_passes < out.forwards) == (cache != DLLM(1, 1))
