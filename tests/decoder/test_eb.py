import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dlmlab.decoder.eb import EB
from dlmlab.errors import UserError
from tests.decoder.steps import Row, chances, committed, ordered, rows, step_of, tensor

ROW: Row = [0.5, 0.75, None, 0.625, 0.25]
CERTAINTY: Row = [-0.5, -0.25, None, -1.0, -0.125]


def test_by_hand() -> None:
    """By confidence the entropies are 0.25, 1, 0.5, 0.125, so the bounds are 0, 0.25, 0.75, 0.875."""
    for gamma, expected in ((0.0, [1]), (0.25, [1, 3]), (0.7, [1, 3]), (0.75, [0, 1, 3]), (0.875, [0, 1, 3, 4])):
        assert committed(EB(gamma)(step_of([ROW], measure_BK=tensor([CERTAINTY])))) == [expected]


def test_a_row_is_bounded_by_itself() -> None:
    doubtful: Row = [None if h is None else h * 8 for h in CERTAINTY]
    step = step_of([ROW, ROW], measure_BK=tensor([CERTAINTY, doubtful]))
    assert committed(EB(0.75)(step)) == [[0, 1, 3], [1]]


def test_what_is_certain_costs_nothing() -> None:
    step = step_of([[1.0, 1.0, 0.5, 1.0]], measure_BK=tensor([[0.0, 0.0, -1.0, 0.0]]))
    assert committed(EB(0.0)(step)) == [[0, 1, 2, 3]]


@given(rows, chances, st.data())
def test_the_largest_k_that_the_formula_allows(row: Row, gamma: float, data: st.DataObject) -> None:
    entropy: Row = [None if c is None else data.draw(chances) for c in row]
    order = ordered(row)
    h = [float(entropy[position] or 0) for position in order]
    allowed = [k for k in range(1, len(h) + 1) if sum(h[:k]) - max(h[:k]) <= gamma]
    step = step_of([row], measure_BK=tensor([[None if e is None else -e for e in entropy]]))
    assert committed(EB(gamma)(step)) == [sorted(order[: max(allowed)])]


def test_gamma_is_not_negative() -> None:
    with pytest.raises(UserError, match=r"gamma=-1 is not a number of at least 0"):
        EB(-1)


@given(rows, chances, st.data(), st.sampled_from(["entropy", "margin"]))
def test_another_proxy_orders_the_positions_and_leaves_the_bound(
    row: Row, gamma: float, data: st.DataObject, proxy: str
) -> None:
    entropy, lead = ([None if c is None else data.draw(chances) for c in row] for _ in range(2))
    certainty: Row = [None if e is None else -e for e in entropy]
    score: Row = certainty if proxy == "entropy" else lead
    order = ordered(score)
    h = [float(entropy[position] or 0) for position in order]
    allowed = [k for k in range(1, len(h) + 1) if sum(h[:k]) - max(h[:k]) <= gamma]
    measure = tensor([certainty])
    if proxy == "margin":
        measure = torch.stack((measure, tensor([lead])), -1)
    assert committed(EB(gamma, proxy)(step_of([row], measure_BK=measure))) == [sorted(order[: max(allowed)])]


def test_a_proxy_is_one_of_three() -> None:
    with pytest.raises(UserError, match="error_proxy='entrpy' is not one of .*; did you mean entropy"):
        EB(0.1, "entrpy")
