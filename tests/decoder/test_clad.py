from __future__ import annotations

import torch

from dlmlab.decoder.clad import CLAD, run_of
from dlmlab.rule import Step
from tests.decoder.steps import committed, step_of

RULE = CLAD(threshold=0.5, conflict=1.2, layers=4)
ROW = [0.75, 0.75, 0.25, 0.75, 0.25, 0.75, 0.75, None]
"""Three runs: positions 0 and 1, position 3, positions 5 and 6."""


def with_attention(*edges: tuple[int, int, float]) -> Step:
    """A step in which one position gives another so much attention, and all others give each other 0.01."""
    attention_BKK = torch.full((1, len(ROW), len(ROW)), 0.01, dtype=torch.float64)
    for query, key, value in edges:
        attention_BKK[0, query, key] = value
    return step_of([ROW], attention_BKK=attention_BKK)


def test_of_three_runs_only_those_that_are_each_others_strongest_partner_conflict() -> None:
    step = with_attention((0, 3, 0.02), (0, 5, 0.021), (3, 6, 0.022))
    assert committed(RULE(step)) == [[0, 1, 5, 6]]  # positions 3 and 6, however little it is


def test_of_two_that_conflict_the_longer_is_committed_and_of_equals_the_left_one() -> None:
    assert committed(RULE(with_attention((3, 0, 0.5)))) == [[0, 1, 5, 6]]
    assert committed(RULE(with_attention((5, 0, 0.5)))) == [[0, 1, 3]]


def test_attention_counts_in_both_directions_and_by_its_mean_over_a_run() -> None:
    assert committed(RULE(with_attention((0, 3, 0.5)))) == committed(RULE(with_attention((3, 0, 0.5))))
    # 0.4 to one of two positions is 0.2 on average: less than the 0.3 that one position gives the other run's only one
    assert committed(RULE(with_attention((3, 0, 0.4), (3, 5, 0.7)))) == [[0, 1, 5, 6]]


def test_of_just_two_runs_the_constant_decides() -> None:
    row = [0.75, None, 0.75, None]
    for given, expected in ((0.29, [[0, 2]]), (0.31, [[0]])):  # 1.2 / 4 is 0.3
        attention_BKK = torch.zeros(1, 4, 4, dtype=torch.float64)
        attention_BKK[0, 2, 0] = given
        assert committed(RULE(step_of([row], attention_BKK=attention_BKK))) == expected


def test_where_nothing_is_sure_the_surest_goes_alone() -> None:
    attention_BKK = torch.full((1, 3, 3), 0.3, dtype=torch.float64)
    assert committed(RULE(step_of([[0.25, 0.375, None]], attention_BKK=attention_BKK))) == [[1]]


def test_runs_are_numbered_from_the_left() -> None:
    member_BK = torch.tensor([[True, True, False, True], [False, True, False, True]])
    assert run_of(member_BK)[member_BK].tolist() == [0, 0, 1, 0, 1]
