import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dlmlab.decoder.topk import longest_prefix, top_k
from dlmlab.rule import Decision
from tests.decoder.steps import Row, committed, ordered, quotas, rows, tensor


def positions(mask_BK: torch.Tensor) -> list[list[int]]:
    return committed(Decision(mask_BK))


def test_ties_go_to_the_leftmost_place() -> None:
    score_BK = tensor([[0.5, 0.75, 0.5, None, 0.75], [0.25, 0.25, 0.25, 0.25, 0.25]])
    assert positions(top_k(score_BK, 3)) == [[0, 1, 4], [0, 1, 2]]
    assert positions(top_k(score_BK, torch.tensor([[1], [9]]))) == [[1], [0, 1, 2, 3, 4]]
    assert positions(top_k(score_BK, 9)) == [[0, 1, 2, 4], [0, 1, 2, 3, 4]]


def test_ties_of_many_places_too() -> None:
    """Sorting keeps the order of equals by itself only where they are few."""
    score_BK = (torch.arange(1000) % 3).expand(2, -1).float()
    assert positions(top_k(score_BK, 7)) == [list(range(2, 21, 3))] * 2


@given(st.lists(rows, min_size=1, max_size=4), quotas)
def test_top_k_is_the_front_of_the_order(several: list[Row], quota: int) -> None:
    width = max(map(len, several))
    padded = [[*row, *[None] * (width - len(row))] for row in several]
    assert positions(top_k(tensor(padded), quota)) == [sorted(ordered(row)[:quota]) for row in padded]


@pytest.mark.parametrize(
    ("holds", "expected"),
    [([1, 1, 0, 0], [1, 3]), ([0, 0, 0, 0], [3]), ([1, 0, 1, 0], [0, 1, 3]), ([1, 1, 1, 1], [0, 1, 3])],
)
def test_the_longest_prefix_that_holds(holds: list[int], expected: list[int]) -> None:
    score_BK = tensor([[0.25, 0.5, None, 0.75]])
    assert positions(longest_prefix(score_BK, torch.tensor([holds]).bool())) == [expected]
