"""No cache: every pass computes every position."""

from __future__ import annotations

from dataclasses import dataclass

from dlmlab.policy import Plan, Policy, View


@dataclass(frozen=True)
class NoCache(Policy):
    """Compute everything, and keep nothing from pass to pass."""

    keeps = False
    exact = "always"

    def plan(self, view: View) -> Plan:
        return Plan(view.everything)
