"""A suffix window: masks far behind the active block are left out altogether."""

from __future__ import annotations

from dataclasses import dataclass

from dlmlab.policy import Frozen, Plan, Policy, View
from dlmlab.settings import PositiveInt


@dataclass(frozen=True)
class Suffix(Policy):
    """Let only `window` positions behind the block be computed and seen, and the canvas's last, at their own positions.

    What lies before the block is kept as with `Prefix`: it is computed when the block begins.

    Source: Streaming-dLLM, arXiv:2601.17917, whose published windows are 96 to 192; its threshold, which follows the
    share of masks, and its early end are the decoder's and `generation.stop_at_end`'s. No published decodes are held
    against this one.
    """

    window: PositiveInt = 96
    frozen = Frozen.EARLIER_BLOCKS
    steady = True

    def plan(self, view: View) -> Plan:
        last = len(view.committed_L) - 1
        visible_L = view.between(0, view.end + self.window) | view.between(last, last + 1)
        before_L = view.between(0, view.start)
        return Plan(visible_L if view.step == 0 else visible_L & ~before_L, visible_L)
