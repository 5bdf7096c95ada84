"""dInfer's vicinity refresh: the block is computed with its neighbourhood."""

from __future__ import annotations

from dataclasses import dataclass

from dlmlab.policy import Frozen, Plan, Policy, View
from dlmlab.settings import NonNegativeInt


@dataclass(frozen=True)
class Vicinity(Policy):
    """Compute all when a block begins, then the block with `prefix_look` positions before and `after_look` after it.

    The first passes of a row, warmup_steps + 1 of them, compute everything too.

    Source: dInfer, arXiv:2510.08666, and its published code. There the full pass of a new block and the pass over its
    window are one iteration, so that the second commits nothing where the first has filled the block; here none does.
    """

    prefix_look: NonNegativeInt = 16
    after_look: NonNegativeInt = 16
    warmup_steps: NonNegativeInt = 4
    frozen = Frozen.EARLIER_BLOCKS

    def plan(self, view: View) -> Plan:
        if view.step == 0 or view.forwards <= self.warmup_steps:
            return Plan(view.everything)
        return Plan(view.between(view.start - self.prefix_look, view.end + self.after_look))
