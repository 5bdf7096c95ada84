import pytest
import torch

from dlmlab.decoder.adablock import AdaBlock
from dlmlab.decoder.baseline import Baseline
from dlmlab.decoder.frechet import Frechet
from dlmlab.decoder.saber import Saber
from dlmlab.denoise import denoise
from dlmlab.errors import UserError
from dlmlab.rule import Step
from dlmlab.types import Generation, Request
from tests.decoder.steps import Row, committed, step_of
from tests.fakes import FakeModel

NEWLINE, COMMA = 5, 6
CONFIDENCE: Row = [0.75, 0.5, 0.875, 0.25, 0.25, 1.0, 1.0, 1.0, 0.25, 0.25, 0.25, 0.25]


def shown(tokens: dict[int, int], row: Row = CONFIDENCE, active: range = range(2)) -> Step:
    """A step of a canvas of twelve positions, of which a block looks three ahead."""
    token_BK = torch.tensor([[tokens.get(position, 0) for position in range(12)]])
    active_BK = torch.tensor([[position in active for position in range(12)]])
    return step_of([row], active_BK=active_BK)._replace(token_BK=token_BK)


def test_a_fresh_block_ends_at_the_surest_delimiter_in_reach() -> None:
    rule = AdaBlock([NEWLINE, COMMA], 0.5, 0.5)
    for tokens, end in (({}, 2), ({2: NEWLINE}, 3), ({0: COMMA, 2: NEWLINE}, 3), ({0: COMMA}, 1), ({5: NEWLINE}, 2)):
        decision = rule(shown(tokens))
        assert decision.end_B1 is not None
        assert decision.end_B1.tolist() == [[end]]
        assert committed(decision) == [list(range(end))]
    assert AdaBlock([NEWLINE], 0.9, 0.5)(shown({2: NEWLINE})).end_B1.tolist() == [[2]], "not sure enough"


def test_a_block_under_way_keeps_its_end() -> None:
    row: Row = [None, *CONFIDENCE[1:]]
    decision = AdaBlock([NEWLINE], 0.3, 0.9)(shown({2: NEWLINE}, row))
    assert decision.end_B1 is not None
    assert decision.end_B1.tolist() == [[2]]
    assert committed(decision) == [[1]]


def test_another_rule_may_commit_inside() -> None:
    assert committed(AdaBlock([NEWLINE], 0.3, rule=Baseline())(shown({2: NEWLINE}))) == [[2]]
    assert committed(AdaBlock([NEWLINE], 0.3, rule=Frechet(0.25))(shown({2: NEWLINE}))) == [[0, 2]]
    with pytest.raises(UserError, match="rule=Saber masks tokens again"):
        AdaBlock([NEWLINE], 0.3, rule=Saber(2, 8))


def test_without_a_delimiter_it_is_the_rule_inside() -> None:
    generation = Generation(12, 4, 12)
    [alone], [inside] = (
        list(denoise(FakeModel(), [Request(0, (1, 2), rule)], generation, 1))
        for rule in (Frechet(0.25), AdaBlock([99], 0.0, rule=Frechet(0.25)))
    )
    assert inside == alone
