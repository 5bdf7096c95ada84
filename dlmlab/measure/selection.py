"""Choose one of many settings without fooling oneself: shortlist on some items, confirm on the others."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from statsmodels.stats.multitest import multipletests

from dlmlab.errors import UserError
from dlmlab.measure.stats import CONFIDENCE, noninferiority_p, smallest

ALPHA = (1 - CONFIDENCE) / 2
"""Level of a one-sided test that agrees with the interval."""

Places = NDArray[np.int64]


class Trial(NamedTuple):
    """The answers of a setting, in the order of the items.

    Attributes:
        right: Whether each answer is right.
        cost: The forward passes of each.
    """

    right: NDArray[np.bool_]
    cost: NDArray[np.int64]

    def only(self, places: Places) -> Trial:
        """Return the answers to some of the items."""
        return Trial(self.right[places], self.cost[places])


class Choice(NamedTuple):
    """The choice that the items support.

    Attributes:
        confirmed: For each setting of the shortlist the p value that confirms it, corrected for their number.
        chosen: The fastest setting that is confirmed; None where none is.
        items_needed: Where none is confirmed, how many items would do for the first of them that can be, if all rates
            stay; None where none can.
    """

    confirmed: Mapping[str, float]
    chosen: str | None
    items_needed: int | None


def halves(items: int, split: float, seed: int) -> tuple[Places, Places]:
    """Draw at random the items to shortlist on and those to confirm on.

    Args:
        items: The number of items.
        split: The share to shortlist on.
        seed: The seed of the draw.

    Returns:
        The indices of both.

    Raises:
        UserError: There is a single item.
    """
    if items < 2:
        raise UserError("calibration needs two items at least: raise task.limit")
    order = np.random.default_rng(seed).permutation(items)
    cut = min(max(1, round(split * items)), items - 1)
    return order[:cut], order[cut:]


def choose(
    baseline: Trial, settings: Mapping[str, Trial], first: Places, second: Places, margin: float, most: int
) -> Choice:
    """Choose the fastest setting that is not inferior to the baseline by the margin.

    On the first items, at most so many are shortlisted: the fastest of those that cost less than the baseline, lose no
    more than the margin, and have more right than any that costs less. On the second these are tested, with Holm's
    correction.

    Args:
        baseline: The baseline's answers.
        settings: The settings' answers, by name.
        first: Indices of the items to shortlist on.
        second: Indices of the items to confirm on.
        margin: The largest loss that counts as none, as a fraction of the items.
        most: The longest shortlist.
    """
    usual = baseline.only(first)
    before = {name: trial.only(first) for name, trial in settings.items()}
    fit = {
        name: trial
        for name, trial in before.items()
        if trial.cost.sum() < usual.cost.sum() and loss(usual, trial) <= margin * len(first)
    }
    shortlist = front(fit)[:most]
    if not shortlist:
        return Choice({}, None, None)
    pairs = [gained_and_lost(baseline.only(second), settings[name].only(second)) for name in shortlist]
    n = len(second)
    passed, corrected, *_ = multipletests(
        [noninferiority_p(gained, lost, n, margin) for gained, lost in pairs], alpha=ALPHA, method="holm"
    )
    confirmed = dict(zip(shortlist, map(float, corrected), strict=True))
    if any(passed):
        return Choice(confirmed, next(name for name, ok in zip(shortlist, passed, strict=True) if ok), None)
    share = n / (len(first) + n)
    needed = (items_to_confirm(*pair, n, margin, ALPHA / len(shortlist)) for pair in pairs)
    return Choice(confirmed, None, next((math.ceil(items / share) for items in needed if items), None))


def front(trials: Mapping[str, Trial]) -> list[str]:
    """Return the Pareto front: settings with more right than any that costs less or as much, from the cheapest on."""
    names: list[str] = []
    for name in sorted(trials, key=lambda name: (int(trials[name].cost.sum()), -int(trials[name].right.sum()))):
        if not names or trials[name].right.sum() > trials[names[-1]].right.sum():
            names.append(name)
    return names


def gained_and_lost(baseline: Trial, setting: Trial) -> tuple[int, int]:
    """Count the items that only the setting has right, and those that only the baseline has.

    Args:
        baseline: The baseline's answers.
        setting: The setting's, to the same items in the same order.
    """
    return int((setting.right & ~baseline.right).sum()), int((baseline.right & ~setting.right).sum())


def loss(baseline: Trial, setting: Trial) -> int:
    """Return how many items fewer the setting has right; below 0 where it has more.

    Args:
        baseline: The baseline's answers.
        setting: The setting's, to the same items.
    """
    return int(baseline.right.sum() - setting.right.sum())


def items_to_confirm(gained: int, lost: int, n: int, margin: float, level: float) -> int | None:
    """Return how many items the test would need if the rates stayed.

    Args:
        gained: Items that only the setting has right.
        lost: Items that only the baseline has right.
        n: All items that were answered.
        margin: The largest loss that counts as none, as a fraction of the items.
        level: The p value at which the test passes.

    Returns:
        The number, `n` at least; None where it would never pass, or not with `dlmlab.measure.stats.MAX_ITEMS`.
    """
    if lost - gained >= margin * n:
        return None

    def confirms(items: int) -> bool:
        return noninferiority_p(gained * items / n, lost * items / n, items, margin) <= level

    return n if confirms(n) else smallest(confirms, above=n)
