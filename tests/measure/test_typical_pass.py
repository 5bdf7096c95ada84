"""What the median step's pass computes of a row is what the loop's rows compute there."""

from __future__ import annotations

import pytest

import dlmlab
from dlmlab.cache.dual import Dual
from dlmlab.cache.prefix import Prefix
from dlmlab.decoder.baseline import Baseline
from dlmlab.measure.timing import time_decode
from dlmlab.measure.typical_pass import typical_row
from dlmlab.policy import Policy
from dlmlab.types import Generation, Request

PROMPT, GENERATION = tuple(range(10, 30)), Generation(64, 16, 32)


@pytest.mark.parametrize(
    ("name", "cache", "computed"),
    [("tiny/v1", None, 84), ("tiny/v1", Dual(), 16), ("tiny/v1", Prefix(), 32), ("tiny/dream", Dual(), 17)],
    ids=str,
)
def test_a_row_computes_it_in_the_loop_too(name: str, cache: Policy | None, computed: int) -> None:
    model = dlmlab.load(name, device="cpu")
    found, kept = typical_row(model, PROMPT, GENERATION, cache)
    steps = time_decode(model, [Request(0, PROMPT, Baseline(), cache=cache)], GENERATION, 1).steps
    assert found == computed
    assert computed in {step.positions for step in steps}
    assert (kept is None) == (cache is None)


def test_what_is_kept_in_fp8_is_counted_in_bytes() -> None:
    kept = [typical_row(dlmlab.load("tiny/v1", device="cpu", kv_cache_dtype=dtype), PROMPT, GENERATION, Dual())[1]
            for dtype in ("auto", "fp8")]  # fmt: skip
    assert kept[0] is not None
    assert kept[1] is not None
    assert (kept[0].positions, kept[0].nbytes) == (84, 4 * kept[1].nbytes)
