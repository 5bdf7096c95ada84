import pytest
import torch

from dlmlab.decoder.eb import EB
from dlmlab.decoder.prophet import Prophet
from dlmlab.decoder.threshold import Threshold
from dlmlab.denoise import denoise
from dlmlab.errors import UserError
from dlmlab.rule import Decision, Step
from dlmlab.types import Generation, Request
from tests.decoder.steps import Row, committed, step_of
from tests.fakes import FakeModel

THRESHOLDS = {"early": 4.0, "mid": 3.0, "late": 2.0}
ROW: Row = [0.5, None, 0.75, 0.25, 0.25, 0.25, 0.25, 0.25]


def shown(gap: list[float], progress: float) -> Step:
    active_BK = torch.tensor([[True] * 4 + [False] * 4])
    more = {"measure_BK": torch.tensor([gap])[..., None], "active_BK": active_BK}
    return step_of([ROW], progress_B1=torch.tensor([[progress]], dtype=torch.float64), **more)


def decided(gap: float, progress: float, **changes: object) -> Decision:
    rule = Prophet(**{"answer_start": 1, "thresholds": THRESHOLDS, **changes})  # type: ignore[arg-type]
    return rule(shown([9.0, *[gap] * 5, -9.0, -9.0], progress))


def test_all_masks_are_filled_once_the_gap_at_the_answer_is_large_enough_for_this_part_of_the_schedule() -> None:
    everything = [[0, 2, 3, 4, 5, 6, 7]]
    for gap, progress, exits in ((4, 0.3, True), (3, 0.3, False), (3, 0.34, True), (2, 0.66, False), (2, 0.67, True)):
        assert committed(decided(gap, progress)) == (everything if exits else [[2]])


def test_another_rule_may_decide_until_then() -> None:
    assert committed(decided(0.0, 0.1, rule=Threshold(0.5))) == [[0, 2]]
    generation = Generation(12, 4, 12)
    never = Prophet(0, dict.fromkeys(THRESHOLDS, 1e9), EB(0.1, "margin"))
    [alone], [inside] = (
        list(denoise(FakeModel(), [Request(0, (1, 2), rule)], generation, 1)) for rule in (EB(0.1, "margin"), never)
    )
    assert inside == alone


def test_the_gap_is_of_logits() -> None:
    logits_NV = torch.tensor([[3.0, 1.0, 0.5], [0.0, 4.0, -1.0]])
    torch.testing.assert_close(Prophet(0, THRESHOLDS).measure(logits_NV.softmax(-1)), torch.tensor([[2.0], [4.0]]))


def test_thresholds_have_three_names() -> None:
    with pytest.raises(UserError, match="thresholds has early: give early, mid and late"):
        Prophet(0, {"early": 1.0})
