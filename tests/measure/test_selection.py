"""Choosing among settings: what is recommended has been confirmed on items that it was not picked on."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from dlmlab.errors import UserError
from dlmlab.measure.selection import ALPHA, Trial, choose, halves, items_to_confirm
from dlmlab.measure.stats import compare_right, noninferiority_p

N = 400


def trial(right, cost):
    return Trial(np.asarray(right, bool), np.full(len(right), cost))


def like(baseline, lost, cost, seed=0):
    """The baseline's answers, of which a share is lost at random."""
    spoilt = np.random.default_rng(seed).random(len(baseline.right)) < lost
    return Trial(baseline.right & ~spoilt, np.full(len(baseline.right), cost))


@pytest.fixture
def baseline():
    return trial(np.random.default_rng(9).random(N) < 0.9, 16)


def chosen(baseline, settings, margin=0.05, most=3):
    return choose(baseline, settings, *halves(N, 0.5, 0), margin, most)


def test_the_fastest_that_holds_is_chosen(baseline):
    settings = {"bad": like(baseline, 0.3, 2), "fast": like(baseline, 0.0, 4), "slow": like(baseline, 0.0, 8)}
    choice = chosen(baseline, settings)
    assert choice.chosen == "fast"
    assert choice.items_needed is None
    assert list(choice.confirmed) == ["fast"], "slow has no more right"


def test_a_setting_that_costs_more_is_never_chosen(baseline):
    assert chosen(baseline, {"slow": like(baseline, 0.0, 17)}).confirmed == {}


def test_a_setting_that_is_only_good_where_it_was_picked_is_not_chosen(baseline):
    first, second = halves(N, 0.5, 0)
    right = baseline.right.copy()
    right[second[::4]] = False
    choice = choose(baseline, {"lucky": trial(right, 2)}, first, second, 0.05, 3)
    assert list(choice.confirmed) == ["lucky"]
    assert choice.chosen is None
    assert choice.items_needed is None, "it loses more than the margin: more items would not help"


def test_a_slower_one_that_is_better_is_tested_too(baseline):
    choice = chosen(baseline, {"shaky": like(baseline, 0.05, 2), "sound": like(baseline, 0.0, 8)}, margin=0.06)
    assert list(choice.confirmed) == ["shaky", "sound"]
    assert choice.chosen == "sound"


def test_too_few_items_confirm_nothing_and_it_says_how_many_would(baseline):
    few = Trial(baseline.right[:40], baseline.cost[:40])
    choice = choose(few, {"same": Trial(few.right, few.cost // 2)}, *halves(40, 0.5, 0), 0.05, 3)
    assert choice.chosen is None
    assert choice.items_needed > 40
    many = Trial(np.resize(few.right, choice.items_needed + 2), np.resize(few.cost, choice.items_needed + 2))
    again = choose(many, {"same": Trial(many.right, many.cost // 2)}, *halves(len(many.right), 0.5, 0), 0.05, 3)
    assert again.chosen == "same"


def test_looking_at_more_settings_asks_for_more(baseline):
    first, second = halves(N, 0.5, 0)
    best = {"c": like(baseline, 0.0, 6)}
    three = {"a": like(baseline, 0.02, 4), "b": like(baseline, 0.01, 5), **best}
    alone, among = (choose(baseline, each, first, second, 0.05, 3).confirmed["c"] for each in (best, three))
    assert among == pytest.approx(3 * alone)


def test_settings_that_did_the_same_take_one_place(baseline):
    same = like(baseline, 0.02, 4)
    choice = chosen(baseline, {"a": same, "b": same, "c": like(baseline, 0.0, 5)}, most=2)
    assert set(choice.confirmed) == {"a", "c"}


def test_a_grid_of_bad_settings_is_seldom_recommended(monkeypatch):
    """18 settings that truly lose exactly the margin: one is confirmed in few of 60 calibrations."""
    monkeypatch.setattr(gc, "collect", lambda: 0)  # statsmodels calls it each time: a minute in a whole suite
    margin, wrong = 0.05, 0
    for seed in range(60):
        draw = np.random.default_rng(seed)
        baseline = trial(np.ones(N), 16)
        settings = {str(k): trial(draw.random(N) >= margin, 2 + k % 5) for k in range(18)}
        wrong += choose(baseline, settings, *halves(N, 0.5, seed), margin, 3).chosen is not None
    assert wrong <= 0.1 * 60


def test_the_halves_are_all_items_once():
    first, second = halves(11, 0.3, 0)
    assert len(first) == 3
    assert sorted([*first, *second]) == list(range(11))
    assert halves(2, 0.9, 0)[1].size == 1
    with pytest.raises(UserError, match="two items"):
        halves(1, 0.5, 0)


@pytest.mark.parametrize(("gained", "lost", "n"), [(0, 0, 50), (0, 0, 500), (3, 5, 200), (0, 9, 100), (7, 1, 80)])
def test_the_p_value_agrees_with_the_interval(gained, lost, n):
    baseline = [True] * lost + [False] * gained + [True] * (n - gained - lost)
    candidate = [False] * lost + [True] * gained + [True] * (n - gained - lost)
    passed = compare_right(baseline, candidate, 0.03).verdict == "pass"
    assert (noninferiority_p(gained, lost, n, 0.03) < ALPHA) == passed


def test_items_to_confirm_is_none_where_the_margin_is_lost():
    assert items_to_confirm(0, 5, 100, 0.05, ALPHA) is None
    assert items_to_confirm(0, 0, 1000, 0.05, ALPHA) == 1000
