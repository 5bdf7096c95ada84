import pytest
from hypothesis import given

from dlmlab.decoder.hierarchy import Hierarchy
from dlmlab.errors import UserError
from tests.decoder.steps import Row, chances, committed, ordered, rows, step_of


def test_by_hand() -> None:
    """Runs are 0 to 1, 3 to 5 and 7; the surest of each that is above 0.25, and what is above 0.75."""
    row: Row = [0.5, 0.625, None, 0.875, 1.0, 0.375, None, 0.25]
    assert committed(Hierarchy(0.75, 0.25)(step_of([row]))) == [[1, 3, 4]]
    assert committed(Hierarchy(1.0, 1.0)(step_of([row]))) == [[4]], "the surest of all at any rate"


@given(rows, chances, chances)
def test_the_rule_as_it_is_written(row: Row, threshold: float, low: float) -> None:
    expected = {ordered(row)[0]}
    for position, c in enumerate(row):
        left = next((i for i in range(position, -1, -1) if row[i] is None), -1)
        right = next((i for i in range(position, len(row)) if row[i] is None), len(row))
        if c is not None and (c > threshold or (c > low and c == max(row[left + 1 : right]))):  # type: ignore[type-var]
            expected.add(position)
    assert committed(Hierarchy(threshold, low)(step_of([row]))) == [sorted(expected)]


def test_a_threshold_is_a_probability() -> None:
    with pytest.raises(UserError, match=r"low_threshold=2 is not a number between 0 and 1"):
        Hierarchy(0.9, 2)
