from __future__ import annotations

import pytest
import torch

from dlmlab.decoder.slowfast import SlowFast
from dlmlab.denoise import denoise
from dlmlab.errors import UserError
from dlmlab.types import Generation, Request
from tests.decoder.steps import Row, committed, step_of
from tests.fakes import FakeModel

LIKE = torch.empty(0, dtype=torch.float64)


class Walk:
    """One row's way through a block."""

    def __init__(self, rule: SlowFast, positions: int):
        self.rule, self.left = rule, set(range(positions))
        self.state = tuple(part[None] for part in rule.initial_state(positions, 1, LIKE))

    def look(self, confidence: list[float]) -> tuple[list[int], int]:
        """The positions committed, and how many the next pass sees."""
        row: Row = [c if position in self.left else None for position, c in enumerate(confidence)]
        decision = self.rule(step_of([row], state=self.state))
        self.state = decision.state
        assert decision.seen_B1 is not None
        [found], [[seen]] = committed(decision), decision.seen_B1.tolist()
        self.left -= set(found)
        return found, seen


def test_by_hand() -> None:
    walk = Walk(SlowFast(2, 0.25, 0.75, 2, 1.0), 8)
    # Slow: the last position that is sure enough is 4, twice, so the cycle ends behind it.
    assert walk.look([0.5, 0.5, 0.5, 0.5, 0.25, 0.0, 0.0, 0.0]) == ([0], 8)
    assert walk.look([0.5, 0.875, 0.875, 0.5, 0.25, 0.0, 0.0, 0.0]) == ([1, 2], 8)
    # Fast: what lies behind is not committed however sure, and not seen by the pass after the first.
    assert walk.look([0.5, 0.5, 0.5, 0.25, 0.125, 1.0, 1.0, 1.0]) == ([3], 5)
    assert walk.look([0.5, 0.5, 0.5, 0.5, 0.125, 0.0, 0.0, 0.0]) == ([4], 8), "the cycle is over"
    # The next: no position is sure, so it ends behind its first; then it would end behind the last: it is the mean.
    assert walk.look([0.0, 0.0, 0.0, 0.0, 0.0, 0.125, 0.0, 0.0]) == ([5], 8)
    assert walk.look([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.5]) == ([7], 8)
    assert walk.look([0.0] * 8) == ([6], 8)


def test_a_cut_canvas_is_what_the_model_is_shown_and_what_the_ledger_counts() -> None:
    request = Request(0, (1, 2), SlowFast(1, 0.95, 1.0, 1, 1.0), traced=True)
    [output] = denoise(FakeModel(), [request], Generation(16, 16, 16), 1)
    ends = [end for step in output.trace for _, end in step.computed]
    assert min(ends) < max(ends) == 16
    assert output.positions == sum(ends) + 2 * output.forwards


@pytest.mark.parametrize("bad", [{"k_exploration_steps": 0}, {"high_confidence_threshold": 2}])
def test_parameters_out_of_range_are_refused(bad: dict[str, float]) -> None:
    defaults = {
        "k_exploration_steps": 6,
        "cycle_len_confidence_threshold": 0.3,
        "high_confidence_threshold": 0.9,
        "cycle_length_stability_window": 2,
        "cycle_length_stability_std_dev_threshold": 1.0,
    }
    with pytest.raises(UserError, match=next(iter(bad))):
        SlowFast(**{**defaults, **bad})  # type: ignore[arg-type]
