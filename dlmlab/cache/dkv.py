"""dKV-Cache-Decode: a token's keys and values are kept once a pass has seen it committed."""

from __future__ import annotations

from dataclasses import dataclass

from dlmlab.policy import Frozen, Plan, Policy, View
from dlmlab.settings import PositiveInt


@dataclass(frozen=True)
class DKV(Policy):
    """Compute what is masked, and what the last pass has committed: its keys and values are still a mask's.

    Everything is computed in a block's first two passes, and in each whose number in the block `refresh_steps` divides.

    Source: dKV-Cache, arXiv:2505.15781 (dKV-Cache-Decode).
    """

    refresh_steps: PositiveInt = 8
    frozen = Frozen.COMMITS

    def plan(self, view: View) -> Plan:
        if view.step < 2 or view.step % self.refresh_steps == 0:
            return Plan(view.everything)
        return Plan(view.committed_L >= view.forwards - 1)
