"""Intervals hold what they promise, and verdicts follow from them."""

import functools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sacrebleu.metrics.bleu import BLEU
from scipy.optimize import minimize_scalar

from dlmlab.measure.stats import (
    Comparison,
    Interval,
    Z,
    compare_right,
    compare_texts,
    judge,
    mcnemar_p,
    paired_interval,
    proportion_interval,
)


def flags(right: int, n: int) -> list[bool]:
    return [True] * right + [False] * (n - right)


def test_paired_interval_agrees_with_the_literature() -> None:
    """Airway reactivity, 21 children (Fagerland, Lydersen and Laake 2014, Statistics in Medicine 33:2850)."""
    assert paired_interval(gained=1, lost=7, n=21) == pytest.approx((-0.517, -0.026), abs=5e-4)


@pytest.mark.parametrize("n", [1, 20, 100, 500])
def test_equal_pairs_have_the_width_of_the_closed_form(n: int) -> None:
    width = Z**2 / (n + Z**2)
    assert paired_interval(0, 0, n) == pytest.approx((-width, width))


def test_every_pair_lost_or_gained_reaches_the_end_of_the_scale() -> None:
    assert paired_interval(0, 30, 30).low == -1.0
    assert -1.0 < paired_interval(0, 30, 30).high < -0.7
    assert paired_interval(30, 0, 30).high == 1.0


@given(st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(1, 400)).filter(lambda bcn: bcn[0] + bcn[1] > 0))
def test_interval_ends_where_the_score_test_rejects(counts: tuple[int, int, int]) -> None:
    """The nuisance share is found here by maximising the likelihood numerically instead of by its quadratic."""
    gained, lost, same = counts
    n = gained + lost + same
    for end in (interval := paired_interval(gained, lost, n)):

        def unlikely(lost_share: float, end: float = end) -> float:
            shares = (lost_share + end, lost_share, 1 - 2 * lost_share - end)
            pairs = zip((gained, lost, same), shares, strict=True)
            return -sum(count * math.log(share) for count, share in pairs if count)

        low, high = max(0.0, -end), (1 - end) / 2
        share = minimize_scalar(unlikely, bounds=(low + 1e-12, high - 1e-12), options={"xatol": 1e-12}).x
        deviation = (gained - lost - n * end) / math.sqrt(n * (2 * share + end - end**2))
        assert abs(deviation) == pytest.approx(Z, rel=1e-3)
    assert interval.low < (gained - lost) / n < interval.high


def test_interval_is_antisymmetric() -> None:
    low, high = paired_interval(3, 9, 80)
    assert paired_interval(9, 3, 80) == pytest.approx((-high, -low))


@pytest.mark.parametrize("n", [20, 100, 500])
@pytest.mark.parametrize("rates", [(0.1, 0.1), (0.5, 0.5), (0.5, 0.45), (0.9, 0.8), (0.98, 0.98), (0.1, 0.08)])
@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
def test_coverage_by_simulation(n: int, rates: tuple[float, float], correlation: float) -> None:
    """Of 2,000 simulated comparisons about 95 % of the intervals hold the truth, and few miss it on either side.

    A margin equal to the true loss makes the left tail the rate of false passes, nominally 2.5 %.
    """
    base, cand = rates
    both = base * cand + correlation * math.sqrt(base * (1 - base) * cand * (1 - cand))
    both = min(both, base, cand)
    draws = np.random.default_rng(1).multinomial(n, [cand - both, base - both, 1 - base - cand + 2 * both], size=2000)
    interval = functools.cache(paired_interval)
    ends = np.array([interval(int(gained), int(lost), n) for gained, lost, _ in draws])
    false_pass = np.mean(ends[:, 0] > cand - base)
    false_fail = np.mean(ends[:, 1] < cand - base)
    assert false_pass < 0.04
    assert false_fail < 0.055
    assert false_pass + false_fail < 0.08


