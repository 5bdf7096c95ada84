"""DSB's cache: a block that slides is computed with what it has just left behind."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dlmlab.policy import Frozen, Plan, Policy, View
from dlmlab.settings import NonNegativeInt, PositiveInt


@dataclass(frozen=True)
class DSBCache(Policy):
    """Compute the sliding block of `decoder=dsb`, and at least `prefix_window` positions before it.

    As many more as the block has slid since the pass before. Everything is computed first, and again whenever as many
    tokens as the block began with have been committed since everything was.

    Source: DSB Cache, arXiv:2602.05992, and its code, without the window behind the block, which its scripts set to 0.

    Attributes:
        prefix_window: Positions before the block; the published scripts' value.
        initial: The decoder's `initial`.
        largest: The decoder's `largest`.
    """

    prefix_window: NonNegativeInt = 24
    initial: PositiveInt = 32
    largest: PositiveInt | None = None
    frozen = Frozen.COMMITS

    def plan(self, view: View) -> Plan:
        canvas_K = view.committed_L[view.prompt :]
        count_F = np.bincount(canvas_K, minlength=view.forwards + 1)[: view.forwards]
        if not view.forwards or self._renews(count_F):
            return Plan(view.everything)
        begin, before = (view.prompt + int((canvas_K >= each).argmax()) for each in (view.forwards, view.forwards - 1))
        end = view.prompt + self.initial + int(count_F.sum())
        if self.largest is not None:
            end = min(end, begin + self.largest)
        return Plan(view.between(begin - max(begin - before, self.prefix_window), end))

    def _renews(self, count_F: np.ndarray) -> bool:
        """Return whether the next pass computes everything, given how many tokens each pass so far has committed."""
        since = 0
        for count in count_F:
            since = int(count) if since >= self.initial else since + int(count)
        return since >= self.initial
