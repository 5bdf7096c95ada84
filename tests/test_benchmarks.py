"""The benchmarks run, in the smallest form that they have. What they measure is no test's business."""

from __future__ import annotations

import pytest

from benchmarks import batching, caching, overhead, padding, sharing, tracing
from benchmarks.peers import fast_dllm
from dlmlab.errors import UserError

SHORT = ["generation.gen_length=16", "generation.steps=4"]
SMALL = {
    batching: ["repeats=1", "prompts=4", "batch_sizes=[2]", *SHORT],
    caching: ["canvas=32", "limit=1"],
    overhead: ["repeats=1", "prompts=8", *SHORT],
    padding: ["batch_size=4"],
    sharing: ["task.limit=2", "grid.kappa=[0.9]", "grid.tau=[0.8]", "grid.radius=[2,4]"],
    tracing: ["repeats=1", "prompts=8", *SHORT],
}


@pytest.mark.parametrize("benchmark", SMALL, ids=lambda module: module.__name__)
def test_a_benchmark_prints_its_table(benchmark, capsys, monkeypatch) -> None:
    monkeypatch.setattr(padding, "PROMPTS", 6)
    benchmark.main(SMALL[benchmark])
    assert capsys.readouterr().out.count("|") > 10


@pytest.mark.parametrize(
    ("arguments", "said"), [([], "checkout= is missing"), (["checkout=/nowhere"], "checkout=/nowhere holds no llada")]
)
def test_a_peer_that_is_not_there_is_asked_for(arguments, said) -> None:
    shape = [
        "model.config.d_model=64",
        "model.config.n_heads=2",
        "model.config.n_kv_heads=2",
        "model.config.n_layers=1",
    ]
    with pytest.raises(UserError, match=said):
        fast_dllm.main([*arguments, *shape, "device=cpu"])
