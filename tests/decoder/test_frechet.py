import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlmlab.decoder.factor import Factor
from dlmlab.decoder.frechet import Frechet
from dlmlab.errors import UserError
from tests.decoder.steps import Row, chances, committed, ordered, rows, step_of


def test_by_hand() -> None:
    """The scores are 0.875, 0.6875, 0.3125, −0.0625, where the factor rule's are 0.875, 0.625, 0, −0.25."""
    row: Row = [0.75, 0.9375, None, 0.875, 0.75]
    assert committed(Frechet(0.25)(step_of([row]))) == [[0, 1, 3]]
    assert committed(Frechet(0.3125)(step_of([row]))) == [[1, 3]]
    assert committed(Factor(0.75)(step_of([row]))) == [[1, 3]]
    assert committed(Frechet(0.25)(step_of([[0.25, 0.25]]))) == [[0]]


@given(rows, chances)
def test_the_longest_prefix_that_the_formula_allows(row: Row, delta: float) -> None:
    order = ordered(row)
    c = [float(row[position] or 0) for position in order]
    allowed = [n for n in range(1, len(c) + 1) if max(0, sum(c[:n]) - (n - 1)) - (1 - c[n - 1]) > delta]
    assert committed(Frechet(delta)(step_of([row]))) == [sorted(order[: max([1, *allowed])])]


@given(chances, st.integers(1, 10), chances)
def test_of_equal_confidences_it_is_the_factor_rule(c: float, positions: int, delta: float) -> None:
    step = step_of([[c] * positions])
    assert committed(Frechet(delta)(step)) == committed(Factor(1 - delta)(step))


def test_delta_is_not_negative() -> None:
    with pytest.raises(UserError, match=r"delta=-0.5 is not a number of at least 0"):
        Frechet(-0.5)
