import pytest

from dlmlab.decoder.saber_published import SaberPublished
from dlmlab.errors import UserError
from tests.decoder.steps import Row, committed, revoked, step_of, tensor
from tests.decoder.test_saber import LIKE


class Walk:
    """One row's way through a block: the likeliest tokens' probabilities at all its positions."""

    def __init__(self, rule: SaberPublished, positions: int):
        self.rule, self.left = rule, set(range(positions))
        self.state = tuple(part[None] for part in rule.initial_state(positions, 1, LIKE))

    def look(self, probability: list[float]) -> tuple[list[int], list[int]]:
        """The positions committed and those masked again."""
        masked: Row = [p if position in self.left else None for position, p in enumerate(probability)]
        decision = self.rule(step_of([masked], measure_BK=tensor([[*probability]]), state=self.state))
        self.state = decision.state
        [found], [again] = committed(decision), revoked(decision)
        self.left = self.left - set(found) | set(again)
        return found, again


def test_by_hand() -> None:
    walk = Walk(SaberPublished(n=2, mu=2), positions=6)
    # Two are chosen, and of those one is taken back at once: the one that rose less, from nothing.
    assert walk.look([0.75, 0.5, 0.25, 0.25, 0.25, 0.25]) == ([0], [])
    # The mean is of both, 0.625. Above are 1 to 4, so two go: 0 fell, 1 rose least.
    assert walk.look([0.5, 0.75, 0.875, 0.875, 0.875, 0.125]) == ([2, 3, 4], [0])
    # The mean is 0.825, of all as of their last choice, 0 and 1 too. 5 is above it; 2, 3 and 4 rose least, not at all.
    assert walk.look([0.75, 0.5, 0.875, 0.875, 0.875, 0.875]) == ([0, 5], [2])


def test_the_one_place_left_is_committed_and_nothing_masked_again() -> None:
    walk = Walk(SaberPublished(n=2, mu=8), positions=1)
    assert walk.look([0.25]) == ([0], [])


@pytest.mark.parametrize("bad", [{"n": 0}, {"mu": 0}])
def test_parameters_out_of_range_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(UserError, match=next(iter(bad))):
        SaberPublished(**{"n": 2, "mu": 8, **bad})
