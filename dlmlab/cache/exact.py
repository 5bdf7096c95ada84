"""Block diffusion's cache: what lies before the active block is kept, and is what it would be computed anew."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from dlmlab.policy import FINAL_BLOCKS, Frozen, Plan, Policy, View


@dataclass(frozen=True)
class Exact(Policy):
    """Compute the active block alone; at its first pass the block before it too, which is full now.

    Where a position sees no later block than its own, keys and values of a full block never change again. The pass that
    stores them is joined with the next block's first; the published code runs one of its own.

    Source: Block Diffusion, arXiv:2503.09573; SDAR, arXiv:2510.06303.
    """

    needs: ClassVar[str] = FINAL_BLOCKS
    steady: ClassVar[bool] = True
    frozen: ClassVar[Frozen] = Frozen.EARLIER_BLOCKS
    exact: ClassVar[str] = "always"

    def plan(self, view: View) -> Plan:
        if view.forwards == 0:
            return Plan(view.everything)
        before = view.end - view.start if view.step == 0 else 0
        return Plan(view.between(view.start - before, view.end))
