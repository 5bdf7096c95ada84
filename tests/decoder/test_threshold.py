from hypothesis import given

from dlmlab.decoder.threshold import Threshold
from dlmlab.measure.reference import fast_dllm
from tests.decoder.steps import Row, chances, committed, rows, step_of, tensor


def test_it_commits_all_that_reach_it_and_one_at_least() -> None:
    step = step_of([[0.5, None, 0.75, 0.25, 0.75], [0.5, None, 0.25, 0.25, None]])
    assert committed(Threshold(0.75)(step)) == [[2, 4], [0]]


@given(rows, chances)
def test_it_is_the_reference(row: Row, threshold: float) -> None:
    assert committed(Threshold(threshold)(step_of([row]))) == [fast_dllm(tensor([row])[0], 1, threshold)]
