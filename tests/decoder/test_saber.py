import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dlmlab.decoder.saber import Saber
from dlmlab.denoise import denoise
from dlmlab.errors import UserError
from dlmlab.types import Generation, Request
from tests.decoder.steps import Row, chances, committed, ordered, revoked, step_of, tensor
from tests.fakes import MASK, FakeModel

LIKE = torch.empty(0, dtype=torch.float64)


class Walk:
    """One row's way through a block: probabilities of proposed tokens at masked positions, of present ones
    elsewhere.
    """

    def __init__(self, rule: Saber, positions: int):
        self.rule, self.left = rule, set(range(positions))
        self.state = tuple(part[None] for part in rule.initial_state(positions, 1, LIKE))

    def look(self, probability: list[float]) -> tuple[list[int], list[int]]:
        """The positions committed and those masked again."""
        masked: Row = [p if position in self.left else None for position, p in enumerate(probability)]
        present: Row = [None if position in self.left else p for position, p in enumerate(probability)]
        decision = self.rule(step_of([masked], kept_BK=tensor([present]), state=self.state))
        self.state = decision.state
        [found], [again] = committed(decision), revoked(decision)
        self.left = self.left - set(found) | set(again)
        return found, again


def test_by_hand() -> None:
    walk = Walk(Saber(n=2, mu=2), positions=8)
    assert walk.look([0.75, 0.5, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25]) == ([0, 1], []), "at first the two surest"
    # The mean at commit is 0.625. Four positions are above it, so two are masked again: all there are.
    assert walk.look([0.5, 0.5, 0.625, 0.75, 0.75, 0.75, 1.0, 0.125]) == ([3, 4, 5, 6], [0, 1])
    # The mean is now of the four, 0.8125: nothing is above, so the two surest; the largest of the drops is 6's.
    assert walk.look([0.5, 0.75, 0.5, 0.75, 0.5, 0.75, 0.5, 0.625]) == ([1, 7], [6])
    # A token is dropped from its probability at the last step, not from that at its commit: 3 lost nothing since.
    assert walk.look([0.5, 0.625, 0.5, 0.75, 0.5, 0.5, 1.0, 0.625]) == ([0, 6], [5])
    assert walk.look([1.0, 1.0, 0.5, 1.0, 1.0, 0.25, 1.0, 1.0]) == ([2, 5], []), "the block is full"


def test_the_one_place_left_is_committed_and_nothing_masked_again() -> None:
    walk = Walk(Saber(n=2, mu=8), positions=3)
    assert walk.look([0.5, 0.5, 0.25]) == ([0, 1], [])
    assert walk.look([0.0, 0.0, 0.25]) == ([2], [])


@given(st.data(), st.integers(1, 9), st.integers(1, 3), st.integers(1, 4))
def test_the_formula_step_after_step(data: st.DataObject, positions: int, n: int, mu: int) -> None:
    walk = Walk(Saber(n, mu), positions)
    then, before = dict[int, float](), dict[int, float]()
    while walk.left:
        probability = data.draw(st.lists(chances, min_size=positions, max_size=positions))
        row: Row = [p if position in walk.left else None for position, p in enumerate(probability)]
        surer = [position for position in walk.left if then and probability[position] > sum(then.values()) / len(then)]
        commit = {*surer, *ordered(row)[:n]}
        count = min(max(1, len(commit) // mu), len(commit) - 1) if commit != walk.left else 0
        falls = sorted(before, key=lambda position: (probability[position] - before[position], position))
        again = sorted(falls[:count])

        assert walk.look(probability) == (sorted(commit), again)
        then |= {position: probability[position] for position in commit}
        before = {position: probability[position] for position in then}
        for position in again:
            del then[position], before[position]


@pytest.mark.parametrize("n", [1, 2, 3])
def test_it_ends_on_a_model_that_changes_its_mind_at_every_step(n: int) -> None:
    generation = Generation(gen_length=32, block_length=16, steps=4)
    requests = [Request(index, (index, 3), Saber(n, 1)) for index in range(20)]
    taken_back = 0
    for output in denoise(FakeModel(), requests, generation, 8):
        assert MASK not in output.tokens
        assert output.forwards <= 32
        taken_back += len(set(range(output.forwards)) - set(output.step_of))
    assert n == 1 or taken_back, "no step's tokens were all taken back: the model is too steady to test with"


@pytest.mark.parametrize("bad", [{"n": 0}, {"mu": 0}, {"mu": 2.5}])
def test_parameters_out_of_range_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(UserError, match=next(iter(bad))):
        Saber(**{"n": 2, "mu": 8, **bad})  # type: ignore[arg-type]
