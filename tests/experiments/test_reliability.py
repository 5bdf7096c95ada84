"""The reliability of confidences, of traces whose proposals are known."""

from __future__ import annotations

import pytest

from dlmlab.record.traces import Trace
from experiments.reliability import by_stage, proposals, report_fields


def trace() -> Trace:
    """Three positions, the first of which is no question; the second is committed wrongly, and the third rightly."""
    steps = [
        {"block": 0, "tokens": ["a", "b", "c"], "confidence": [1.0, 0.6, 0.3], "commit": [0], "revoke": []},
        {"block": 0, "tokens": [None, "x", "c"], "confidence": [None, 0.7, 0.4], "commit": [1], "revoke": []},
        {"block": 0, "tokens": [None, None, "c"], "confidence": [None, None, 0.5], "commit": [2], "revoke": []},
    ]
    steps = [{**step, "begin": 0, "marks": {}, "computed": []} for step in steps]
    return Trace("t", "d", 0, "i", "p", 3, 3, [], ["a", "x", "c"], steps)


def test_every_open_position_of_every_pass_is_compared_with_the_solution() -> None:
    found = list(proposals(trace(), {1: "b", 2: "c"}))
    assert [(each.confidence, each.right, each.committed) for each in found] == [
        (0.6, True, False),
        (0.3, True, False),
        (0.7, False, True),
        (0.4, True, False),
        (0.5, True, True),
    ]
    assert [each.stage for each in found] == [0, 0, 0, 0, 2]
    stages = by_stage(found)
    assert [each.n for each in stages.values()] == [4, 0, 1, 0, 0, 5]
    assert stages["all"].right == pytest.approx(0.8)


def test_the_report_holds_what_was_proposed_and_what_was_committed() -> None:
    fields = report_fields(list(proposals(trace(), {1: "b", 2: "c"})), 0.0)
    assert fields["results"]["proposed"]["all"]["n"] == 5
    assert fields["results"]["committed"]["all"] | {"bins": 0, "error": 0} == {
        "n": 2, "confidence": pytest.approx(0.6), "right": 0.5, "error": 0, "bins": 0,
    }  # fmt: skip
    assert fields["results"]["proposed"]["20–40 %"]["error"] is None
    assert "50.0 sure and 80.0 right" in fields["verdict"]