def test_wilson_interval() -> None:
    assert proportion_interval(0, 20) == pytest.approx((0.0, Z**2 / (20 + Z**2)))
    assert proportion_interval(10, 20) == pytest.approx((0.299, 0.701), abs=1e-3)


def test_mcnemar() -> None:
    assert mcnemar_p(0, 0) == 1.0
    assert mcnemar_p(0, 1) == 1.0
    assert mcnemar_p(0, 6) == pytest.approx(2 / 2**6)


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [
        (Interval(-0.019, 0.5), "pass"),
        (Interval(-0.02, 0.5), "inconclusive"),
        (Interval(-0.5, -0.02), "inconclusive"),
        (Interval(-0.5, -0.021), "fail"),
        (Interval(0.1, 0.2), "pass"),
    ],
)
def test_judge(interval: Interval, verdict: str) -> None:
    assert judge(interval, -0.02) == verdict


def test_one_problem_of_twenty_lost_is_inconclusive() -> None:
    result = compare_right(flags(2, 20), flags(1, 20), margin=0.02)
    assert (result.baseline, result.candidate, result.difference) == (0.1, 0.05, -0.05)
    assert result.verdict == "inconclusive"
    assert not result.point_pass
    assert result.mcnemar_p == 1.0


def test_twenty_equal_pairs_cannot_show_two_points() -> None:
    result = compare_right(flags(2, 20), flags(2, 20), margin=0.02)
    assert result.verdict == "inconclusive"
    assert result.point_pass
    assert result.items_to_decide == 189


@pytest.mark.parametrize(("n", "margin"), [(500, 0.01), (250, 0.02)])
def test_enough_equal_pairs_pass(n: int, margin: float) -> None:
    result = compare_right(flags(n // 2, n), flags(n // 2, n), margin)
    assert result.verdict == "pass"
    assert result.items_to_decide is None


def test_a_clear_loss_fails() -> None:
    assert compare_right(flags(250, 500), flags(200, 500), margin=0.01).verdict == "fail"


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60), st.floats(0, 0.2))
def test_an_improvement_is_never_a_failure(pairs: list[tuple[bool, bool]], margin: float) -> None:
    baseline, candidate = zip(*pairs, strict=True)
    result = compare_right(baseline, candidate, margin)
    if sum(candidate) >= sum(baseline):
        assert result.verdict != "fail"
        assert result.point_pass
    assert result.ci_low <= (result.difference or 0.0) <= result.ci_high


@pytest.mark.parametrize(("baseline", "candidate"), [(2, 1), (2, 2), (6, 8)])
def test_items_to_decide_is_the_smallest_number_that_decides(baseline: int, candidate: int) -> None:
    result = compare_right(flags(baseline, 20), flags(candidate, 20), margin=0.02)
    items = result.items_to_decide
    assert items is not None
    gained, lost = max(0, candidate - baseline) / 20, max(0, baseline - candidate) / 20
    assert judge(paired_interval(gained * items, lost * items, items), -0.02) != "inconclusive"
    assert judge(paired_interval(gained * (items - 1), lost * (items - 1), items - 1), -0.02) == "inconclusive"


def test_no_number_of_items_decides_on_the_margin_itself() -> None:
    result = compare_right(flags(50, 100), flags(48, 100), margin=0.02)
    assert result.point_pass
    assert (result.verdict, result.items_to_decide) == ("inconclusive", None)


def test_results_that_do_not_pair_up_are_refused() -> None:
    with pytest.raises(ValueError, match="2 baseline results and 1 candidate results"):
        compare_right([True, False], [True], margin=0.01)
    with pytest.raises(ValueError, match="don't pair up"):
        compare_texts([], [], threshold=0.5)


WORDS = ["red", "green", "blue", "one", "two", "three", "north", "south", "run", "walk", "fast", "slow"]


