"""What is renewed, and when."""

import numpy as np
import pytest

from dlmlab.cache.onward import Onward
from dlmlab.policy import View

PROMPT, BLOCK, LENGTH = 10, 4, 26


def computed(cache: Onward, block: int, step: int) -> list[int]:
    start = PROMPT + block * BLOCK
    view = View(PROMPT, start, start + BLOCK, step, forwards=9 * block + step, committed_L=np.zeros(LENGTH, dtype=int))
    plan = cache.plan(view)
    assert plan.visible is None
    return np.flatnonzero(plan.computed).tolist()


@pytest.mark.parametrize("full_every", [0, 2])
def test_a_block_begins_with_the_one_before_it_and_all_that_follows(full_every: int) -> None:
    cache = Onward(full_every)
    assert computed(cache, 0, 0) == list(range(LENGTH))
    assert computed(cache, 0, 1) == [10, 11, 12, 13]
    assert computed(cache, 1, 0) == list(range(10, LENGTH))
    assert computed(cache, 2, 0) == list(range(0 if full_every else 14, LENGTH))
    assert computed(cache, 2, 3) == [18, 19, 20, 21]
    assert computed(cache, 3, 0) == list(range(18, LENGTH))


@pytest.mark.parametrize("window", [0, 3, 99])
def test_what_lies_beyond_the_window_is_not_computed_again(window: int) -> None:
    cache = Onward(window=window)
    assert computed(cache, 0, 0) == list(range(LENGTH))
    assert computed(cache, 1, 0) == list(range(10, min(18 + window, LENGTH)))
    assert computed(cache, 1, 1) == [14, 15, 16, 17]
