import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dlmlab.decoder.klass import KLASS
from dlmlab.errors import UserError
from dlmlab.rule import Step
from tests.decoder.steps import Row, chances, committed, ordered, step_of

LIKE = torch.empty(0, dtype=torch.float64)


class Walk:
    """One row's way through a block, step after step."""

    def __init__(self, rule: KLASS, positions: int, vocabulary: int):
        self.rule, self.left = rule, set(range(positions))
        self.state = tuple(part[None] for part in rule.initial_state(positions, vocabulary, LIKE))

    def commit(self, confidence: list[float], logits: list[list[float]], quota: int) -> list[int]:
        row: Row = [c if position in self.left else None for position, c in enumerate(confidence)]
        logits_BKV = torch.tensor([logits], dtype=torch.float64)
        every_BK = torch.ones(1, len(row), dtype=torch.bool)
        step: Step = step_of([row], quota, logits_BKV=logits_BKV, state=self.state, active_BK=every_BK)
        decision = self.rule(step)
        self.state = decision.state
        [found] = committed(decision)
        self.left -= set(found)
        return found


def test_by_hand() -> None:
    """Of four positions the last two keep their distributions, and only the last of those is above 0.5."""
    walk = Walk(KLASS(tau=0.5, epsilon=0.01, history=2), positions=5, vocabulary=2)
    confidence = [1.0, 0.75, 0.875, 0.25, 0.625]
    still, moved = [1.0, 0.0], [0.0, 1.0]
    assert walk.commit(confidence, [still] * 5, quota=1) == [0]
    assert walk.commit(confidence, [still, moved, still, still, still], quota=1) == [2], "calm for one step only"
    assert walk.commit(confidence, [still, still, still, still, still], quota=1) == [4], "calm for two, and sure"
    assert walk.commit(confidence, [still, still, still, still, still], quota=1) == [1], "none is ready: the schedule"
    assert walk.commit(confidence, [still, still, still, still, still], quota=3) == [3]


def test_a_change_wipes_out_the_calm_before_it() -> None:
    walk = Walk(KLASS(tau=0.0, epsilon=0.01, history=2), positions=5, vocabulary=2)
    confidence = [1.0, 0.75, 0.625, 0.5, 0.25]
    still, moved = [[1.0, 0.0]] * 5, [[0.0, 1.0]] * 5
    found = [walk.commit(confidence, logits, quota=1) for logits in (still, still, moved, moved)]
    assert found == [[0], [1], [2], [3]], "calm twice, but not in a row"
    assert walk.commit(confidence, moved, quota=1) == [4]


def test_a_change_counts_however_rare_the_token() -> None:
    """KL(p_t ‖ p_{t−1}) is not symmetric: 0.36 nats from even to uneven odds of 9 : 1, 0.51 the other way."""
    even, uneven = [0.0, 0.0], [math.log(9.0), 0.0]
    for first, second, calm in ((uneven, even, False), (even, uneven, True)):
        walk = Walk(KLASS(tau=0.0, epsilon=0.4, history=1), positions=3, vocabulary=2)
        walk.commit([0.5, 0.75, 0.25], [first] * 3, quota=1)
        found = walk.commit([0.5, 0.75, 0.25], [second] * 3, quota=1)
        assert found == ([0, 2] if calm else [0])


def distribution(logits: list[float]) -> list[float]:
    total = sum(map(math.exp, logits))
    return [math.exp(logit) / total for logit in logits]


def divergence(p: list[float], q: list[float]) -> float:
    return sum(one * math.log(one / other) for one, other in zip(p, q, strict=True))


@given(st.data(), st.integers(1, 5), chances, st.sampled_from([0.001, 0.05, 0.6, 9.0]), st.integers(1, 3))
def test_the_formula_step_after_step(
    data: st.DataObject, positions: int, tau: float, epsilon: float, history: int
) -> None:
    walk, past = Walk(KLASS(tau, epsilon, history), positions, vocabulary=3), list[list[list[float]]]()
    logit_rows = st.lists(
        st.lists(st.integers(0, 2).map(float), min_size=3, max_size=3), min_size=positions, max_size=positions
    )
    while walk.left:
        confidence = data.draw(st.lists(chances, min_size=positions, max_size=positions))
        logits, quota = data.draw(logit_rows), data.draw(st.integers(1, positions + 1))
        past.append([distribution(position) for position in logits])
        recent = list(pairwise(past))[-history:]
        ready = [
            position
            for position in sorted(walk.left)
            if confidence[position] > tau
            and len(recent) == history
            and all(divergence(now[position], before[position]) < epsilon for before, now in recent)
        ]
        row: Row = [c if position in walk.left else None for position, c in enumerate(confidence)]
        assert walk.commit(confidence, logits, quota) == (ready or sorted(ordered(row)[:quota]))


@pytest.mark.parametrize("bad", [{"tau": 1.5}, {"epsilon": -0.1}, {"history": 0}, {"history": 1.5}])
def test_parameters_out_of_range_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(UserError, match=next(iter(bad))):
        KLASS(**{"tau": 0.9, "epsilon": 0.01, "history": 2, **bad})  # type: ignore[arg-type]
