"""Where a step's time goes: made-up traces whose answer is known, and a real one."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from dlmlab.measure.profiling import (
    MARK,
    REST,
    RULE,
    PartTime,
    Timeline,
    by_kernel,
    by_stretch,
    decoding,
    profile,
    watched,
)
from dlmlab.measure.roofline import ATTENTION, HEAD, MLP
from dlmlab.types import Generation
from tests.model.helpers import small_model


def mark(part: str, begin: float, end: float) -> dict[str, Any]:
    return {"cat": "user_annotation", "name": MARK + part, "ts": begin, "dur": end - begin}


def kernel(name: str, correlation: int, launch: float, begin: float, end: float) -> list[dict[str, Any]]:
    argument = {"correlation": correlation}
    return [
        {"cat": "cuda_runtime", "name": "cudaLaunchKernel", "ts": launch, "dur": 1, "args": argument},
        {"cat": "kernel", "name": name, "ts": begin, "dur": end - begin, "args": argument},
    ]


def about(spent: dict[str, PartTime]) -> dict[str, tuple[int, int]]:
    return {part: (round(each.busy * 1e6), round(each.idle * 1e6)) for part, each in spent.items()}


def test_a_cpu_s_time_is_that_of_the_stretches() -> None:
    events = [mark(RULE, 0, 10), mark(MLP, 10, 40), {"cat": "cpu_op", "name": "aten::mm", "ts": 5, "dur": 90}]
    events += [mark(RULE, 40, 45), {"cat": "user_annotation", "name": "another's", "ts": 0, "dur": 99}]
    assert about(by_stretch(events)) == {RULE: (15, 0), MLP: (30, 0)}


def test_a_gpu_s_time_is_that_of_kernels_where_they_were_launched_and_of_the_waits_for_them() -> None:
    """Kernels run long after the host has gone on; the one that runs late is the host's fault."""
    events = [mark(RULE, 0, 10), mark(ATTENTION, 10, 20), mark(MLP, 20, 30), mark(HEAD, 30, 50), mark(RULE, 50, 100)]
    events += kernel("copy", 1, launch=5, begin=8, end=12)
    events += kernel("flash", 2, launch=15, begin=12, end=40)  # as if at once
    events += kernel("gemm", 3, launch=25, begin=40, end=60)
    events += kernel("softmax", 4, launch=45, begin=70, end=80)
    found = about(by_kernel(events))
    assert found == {RULE: (4, 8 + 20), ATTENTION: (28, 0), MLP: (20, 0), HEAD: (10, 10)}
    assert sum(map(sum, found.values())) == 100


def test_kernels_at_the_same_time_are_not_counted_twice() -> None:
    events = [mark(MLP, 0, 10), *kernel("gemm", 1, launch=1, begin=2, end=20)]
    events += kernel("gemm", 2, launch=3, begin=10, end=15) + kernel("gemm", 3, launch=4, begin=18, end=30)
    assert about(by_kernel(events))[MLP] == (28, 2)


def test_of_a_captured_pass_only_the_kernels_names_tell() -> None:
    events = [mark(RULE, 0, 10), mark(REST, 10, 20), mark(HEAD, 20, 100)]
    for place, name in enumerate(("nvjet_tst_128x256", "flash_fwd_kernel", "triton_poi_fused_mul_silu")):
        graph = kernel(name, 7, launch=15, begin=20 + 10 * place, end=30 + 10 * place)
        events += graph if place == 0 else graph[1:]  # one launch for all of them
    events += kernel("softmax", 8, launch=25, begin=50, end=60)
    busy = {part: each[0] for part, each in about(by_kernel(events)).items() if each[0]}
    assert busy == {"matrix products": 10, "attention kernels": 10, REST: 10, HEAD: 10}


def test_what_the_model_waits_for_is_bookkeeping() -> None:
    events = [mark(RULE, 0, 10), mark(REST, 10, 20), mark(HEAD, 20, 40)]
    events += kernel("Memcpy HtoD (Pageable -> Device)", 1, launch=11, begin=12, end=13)
    events += kernel("nvjet_tst_128x256", 2, launch=14, begin=15, end=40)
    assert about(by_kernel(events)) == {RULE: (1, 12), "matrix products": (25, 2)}


def check_profile(model: Any, folder: Path) -> dict[str, PartTime]:
    trace = folder / "trace.json.gz"
    prompts = [(1, 2, 3), (4, 5, 6)]
    found = profile(model, decoding(prompts, Generation(gen_length=16, block_length=16, steps=8)), trace)
    for part in (ATTENTION, MLP, HEAD, REST, RULE):
        assert found[part].busy > 0, f"{part}: is its mark still where it was?"
    with gzip.open(trace, "rt") as file:
        names = [each["name"] for each in json.load(file)["traceEvents"] if each.get("cat") == "user_annotation"]
    assert names.count(MARK + MLP) == 8 * model.config.n_layers, "a step, a block"
    return found


def test_every_part_of_a_real_step_is_found(tmp_path: Path) -> None:
    found = check_profile(small_model(), tmp_path)
    assert all(part.idle == 0 for part in found.values())


def test_the_model_is_left_as_it_was() -> None:
    model = small_model()
    with watched(model, Timeline()):
        assert any(module._forward_pre_hooks for module in model.modules())
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_every_part_of_a_gpu_s_step_is_found(tmp_path: Path) -> None:
    found = check_profile(small_model().cuda(), tmp_path)
    assert sum(part.idle for part in found.values()) > 0
