import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlmlab.decoder.factor import Factor
from dlmlab.errors import UserError
from tests.decoder.steps import Row, committed, ordered, rows, step_of


def test_by_hand() -> None:
    """(n + 1)(1 − c₍ₙ₎) is 0.125, 0.375, 1, 1.25: two positions are below 1, three at most 1; of all equal ones one."""
    row: Row = [0.75, 0.9375, None, 0.875, 0.75]
    assert committed(Factor(1.0)(step_of([row]))) == [[1, 3]]
    assert committed(Factor(1.125)(step_of([row]))) == [[0, 1, 3]]
    assert committed(Factor(0.0)(step_of([row]))) == [[1]]
    assert committed(Factor(1.0)(step_of([[1.0, 1.0, 1.0]]))) == [[0, 1, 2]]


@given(rows, st.integers(0, 80).map(lambda n: n / 32))
def test_the_largest_n_that_the_formula_allows(row: Row, f: float) -> None:
    order = ordered(row)
    allowed = [n for n in range(1, len(order) + 1) if (n + 1) * (1 - float(row[order[n - 1]] or 0)) < f]
    assert committed(Factor(f)(step_of([row]))) == [sorted(order[: max([1, *allowed])])]


def test_f_is_not_negative() -> None:
    with pytest.raises(UserError, match=r"f=-0.5 is not a number of at least 0"):
        Factor(-0.5)


def test_as_published_the_last_position_comes_along_and_the_bound_is_inclusive() -> None:
    """Thresholds 1 − 1 / (n + 1) are 0.5, 0.667, 0.75, 0.8; the published code takes what is at least that."""
    published = Factor(1.0, "published")
    assert committed(published(step_of([[0.75, 0.9375, None, 0.75, 0.25, 0.125]]))) == [[0, 1, 3]]
    assert committed(published(step_of([[0.75, 0.9375, None, 0.75, 0.25]]))) == [[0, 1, 3, 4]], "one fails: it too"
    assert committed(published(step_of([[0.0, None]]))) == [[0]]
