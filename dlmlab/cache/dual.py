"""Fast-dLLM's dual cache: what lies before and after the active block is kept."""

from __future__ import annotations

from dataclasses import dataclass

from dlmlab.policy import Frozen, Plan, Policy, View


@dataclass(frozen=True)
class Dual(Policy):
    """Compute everything when a block begins, then the block alone.

    Keys and values of all other positions, masked ones among them, stay those of the block's first pass, which commits
    as well.

    Source: Fast-dLLM, arXiv:2505.22618. The published code of June 2025 runs a pass that commits nothing where the
    first one has filled the block, and is wrong for more than one row; neither is so here.
    """

    frozen = Frozen.EARLIER_BLOCKS
    steady = True
    exact = "where no block sees a later one"

    def plan(self, view: View) -> Plan:
        return Plan(view.everything if view.step == 0 else view.block)
