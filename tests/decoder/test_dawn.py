from __future__ import annotations

import torch

from dlmlab.decoder.dawn import DAWN, independent
from dlmlab.rule import Step
from tests.decoder.steps import Row, committed, step_of

RULE = DAWN(threshold=0.875, tau_induced=0.5, tau_low=0.625, tau_edge=0.25, tau_sink=0.2, layers=4)
ROW: Row = [None, 0.5, 0.75, 0.75, 0.6875, 0.25, 0.9375, 0.25]


def shown(row: Row, *edges: tuple[int, int], sink: int | None = None, anchor: float = 0.9375) -> Step:
    """A step in which positions attend to others, and perhaps all to one; what is committed has c = `anchor`."""
    attention_BKK = torch.full((1, len(row), len(row)), 0.01, dtype=torch.float64)
    for query, key in edges:
        attention_BKK[0, query, key] = 0.5
    if sink is not None:
        attention_BKK[0, :, sink] = 0.3
    measure_BK = torch.tensor([[anchor if c is None else c for c in row]], dtype=torch.float64)
    active_BK = torch.ones(1, len(row), dtype=torch.bool)
    return step_of([row], attention_BKK=attention_BKK, measure_BK=measure_BK, active_BK=active_BK)


def test_what_is_sure_or_less_sure_and_apart_is_committed() -> None:
    assert committed(RULE(shown(ROW))) == [[2, 3, 4, 6]]


def test_what_hangs_on_an_anchor_needs_less() -> None:
    assert committed(RULE(shown(ROW, (1, 0)))) == [[1, 2, 3, 4, 6]]
    assert committed(RULE(shown(ROW, (0, 1)))) == [[2, 3, 4, 6]]  # the anchor hangs on it, not it on the anchor
    assert committed(RULE(shown(ROW, (1, 0), anchor=0.5))) == [[2, 3, 4, 6]]  # no anchor: it is not sure now
    assert committed(RULE(shown(ROW, (5, 0)))) == [[2, 3, 4, 6]]  # too unsure for that, too


def test_of_less_sure_positions_that_are_joined_the_surest_left_one_goes() -> None:
    assert committed(RULE(shown(ROW, (2, 3)))) == [[2, 4, 6]]
    assert committed(RULE(shown(ROW, (3, 2)))) == [[2, 4, 6]]
    assert committed(RULE(shown(ROW, (2, 3), (3, 4)))) == [[2, 4, 6]]  # once 3 is out, 4 is free


def test_what_is_joined_to_a_sure_or_induced_one_waits() -> None:
    assert committed(RULE(shown(ROW, (6, 2)))) == [[3, 4, 6]]
    assert committed(RULE(shown(ROW, (1, 0), (3, 1)))) == [[1, 2, 4, 6]]


def test_a_sink_joins_nothing() -> None:
    assert committed(RULE(shown(ROW, sink=2))) == [[2, 3, 4, 6]]


def test_only_the_active_block_is_filled_and_the_surest_of_it_where_nothing_else_is() -> None:
    step = shown([0.25, 0.375, 0.9375, 0.9375])
    step = step._replace(active_BK=torch.tensor([[True, True, False, False]]))
    assert committed(RULE(step)) == [[1]]


def test_an_independent_set_is_taken_from_the_highest_score_on() -> None:
    joined_BKK = torch.zeros(1, 4, 4, dtype=torch.bool)
    for one, other in ((0, 1), (1, 2), (2, 3)):
        joined_BKK[0, one, other] = joined_BKK[0, other, one] = True
    assert independent(joined_BKK, torch.tensor([[1.0, 3.0, 2.0, 0.5]])).tolist() == [[False, True, False, True]]
    assert independent(joined_BKK, torch.tensor([[1.0, -torch.inf, 2.0, 0.5]])).tolist() == [[True, False, True, False]]
