from __future__ import annotations

import pytest
import torch

from dlmlab.decoder.dapd import DAPD
from dlmlab.rule import Step
from tests.decoder.steps import Row, committed, step_of

RULE = DAPD(tau_min=0.25, tau_max=0.75, layer_share=0.3)


def shown(row: Row, *edges: tuple[int, int, float], active: tuple[int, int] = (0, 64)) -> Step:
    """A step in which positions attend to others by so much, and to the rest not at all."""
    attention_BKK = torch.zeros(1, len(row), len(row), dtype=torch.float64)
    for query, key, amount in edges:
        attention_BKK[0, query, key] = amount
    position_K = torch.arange(len(row))
    active_BK = ((active[0] <= position_K) & (position_K < active[1]))[None]
    return step_of([row], attention_BKK=attention_BKK, active_BK=active_BK)


PAIRS = [(0, 1, 0.5), (2, 3, 0.5)]


def test_of_two_that_attend_to_each_other_one_is_taken_the_surer_of_equal_dependence() -> None:
    step = shown([0.5, 0.75, 0.25, 0.875], *PAIRS)
    assert committed(RULE(step)) == [[1, 3]]
    assert committed(RULE(shown([0.5, 0.75, 0.25, 0.875], (1, 0, 0.5), (3, 2, 0.5)))) == [[1, 3]]


def test_on_what_most_depends_goes_before_what_is_sure() -> None:
    """1 depends on both others, so that it goes first, and they wait although they are surer."""
    assert committed(RULE(shown([0.75, 0.5, 0.75], (0, 1, 0.5), (2, 1, 0.5)))) == [[1]]


def test_a_dependence_counts_relative_to_the_largest_of_the_one_that_would_be_taken() -> None:
    """2 knows 1 by 0.4 of what it knows 3 by; 1 knows 2 by a quarter of what it knows 0 by."""
    edges = [(0, 1, 0.5), (1, 2, 0.125), (2, 3, 0.3125)]
    assert committed(RULE(shown([0.125, 1.0, 0.5, 0.125], *edges))) == [[1, 3]]  # 2 is asked after 1
    assert committed(RULE(shown([0.125, 0.5, 1.0, 0.125], *edges))) == [[1, 2]]  # 1 is asked after 2


def test_tau_grows_with_the_share_of_the_canvas_that_is_filled() -> None:
    edges = [(0, 1, 0.5), (1, 2, 0.25)]
    row: Row = [0.125, 0.5, 0.5]
    assert committed(RULE(shown([*row, 0.5], *edges, (2, 3, 0.5)))) == [[1, 3]]
    assert committed(RULE(shown([*row, 0.5, *[None] * 4], *edges, (2, 3, 0.5)))) == [[1, 2]]


def test_what_is_late_is_taken_besides_in_the_second_half_of_the_canvas() -> None:
    rule = DAPD(0.25, 0.75, 0.3, late=0.75)
    assert committed(rule(shown([0.875, 0.75, 0.25, None], (0, 1, 0.5)))) == [[0, 2]]
    assert committed(rule(shown([0.875, 0.75, None, None], (0, 1, 0.5)))) == [[0, 1]]


def test_what_is_certain_goes_at_any_time_and_holds_up_nothing() -> None:
    row: Row = [0.875, 0.5, 0.25]
    assert committed(RULE(shown(row, (0, 1, 0.5)))) == [[0, 2]]
    assert committed(DAPD(0.25, 0.75, 0.3, certain=0.875)(shown(row, (0, 1, 0.5)))) == [[0, 1, 2]]


def test_only_the_active_block_is_filled() -> None:
    assert committed(RULE(shown([0.25, 0.5, 0.9375, 0.9375], active=(0, 2)))) == [[0, 1]]


@pytest.mark.parametrize("rule", [RULE, DAPD(0.25, 0.75, 0.3, late=0.5, certain=0.875)])
def test_one_mask_alone_is_taken(rule: DAPD) -> None:
    assert committed(rule(shown([None, 0.03125, None]))) == [[1]]


def test_rules_that_differ_in_what_they_leave_out_are_not_stacked() -> None:
    assert DAPD(0.25, 0.75, 0.3, late=0.5).kind != DAPD(0.25, 0.75, 0.3, certain=0.5).kind
    assert DAPD(0.25, 0.75, 0.3, late=0.5).kind == DAPD(0.5, 0.75, 0.3, late=0.25).kind
