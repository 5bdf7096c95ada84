"""DSB's cache beside its decoder; that both do as the published code does is in test_golden."""

from __future__ import annotations

import numpy as np

from dlmlab.cache.dsb import DSBCache
from dlmlab.policy import View


def computed(cache: DSBCache, prompt: int, committed: list[int], forwards: int) -> list[int]:
    """The positions that the next pass computes; masks are those that no pass has committed."""
    row_L = np.array([-1] * prompt + [forwards if each < 0 else each for each in committed])
    plan = cache.plan(View(prompt, prompt, prompt + len(committed), forwards, forwards, row_L))
    return [int(place) for place in plan.computed.nonzero()[0]]


def test_the_first_pass_computes_everything() -> None:
    assert computed(DSBCache(1, 4), 3, [-1] * 8, 0) == list(range(11))


def test_then_the_block_that_has_slid_and_what_lies_before_it() -> None:
    assert computed(DSBCache(1, 4), 3, [0, -1, -1, -1, -1, -1, -1, -1], 1) == [3, 4, 5, 6, 7]
    assert computed(DSBCache(2, 4), 3, [0, -1, 0, -1, -1, -1, -1, -1], 1) == [2, 3, 4, 5, 6, 7, 8]


def test_what_the_block_has_just_left_behind_is_computed_whatever_the_window() -> None:
    assert computed(DSBCache(0, 4), 3, [0, 0, 0, -1, -1, -1, -1, -1], 1) == [3, 4, 5, 6, 7, 8, 9]
    assert computed(DSBCache(0, 8), 3, [0, 0, 1, -1, -1, -1, -1, -1], 2) == [5, 6, 7, 8, 9, 10]


def test_a_bound_keeps_the_block_from_growing() -> None:
    assert computed(DSBCache(0, 4, 4), 3, [0, -1, 0, 0, -1, -1, -1, -1], 1) == [3, 4, 5, 6, 7]


def test_everything_is_computed_anew_once_a_blocks_worth_is_committed() -> None:
    cache = DSBCache(0, 4)
    assert computed(cache, 1, [0, 0, 1, 1, -1, -1, -1, -1, -1, -1], 2) == list(range(11))
    assert computed(cache, 1, [0, 0, 1, 1, 2, -1, -1, -1, -1, -1], 3) == [5, 6, 7, 8, 9]
    assert computed(cache, 1, [0, 0, 0, 0, 1, 1, 1, 1, -1, -1], 2) == list(range(11))
