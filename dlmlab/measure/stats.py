"""Decide whether a difference is real: intervals and verdicts for comparisons on the same items.

A verdict follows from a 95 % interval and not from the point estimate: `pass` when the whole interval is on the good
side of the criterion, `fail` when the whole interval is on the bad side, `inconclusive` otherwise. The interval for
paired proportions is Tango's and not Bonett and Price's, since it stays honest where no pair differs: after 100 equal
pairs, a candidate that loses 3 points in truth is not ruled out (it shows no difference in 100 pairs 5 % of the time).
Tango allows 3.7 points then, Bonett and Price 2.7, a bootstrap none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sacrebleu.metrics.bleu import BLEU
from scipy.stats import binomtest, norm

Verdict = Literal["pass", "fail", "inconclusive"]

CONFIDENCE = 0.95
Z = float(norm.ppf(0.5 + CONFIDENCE / 2))
MIN_BOOTSTRAP_ITEMS = 20
"""Fewest texts for a verdict; resampling fewer says too little about the spread."""
MAX_ITEMS = 10_000_000
"""Most items that a comparison may ask for; no dataset is larger."""
BLEU_SMOOTHING = "exp"
"""sacreBLEU's default (method 3 of Chen and Cherry 2014): an order without a match counts half as much as the last.

Without smoothing the geometric mean is 0 as soon as no four tokens in a row agree, however many short texts are equal.
"""


class Interval(NamedTuple):
    """A 95 % confidence interval."""

    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """A candidate against a baseline on the same n items. Scores and their differences are fractions: 0.02 is 2 points.

    Attributes:
        baseline: The baseline's score; None where it is the reference.
        candidate: The candidate's score.
        difference: candidate - baseline; None where the baseline has no score.
        ci_low: Lower end of the 95 % interval.
        ci_high: Upper end of the 95 % interval.
        margin: The bound that the verdict asks for.
        point_pass: Whether the point estimate meets the criterion, whatever its uncertainty.
        verdict: `pass`, `fail` or `inconclusive`, by the interval.
        n: The number of items.
        items_to_decide: For an inconclusive verdict, the total number of items with which the interval would decide if
            the rates seen so far stayed as they are; None where they sit on the criterion itself or need more than
            MAX_ITEMS.
        mcnemar_p: McNemar's exact two-sided p value of the hypothesis that baseline and candidate are equally good;
            None for texts.
    """

    baseline: float | None
    candidate: float
    difference: float | None
    ci_low: float
    ci_high: float
    margin: float
    point_pass: bool
    verdict: Verdict
    n: int
    items_to_decide: int | None = None
    mcnemar_p: float | None = None


def compare_right(baseline: Sequence[bool], candidate: Sequence[bool], margin: float) -> Comparison:
    """Test whether the candidate is right as often as the baseline, less `margin` at most.

    Args:
        baseline: Whether each of the baseline's answers is right.
        candidate: Whether each of the candidate's is, for the same items in the same order.
        margin: The largest loss that counts as none, as a fraction.

    Raises:
        ValueError: The flags don't pair up.
    """
    n = _check_pairs(baseline, candidate)
    gained = sum(c and not b for b, c in zip(baseline, candidate, strict=True))
    lost = sum(b and not c for b, c in zip(baseline, candidate, strict=True))
    interval = paired_interval(gained, lost, n)
    verdict = judge(interval, -margin)

    def decides(items: int) -> bool:
        scaled = paired_interval(gained * items / n, lost * items / n, items)
        return judge(scaled, -margin) != "inconclusive"

    return Comparison(
        baseline=sum(baseline) / n,
        candidate=sum(candidate) / n,
        difference=(gained - lost) / n,
        ci_low=interval.low,
        ci_high=interval.high,
        margin=margin,
        point_pass=(gained - lost) / n >= -margin,
        verdict=verdict,
        n=n,
        items_to_decide=smallest(decides, above=n) if verdict == "inconclusive" else None,
        mcnemar_p=mcnemar_p(gained, lost),
    )


def compare_texts(
    baseline: Sequence[str], candidate: Sequence[str], threshold: float, seed: int = 0, resamples: int = 1000
) -> Comparison:
    """Test whether the candidate's texts are the baseline's, to a BLEU of `threshold` at least.

    The score is sacreBLEU's corpus score / 100 with the baseline as the reference, smoothed by BLEU_SMOOTHING, of the
    orders that the texts are long enough for; the interval is a percentile bootstrap over the texts (Koehn 2004).

    Args:
        baseline: The baseline's texts.
        candidate: The candidate's, for the same items in the same order.
        threshold: The least score, from 0 to 1.
        seed: The seed of the bootstrap.
        resamples: How many times the texts are resampled.

    Raises:
        ValueError: The texts don't pair up.
    """
    n = _check_pairs(baseline, candidate)
    counts = _bleu_counts(baseline, candidate)
    score = _bleu(counts.sum(axis=0))
    draws = np.random.default_rng(seed).integers(n, size=(resamples, n))
    scores = [_bleu(counts[draw].sum(axis=0)) for draw in draws]
    interval = Interval(*(float(end) for end in np.quantile(scores, [0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2])))
    verdict = judge(interval, threshold) if n >= MIN_BOOTSTRAP_ITEMS else "inconclusive"
    return Comparison(
        baseline=None,
        candidate=score,
        difference=None,
        ci_low=interval.low,
        ci_high=interval.high,
        margin=threshold,
        point_pass=score >= threshold,
        verdict=verdict,
        n=n,
        items_to_decide=_items_by_width(score, interval, threshold, n) if verdict == "inconclusive" else None,
    )


def judge(interval: Interval, bound: float) -> Verdict:
    """Return the verdict by the side of the bound that the interval is on: above is good.

    Args:
        interval: The interval of what is judged.
        bound: The bound, in the same unit.
    """
    if interval.low > bound:
        return "pass"
    return "fail" if interval.high < bound else "inconclusive"


def paired_interval(gained: float, lost: float, n: float) -> Interval:
    """Compute the score interval of the difference of two paired proportions (Tango 1998, Statistics in Medicine
    17:891).

    The interval holds the differences that a score test at 5 % does not reject.

    Args:
        gained: Pairs that only the candidate has right; need not be a whole number.
        lost: Pairs that only the baseline has right; likewise.
        n: All pairs.
    """
    return Interval(_lower_limit(gained, lost, n), -_lower_limit(lost, gained, n))


def noninferiority_p(gained: float, lost: float, n: float, margin: float) -> float:
    """Compute the one-sided p value of the hypothesis that the candidate loses `margin` or more, by Tango's score test.

    It is below 2.5 % exactly where `compare_right` says `pass`.

    Args:
        gained: Pairs that only the candidate has right; need not be a whole number.
        lost: Pairs that only the baseline has right; likewise.
        n: All pairs.
        margin: The largest loss that counts as none, as a fraction of the pairs.
    """
    excess, deviation = _score_test(-margin, gained, lost, n)
    return float(norm.sf(excess / deviation)) if deviation else float(excess <= 0)


def proportion_interval(right: int, n: int) -> Interval:
    """Compute Wilson's score interval of a proportion.

    Args:
        right: How many of the answers are right.
        n: All answers, at least one.
    """
    interval = binomtest(right, n).proportion_ci(CONFIDENCE, method="wilson")
    return Interval(float(interval.low), float(interval.high))


def mcnemar_p(gained: int, lost: int) -> float:
    """Compute McNemar's exact two-sided p value; 1 when no pair differs.

    Args:
        gained: Pairs that only the candidate has right.
        lost: Pairs that only the baseline has right.
    """
    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def _lower_limit(gained: float, lost: float, n: float) -> float:
    """Bisect for the smallest difference that the score test does not reject; the statistic falls as it grows."""
    rejected, kept = -1.0, (gained - lost) / n
    if not _too_small(rejected, gained, lost, n):
        return rejected
    while rejected < (middle := (rejected + kept) / 2) < kept:
        if _too_small(middle, gained, lost, n):
            rejected = middle
        else:
            kept = middle
    return kept


def _too_small(difference: float, gained: float, lost: float, n: float) -> bool:
    """Return whether the data reject a true difference as too small."""
    excess, deviation = _score_test(difference, gained, lost, n)
    return excess > Z * deviation


def _score_test(difference: float, gained: float, lost: float, n: float) -> tuple[float, float]:
    """Return by how many pairs the data exceed a true difference, and the standard deviation of that number.

    The standard deviation holds the share of lost pairs that is most likely given the difference: the positive root of
    2n q² + B q + C (Tango 1998, section 3).
    """
    spread = difference * (1 - difference)
    linear = (2 * n - gained + lost) * difference - gained - lost
    share = (math.sqrt(max(0.0, linear**2 + 8 * n * lost * spread)) - linear) / (4 * n)
    return gained - lost - n * difference, math.sqrt(max(0.0, n * (2 * share + spread)))


def smallest(decides: Callable[[int], bool], above: int) -> int | None:
    """Search the smallest number of items that decides, given that more items decide better.

    Args:
        decides: Says whether so many items would do.
        above: A number of items that wouldn't.

    Returns:
        The number; None where it would be looked for above MAX_ITEMS.
    """
    too_few, enough = above, 2 * above
    while not decides(enough):
        too_few, enough = enough, 2 * enough
        if enough > MAX_ITEMS:
            return None
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        if decides(middle):
            enough = middle
        else:
            too_few = middle
    return enough


def _items_by_width(score: float, interval: Interval, bound: float, n: int) -> int | None:
    """Return the number of items with which an interval that shrinks with the square root of n would clear the
    bound.
    """
    if score == bound:
        return None
    end = interval.low if score > bound else interval.high
    items = math.ceil(n * ((score - end) / (score - bound)) ** 2)
    return max(items, MIN_BOOTSTRAP_ITEMS) if items <= MAX_ITEMS else None


def _bleu_counts(references: Sequence[str], texts: Sequence[str]) -> NDArray[np.int64]:
    """Count what corpus BLEU is made of: for each text the matches and totals of 4 orders, and 2 lengths."""
    metric = BLEU(effective_order=True)  # what smoothing it takes makes no difference to the counts
    scores = [metric.sentence_score(text, [reference]) for text, reference in zip(texts, references, strict=True)]
    return np.array([[*score.counts, *score.totals, score.sys_len, score.ref_len] for score in scores])


def _bleu(counts: NDArray[np.int64]) -> float:
    """Compute corpus BLEU from 0 to 1. Effective order only matters where every text is shorter than four tokens."""
    *ngrams, text_length, reference_length = counts.tolist()
    lengths = {"sys_len": text_length, "ref_len": reference_length}
    score = BLEU.compute_bleu(ngrams[:4], ngrams[4:], **lengths, smooth_method=BLEU_SMOOTHING, effective_order=True)
    return min(1.0, score.score / 100)


def _check_pairs(baseline: Sequence[object], candidate: Sequence[object]) -> int:
    if not len(baseline) == len(candidate) > 0:
        raise ValueError(f"{len(baseline)} baseline results and {len(candidate)} candidate results don't pair up")
    return len(baseline)
