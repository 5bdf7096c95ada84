from __future__ import annotations

import torch

from dlmlab.decoder.lopa import LoPA
from dlmlab.decoder.threshold import Threshold
from dlmlab.denoise import denoise
from dlmlab.rule import Candidates, Decision
from dlmlab.types import Generation, Request
from tests.decoder.steps import Row, committed, step_of, tensor
from tests.fakes import FakeModel

OWN = [-1, -1, -1, -1]
NONE: Row = [None] * 4


def decided(filled: list[list[int]], tokens: list[list[int]], rows: list[Row], branches: int = 2) -> Decision:
    candidates = Candidates(torch.tensor([filled]), torch.tensor([tokens]), tensor(rows)[None])
    return LoPA(0.75, branches)(step_of([rows[0]], candidates=candidates))


def test_the_surest_positions_that_a_step_leaves_become_branches() -> None:
    first = decided([OWN] * 3, [[5, 6, 7, 8]] * 3, [[0.5, 0.25, 0.75, 0.125], NONE, NONE])
    assert (committed(first), first.token_BK.tolist()) == ([[2]], [[-1, -1, 7, -1]])
    assert first.draft_BCK.tolist() == [[[5, -1, -1, -1], [-1, 6, -1, -1]]]


def test_the_branch_whose_masks_are_surest_on_average_becomes_the_row() -> None:
    filled = [OWN, [5, -1, -1, -1], [-1, 6, -1, -1]]
    tokens = [[1, 1, 1, 1], [2, 2, 2, 2], [3, 3, 3, 3]]
    rows: list[Row] = [[0.5, 0.5, None, 0.5], [None, 0.25, None, 0.25], [0.5, None, None, 0.8125]]
    found = decided(filled, tokens, rows)
    assert (committed(found), found.token_BK.tolist()) == ([[1, 3]], [[-1, 6, -1, 3]])
    assert found.draft_BCK.tolist() == [[[3, -1, -1, -1], [-1, -1, -1, -1]]]


def test_of_equal_branches_the_row_itself_is_kept() -> None:
    filled = [OWN, [5, -1, -1, -1], OWN]
    rows: list[Row] = [[0.5, 0.5, None, None], [None, 0.5, None, None], NONE]
    found = decided(filled, [[1, 2, 0, 0], [0, 9, 0, 0], [0, 0, 0, 0]], rows)
    assert (committed(found), found.token_BK.tolist()) == ([[0]], [[1, -1, -1, -1]])


def test_more_branches_than_positions() -> None:
    found = decided([OWN] * 6, [[5, 6, 7, 8]] * 6, [[0.5, 0.25, None, None], *[NONE] * 5], branches=5)
    assert found.draft_BCK.shape == (1, 5, 4)
    assert (found.draft_BCK >= 0).sum() == 1


def test_every_branch_of_a_pass_is_paid_for() -> None:
    """The model never changes its mind, so that every branch leads to the same answer."""
    model, generation = FakeModel(fixed=[float(n % 7) for n in range(23)]), Generation(12, 6, 12)
    plain, ahead = (
        next(iter(denoise(model, [Request(0, (1, 2), rule)], generation, 1)))
        for rule in (Threshold(0.99), LoPA(0.99, 2))
    )
    assert ahead.tokens == plain.tokens
    assert ahead.forwards <= plain.forwards == 12
    assert ahead.positions > 14 * ahead.forwards  # of a row of 14, whose branches at times fill their block
