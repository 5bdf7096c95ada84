import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dlmlab.decoder.credit import Credit
from dlmlab.errors import UserError
from tests.decoder.steps import Row, committed, ordered, step_of

LIKE = torch.empty(0, dtype=torch.float64)


class Walk:
    """One row's way through a block; confidences follow from the raised logits, as in the loop."""

    def __init__(self, rule: Credit, positions: int, vocabulary: int):
        self.rule, self.left = rule, set(range(positions))
        self.state = tuple(part[None] for part in rule.initial_state(positions, vocabulary, LIKE))

    def look(self, logits: list[list[float]]) -> tuple[torch.Tensor, Row, list[int]]:
        """The raised logits (K, V), the confidences that follow, and the positions committed."""
        logits_BKV = torch.tensor([logits], dtype=torch.float64)
        raised_BKV = self.rule.transform(logits_BKV, self.state)
        confidence = raised_BKV[0].softmax(-1).amax(-1).tolist()
        row: Row = [c if position in self.left else None for position, c in enumerate(confidence)]
        decision = self.rule(step_of([row], logits_BKV=logits_BKV, state=self.state))
        self.state = decision.state
        [found] = committed(decision)
        self.left -= set(found)
        return raised_BKV[0], row, found


def test_by_hand() -> None:
    """Even odds twice: the likeliest token's credit is 0.5 ** 0.5, then 0.5 of that more, so 1.5 × 0.7071."""
    walk = Walk(Credit(alpha=1.0, beta=0.5, gamma=0.5, threshold=1.0), positions=3, vocabulary=2)
    raised_KV, _, found = walk.look([[0.0, 0.0]] * 3)
    assert raised_KV[0].tolist() == pytest.approx([math.log(1 + 0.5**0.5), 0.0])
    assert found == [0]
    raised_KV, row, found = walk.look([[0.0, 0.0], [0.0, 0.0], [0.0, 8.0]])
    assert raised_KV[1].tolist() == pytest.approx([math.log(1 + 1.5 * 0.5**0.5), 0.0])
    assert raised_KV[2].tolist() == pytest.approx([math.log(1 + 0.5**1.5), 8 + math.log(2)], abs=1e-3)
    assert found == [2], row


def test_what_is_predicted_again_and_again_needs_less_confidence() -> None:
    """A token of probability 0.75 never reaches 0.85 by itself; its credit takes it there at the second step."""
    walk = Walk(Credit(alpha=0.7, beta=0.8, gamma=0.2, threshold=0.85), positions=3, vocabulary=2)
    steady = [math.log(3.0), 0.0]
    assert walk.look([[9.0, 0.0], steady, steady])[2] == [0]
    assert walk.look([[9.0, 0.0], steady, steady])[2] == [1, 2]
    changing = Walk(walk.rule, positions=3, vocabulary=2)
    assert changing.look([[9.0, 0.0], steady, steady])[2] == [0]
    assert changing.look([[9.0, 0.0], steady[::-1], steady])[2] == [2]


weights = st.sampled_from([0.0, 0.25, 0.7, 1.0])


@given(st.data(), st.integers(1, 5), weights, weights, weights, st.sampled_from([0.3, 0.61, 0.93]))
def test_the_formula_step_after_step(
    data: st.DataObject, positions: int, alpha: float, beta: float, gamma: float, threshold: float
) -> None:
    walk = Walk(Credit(alpha, beta, gamma, threshold), positions, vocabulary=3)
    credit = [[0.0] * 3 for _ in range(positions)]
    logit_rows = st.lists(
        st.lists(st.integers(0, 3).map(float), min_size=3, max_size=3), min_size=positions, max_size=positions
    )
    while walk.left:
        logits = data.draw(logit_rows)
        for position, of_place in enumerate(logits):
            credit[position] = [beta * c for c in credit[position]]
            best = of_place.index(max(of_place))
            credit[position][best] += (math.exp(of_place[best]) / sum(map(math.exp, of_place))) ** gamma
        raised_KV, row, found = walk.look(logits)
        for position, of_place in enumerate(logits):
            expected = [logit + alpha * math.log(1 + c) for logit, c in zip(of_place, credit[position], strict=True)]
            assert raised_KV[position].tolist() == pytest.approx(expected)
        reached = {position for position, c in enumerate(row) if c is not None and c >= threshold}
        assert found == sorted({*reached, ordered(row)[0]})


@pytest.mark.parametrize("bad", [{"alpha": -1}, {"beta": 1.1}, {"gamma": -0.1}, {"threshold": 2}])
def test_parameters_out_of_range_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(UserError, match=next(iter(bad))):
        Credit(**{"alpha": 0.7, "beta": 0.8, "gamma": 0.2, "threshold": 0.9, **bad})
