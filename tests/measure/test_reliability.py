"""Reliability by bins, against the definition."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dlmlab.measure.reliability import reliability


def test_bins_and_error_are_those_of_the_definition() -> None:
    found = reliability([0.95, 1.0, 0.55, 0.51, 0.59, 0.0], [True, False, True, True, False, False])
    assert [each.n for each in found.bins] == [1, 3, 2]
    assert found.bins[1].confidence == pytest.approx(0.55)
    assert found.bins[1].right == pytest.approx(2 / 3)
    expected = (1 * 0 + 3 * abs(0.55 - 2 / 3) + 2 * abs(0.975 - 0.5)) / 6
    assert found.error == pytest.approx(expected)
    assert (found.n, found.right) == (6, pytest.approx(0.5))


def test_a_calibrated_forecaster_has_no_error_and_a_sure_one_that_is_wrong_has_all() -> None:
    rng = np.random.default_rng(0)
    confidences = rng.random(20000)
    assert reliability(list(confidences), list(rng.random(20000) < confidences)).error < 0.02
    assert reliability([1.0] * 5, [False] * 5).error == 1


def test_nothing_has_no_figures() -> None:
    found = reliability([], [])
    assert found.n == 0
    assert math.isnan(found.error)
    assert found.bins == []
