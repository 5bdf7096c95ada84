"""What is drawn: against the rule written out, and against its probabilities."""

import math

import numpy as np
import pytest

from dlmlab.cache.dpad import DPad
from dlmlab.policy import View

PROMPT, BLOCK, LENGTH = 10, 8, 74


def view(block: int, step: int, seed: tuple[int, ...] = (0, 3)) -> View:
    start = PROMPT + block * BLOCK
    committed_L = np.zeros(LENGTH, dtype=int)
    return View(PROMPT, start, start + BLOCK, step, forwards=9 * block + step, committed_L=committed_L, seed=seed)


def drawn(cache: DPad, seen: View) -> list[int]:
    """The positions behind the block that are seen."""
    visible = cache.plan(seen).visible
    assert visible is not None
    return [at for at in range(seen.end, LENGTH) if visible[at]]


def chances(cache: DPad) -> list[float]:
    """The probability of each position of the window."""
    found = []
    for distance in range(cache.window):
        z = cache.k_sigma * distance / max(1, cache.window - 1)
        found.append(cache.scale * math.exp(-z * z / 2) / math.sqrt(2 * math.pi))
    return found


@pytest.mark.parametrize("cache", [DPad(16), DPad(200, 3.0, 2.3), DPad(1), DPad(16, scale=0.0)], ids=str)
def test_a_position_is_seen_where_its_draw_is_below_its_probability(cache: DPad) -> None:
    for block in range(8):
        seen = view(block, 0)
        draws = np.random.default_rng([0, 3, seen.start]).random(cache.window).tolist()
        pairs = enumerate(zip(draws, chances(cache), strict=True))
        expected = [seen.end + at for at, (draw, chance) in pairs if draw < chance]
        assert drawn(cache, seen) == [at for at in expected if at < LENGTH]


def test_positions_are_seen_as_often_as_their_probabilities_say() -> None:
    cache, rows = DPad(16, 3.0, 2.3), 3000
    behind = view(0, 0).end
    counts = np.zeros(LENGTH - behind)
    for index in range(rows):
        counts[np.array(drawn(cache, view(0, 0, (7, index))), dtype=int) - behind] += 1
    expected = np.array(chances(cache) + [0.0] * (len(counts) - cache.window))
    assert np.all(np.abs(counts / rows - expected) <= 4 * np.sqrt(expected * (1 - expected) / rows) + 1e-3)


def test_a_block_keeps_what_it_has_drawn_and_the_next_draws_anew() -> None:
    cache = DPad(32)
    assert len({tuple(drawn(cache, view(1, step))) for step in range(8)}) == 1
    behind = [tuple(at - view(block, 0).end for at in drawn(cache, view(block, 0))) for block in range(4)]
    assert len(set(behind)) == 4
    assert drawn(cache, view(1, 0, (0, 4))) != drawn(cache, view(1, 0))


@pytest.mark.parametrize("keep_prefix", [True, False])
def test_what_lies_before_the_block_is_computed_when_it_begins_or_always(keep_prefix: bool) -> None:
    cache = DPad(32, keep_prefix=keep_prefix)
    for step in range(3):
        plan, seen = cache.plan(view(2, step)), view(2, step)
        assert plan.visible is not None
        assert plan.visible[: seen.end].all()
        assert plan.computed[: seen.start].all() == (step == 0 or not keep_prefix)
        assert plan.computed[: seen.start].any() == (step == 0 or not keep_prefix)
        assert np.array_equal(plan.computed[seen.start :], plan.visible[seen.start :])
