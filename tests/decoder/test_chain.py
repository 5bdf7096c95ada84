from __future__ import annotations

import pytest
import torch

from dlmlab.decoder.baseline import Baseline
from dlmlab.decoder.chain import Chain
from dlmlab.decoder.eb import EB
from dlmlab.decoder.localleap import LocalLeap
from dlmlab.decoder.threshold import Threshold
from dlmlab.denoise import denoise
from dlmlab.errors import UserError
from dlmlab.rule import Candidates, Decision, Rule
from dlmlab.types import Generation, Request
from tests.decoder.steps import Row, committed, step_of, tensor
from tests.fakes import FakeModel

OWN = [-1, -1, -1, -1]
NONE: Row = [None] * 4


def decided(filled: list[list[int]], tokens: list[list[int]], rows: list[Row], least: float = 0.0) -> Decision:
    candidates = Candidates(torch.tensor([filled]), torch.tensor([tokens]), tensor(rows)[None])
    return Chain(len(rows) - 1, least, rule=Threshold(0.75))(step_of([rows[0]], candidates=candidates))


def test_the_surest_positions_that_a_step_leaves_become_a_chain() -> None:
    first = decided([OWN] * 3, [[5, 6, 7, 8]] * 3, [[0.5, 0.25, 0.75, 0.125], NONE, NONE])
    assert (committed(first), first.token_BK.tolist()) == ([[2]], [[-1, -1, 7, -1]])
    assert first.draft_BCK.tolist() == [[[5, -1, -1, -1], [5, 6, -1, -1]]]


def test_the_last_draft_that_comes_true_becomes_the_row() -> None:
    filled = [OWN, [5, -1, -1, -1], [5, 6, -1, -1]]
    rows: list[Row] = [[0.5, 0.25, None, 0.125], [None, 0.5, None, 0.25], [None, None, None, 0.5]]
    both = decided(filled, [[5, 9, 0, 9], [0, 6, 0, 9], [0, 0, 0, 3]], rows)
    assert (committed(both), both.token_BK.tolist()) == ([[0, 1, 3]], [[5, 6, -1, 3]])
    one = decided(filled, [[5, 9, 0, 9], [0, 4, 0, 9], [0, 0, 0, 3]], rows)
    assert (committed(one), one.token_BK.tolist()) == ([[0, 1]], [[5, 4, -1, -1]])
    assert one.draft_BCK.tolist() == [[[-1, -1, -1, 9], [-1, -1, -1, 9]]]


def test_a_draft_that_does_not_come_true_takes_those_behind_it_along() -> None:
    filled = [OWN, [5, -1, -1, -1], [5, 6, -1, -1]]
    rows: list[Row] = [[0.5, 0.25, None, 0.125], [None, 0.5, None, 0.25], [None, None, None, 0.5]]
    found = decided(filled, [[4, 9, 0, 9], [0, 6, 0, 9], [0, 0, 0, 3]], rows)
    assert (committed(found), found.token_BK.tolist()) == ([[0]], [[4, -1, -1, -1]])


def test_a_guess_of_too_little_confidence_is_not_kept() -> None:
    """The second is sure enough only once the first is filled in, and that is the canvas that counts."""
    filled = [OWN, [5, -1, -1, -1], [5, 6, -1, -1]]
    rows: list[Row] = [[0.5, 0.125, None, 0.125], [None, 0.25, None, 0.25], [None, None, None, 0.5]]
    tokens = [[5, 9, 0, 9], [0, 6, 0, 9], [0, 0, 0, 3]]
    kept = [committed(decided(filled, tokens, rows, least)) for least in (0.0, 0.25, 0.375, 0.625)]
    assert kept == [[[0, 1, 3]], [[0, 1, 3]], [[0, 1]], [[0]]]


def test_drafts_that_are_not_there_come_never_true() -> None:
    found = decided([OWN, OWN, OWN], [[4, 9, 0, 9], [0, 6, 0, 9], [0, 0, 0, 3]], [[0.5, 0.25, None, 0.75], NONE, NONE])
    assert (committed(found), found.token_BK.tolist()) == ([[3]], [[-1, -1, -1, 9]])


def test_where_the_model_never_changes_its_mind_each_pass_takes_the_whole_chain() -> None:
    model, generation = FakeModel(fixed=[float(n % 7) for n in range(23)]), Generation(12, 12, 12)
    plain, chained = (
        next(iter(denoise(model, [Request(0, (1, 2), rule)], generation, 1)))
        for rule in (Threshold(0.99), Chain(2, rule=Threshold(0.99)))
    )
    assert chained.tokens == plain.tokens
    assert plain.forwards == 12
    assert chained.forwards == 5  # one position, then three a pass: what would fill the canvas is no draft
    assert chained.positions == 14 * (1 + 3 + 3 + 3 + 2)


@pytest.mark.parametrize("rule", [Baseline(), EB(0.1), LocalLeap(0.9, 0.75, 4)])
def test_a_rule_that_asks_for_more_than_confidences_is_refused(rule: Rule) -> None:
    with pytest.raises(UserError, match=f"rule={type(rule).__name__} asks for more than tokens and confidences"):
        Chain(2, rule=rule)
