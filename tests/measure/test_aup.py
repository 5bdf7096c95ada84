"""Accuracy under parallelism, against its definition worked out by hand."""

from __future__ import annotations

import math

import pytest

from dlmlab.measure.aup import aup


def test_without_a_loss_it_is_the_area_under_the_curve():
    assert aup([(1, 80), (3, 80), (4, 80)], best=80) == pytest.approx(4 * 80)


def test_what_is_lost_weighs_less():
    expected = 1 * 80 + (4 - 1) * (78 * math.exp(-3 * (1 - 78 / 80)) + 80) / 2
    assert aup([(4, 78), (1, 80)], best=80) == pytest.approx(expected)


def test_the_first_pair_counts_whole_and_its_weight_is_that_of_the_best_accuracy():
    weighted = [y * math.exp(-3 * (1 - y / 90)) for y in (80, 85)]
    assert aup([(2, 80), (3, 85)], best=90) == pytest.approx(2 * 80 + sum(weighted) / 2)


def test_a_pair_more_than_five_points_below_the_first_does_not_count():
    assert aup([(1, 80), (9, 74.9)], best=80) == 80
    assert aup([(1, 80), (9, 75)], best=80) > 80
    assert aup([(1, 80), (2, 60), (3, 80)], best=80) == pytest.approx(3 * 80)


def test_nothing_weighs_more_than_one():
    assert aup([(1, 80), (2, 90)], best=80) == pytest.approx(80 + 85)


def test_of_equal_parallelism_the_most_accurate_counts():
    assert aup([(1, 70), (1, 80)], best=80) == 80
    with pytest.raises(ValueError, match="no pair"):
        aup([], best=80)
