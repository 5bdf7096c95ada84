from hypothesis import given

from dlmlab.decoder.baseline import Baseline
from dlmlab.measure.reference import leading
from tests.decoder.steps import Row, committed, quotas, rows, step_of, tensor


def test_it_commits_the_scheduled_number_of_the_surest() -> None:
    step = step_of([[0.5, None, 0.75, 0.25, 0.75]], quota=2)
    assert committed(Baseline()(step)) == [[2, 4]]


@given(rows, quotas)
def test_it_is_the_reference(row: Row, quota: int) -> None:
    assert committed(Baseline()(step_of([row], quota))) == [sorted(leading(tensor([row])[0], quota))]
