"""Whether an order holds, and what a score varies with, on scores whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from dlmlab.measure.factors import explained, split
from dlmlab.measure.ranking import compare_orders, flipped_share


def scores(rates: list[list[float]], items: int = 400) -> np.ndarray:
    """Items that a decoder gets right at these rates under each condition; the same items are the easy ones."""
    ease = (np.arange(items) * 0.618) % 1
    return (ease < np.array(rates)[..., None]).astype(float)


@pytest.mark.parametrize(
    ("rates", "verdict", "share"),
    [
        ([[0.3, 0.6], [0.4, 0.7]], "holds", 0.0),
        ([[0.3, 0.6], [0.6, 0.3]], "flips", 1.0),
        ([[0.5, 0.5], [0.5, 0.5]], "inconclusive", 0.0),
        ([[0.2, 0.5, 0.8], [0.2, 0.8, 0.5]], "flips", 1 / 3),
    ],
)
def test_orders_hold_or_flip(rates: list[list[float]], verdict: str, share: float) -> None:
    found = compare_orders(scores(rates), ["a", "b", "c"][: len(rates[0])])
    assert (found["verdict"], found["flipped"]["share"]) == (verdict, pytest.approx(share))


def test_few_items_decide_nothing() -> None:
    found = compare_orders(scores([[0.45, 0.55], [0.55, 0.45]], items=20), ["a", "b"])
    assert found["verdict"] == "inconclusive"
    assert found["flipped"]["ci_low"] <= found["flipped"]["share"] <= found["flipped"]["ci_high"]


def test_a_tie_is_no_flip() -> None:
    assert flipped_share(np.array([[0.5, 0.5], [0.4, 0.6]])) == 0.0


def test_the_variance_goes_to_the_factor_that_makes_it() -> None:
    first, second = split(scores([[0.2, 0.2], [0.8, 0.8]]), ["dtype", "seed"])
    assert first["explained"] == pytest.approx(1)
    assert second["explained"] == pytest.approx(0)
    assert (first["flipped"], second["flipped"]) == (pytest.approx(0.6, abs=0.01), 0.0)
    assert first["flipped_low"] < 0.6 < first["flipped_high"]


def test_equal_means_hide_items_that_flip() -> None:
    even, odd = np.arange(100) % 2 == 0, np.arange(100) % 2 == 1
    [row] = split(np.array([even, odd], dtype=float), ["batch_size"])
    assert row["flipped"] == 1.0
    assert row["explained"] is None


def test_main_effects_are_the_sums_of_squares() -> None:
    cell = np.array([[0.1, 0.3], [0.5, 0.9]])
    rows, columns = cell.mean(1) - cell.mean(), cell.mean(0) - cell.mean()
    expected = np.array([(rows**2).mean(), (columns**2).mean()]) / ((cell - cell.mean()) ** 2).mean()
    assert explained(cell) == pytest.approx(expected)