def corpus(rng: np.random.Generator, n: int, kept: float) -> tuple[list[str], list[str]]:
    """Texts of 10 to 30 words, and copies in which a share of the words is kept."""
    texts = [rng.choice(WORDS, size=rng.integers(10, 31)) for _ in range(n)]
    copies = [np.where(rng.random(len(text)) < kept, text, rng.choice(WORDS, size=len(text))) for text in texts]
    return [" ".join(text) for text in texts], [" ".join(copy) for copy in copies]


def test_bleu_is_sacrebleus_corpus_score() -> None:
    baseline, candidate = corpus(np.random.default_rng(0), 50, kept=0.8)
    result = compare_texts(baseline, candidate, threshold=0.5)
    assert result.candidate == pytest.approx(BLEU().corpus_score(candidate, [baseline]).score / 100)
    assert result.ci_low < result.candidate < result.ci_high
    assert (result.baseline, result.difference, result.mcnemar_p) == (None, None, None)


@pytest.mark.parametrize(
    ("same", "other", "short"),
    [
        (59, ("The sum is twelve today", "The sum is eleven today"), "Four plums"),
        (19, ("a b c d e", "a x c y e"), "No"),
    ],
)
def test_bleu_of_short_texts_is_smoothed_as_sacrebleu_smooths(same: int, other: tuple[str, str], short: str) -> None:
    """No four tokens in a row agree anywhere, and yet nearly every text is equal."""
    baseline, candidate = [short] * same + [other[0]], [short] * same + [other[1]]
    result = compare_texts(baseline, candidate, threshold=0.5)
    expected = BLEU(smooth_method="exp", effective_order=True).corpus_score(candidate, [baseline]).score / 100
    assert result.candidate == pytest.approx(expected)
    assert 0 < result.ci_low <= result.candidate < result.ci_high


def test_bleu_interval_follows_the_seed() -> None:
    baseline, candidate = corpus(np.random.default_rng(0), 50, kept=0.8)
    results: list[Comparison] = [compare_texts(baseline, candidate, threshold=0.5, seed=seed) for seed in (1, 1, 2)]
    assert results[0] == results[1] != results[2]


def test_bleu_coverage_by_simulation() -> None:
    """A percentile bootstrap over 50 texts holds the truth somewhat less often than 95 %."""
    rng = np.random.default_rng(3)
    everything = corpus(rng, 5000, kept=0.85)
    truth = compare_texts(*everything, threshold=0.5, resamples=1).candidate
    held = 0
    for start in range(0, 5000, 50):
        baseline, candidate = (texts[start : start + 50] for texts in everything)
        result = compare_texts(baseline, candidate, threshold=0.5, resamples=300)
        held += result.ci_low <= truth <= result.ci_high
    assert held >= 88


@pytest.mark.parametrize(("kept", "verdict"), [(1.0, "pass"), (0.5, "fail"), (0.72, "inconclusive")])
def test_bleu_verdict(kept: float, verdict: str) -> None:
    result = compare_texts(*corpus(np.random.default_rng(0), 50, kept), threshold=0.5)
    assert result.verdict == verdict
    assert result.point_pass == (result.candidate >= 0.5)
    assert (result.items_to_decide is not None) == (verdict == "inconclusive")


def test_too_few_texts_are_inconclusive_even_when_equal() -> None:
    texts = corpus(np.random.default_rng(0), 19, kept=1.0)
    result = compare_texts(*texts, threshold=0.5)
    assert (result.candidate, result.verdict, result.items_to_decide) == (1.0, "inconclusive", 20)
    assert result.point_pass


def test_equal_texts_shorter_than_four_tokens_are_equal() -> None:
    assert compare_texts(["two words"] * 50, ["two words"] * 50, threshold=0.5).candidate == 1.0


def test_empty_texts_score_nothing() -> None:
    assert compare_texts(["some text"] * 50, [""] * 50, threshold=0.5).verdict == "fail"
