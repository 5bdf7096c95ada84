import torch
from hypothesis import given
from hypothesis import strategies as st

from dlmlab.decoder.margin import Margin
from tests.decoder.steps import Row, chances, committed, ordered, quotas, rows, step_of, tensor


def test_the_margin_is_the_lead_of_the_likeliest_token() -> None:
    probability_NV = torch.tensor([[0.5, 0.375, 0.125], [0.25, 0.5, 0.25], [0.5, 0.5, 0.0]])
    assert Margin.measure(probability_NV).tolist() == [0.125, 0.25, 0.0]


def test_a_clear_second_choice_counts_for_less_than_a_lone_first() -> None:
    """The first position has the higher confidence, the third the larger margin."""
    step = step_of([[0.5, None, 0.4375]], measure_BK=tensor([[0.0625, None, 0.375]]))
    assert committed(Margin()(step)) == [[2]]


@given(st.lists(st.integers(0, 9), min_size=2, max_size=6).filter(any))
def test_the_margin_by_sorting(weights: list[int]) -> None:
    probability_V = torch.tensor(weights, dtype=torch.float64) / sum(weights)
    first, second = sorted(weights)[-1:-3:-1]
    torch.testing.assert_close(Margin.measure(probability_V[None])[0].item(), (first - second) / sum(weights))


@given(rows, quotas, st.data())
def test_it_commits_the_scheduled_number_of_largest_margins(row: Row, quota: int, data: st.DataObject) -> None:
    margins: Row = [None if c is None else data.draw(chances) for c in row]
    step = step_of([row], quota, measure_BK=tensor([margins]))
    assert committed(Margin()(step)) == [sorted(ordered(margins)[:quota])]
