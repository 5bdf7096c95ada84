import torch
from hypothesis import given
from hypothesis import strategies as st

from dlmlab.decoder.random import Random
from dlmlab.denoise import denoise
from dlmlab.types import Generation, Request
from tests.decoder.steps import Row, chances, committed, quotas, rows, step_of, tensor
from tests.fakes import FakeModel


def test_the_noise_decides_and_confidence_does_not() -> None:
    noise_BK = tensor([[0.5, 0.875, 0.25, 0.75]])
    assert committed(Random()(step_of([[1.0, None, 0.25, 0.5]], quota=2, noise_BK=noise_BK))) == [[0, 3]]


@given(rows, quotas, st.data())
def test_it_commits_the_places_with_the_most_noise(row: Row, quota: int, data: st.DataObject) -> None:
    noise = data.draw(st.lists(chances, min_size=len(row), max_size=len(row)))
    left = [position for position, c in enumerate(row) if c is not None]
    expected = sorted(sorted(left, key=lambda position: -noise[position])[:quota])
    step = step_of([row], quota, noise_BK=tensor([noise]))
    assert committed(Random()(step)) == [expected]


def test_it_draws_each_place_as_often_as_any_other() -> None:
    """2,000 canvases of 8 positions: which is filled first? Five standard errors about 1/8."""
    requests = [Request(index, (1,), Random()) for index in range(2000)]
    outputs = list(denoise(FakeModel(), requests, Generation(8, 8, 8), 500))
    first = torch.bincount(torch.tensor([output.step_of.index(0) for output in outputs]), minlength=8) / 2000
    assert ((first - 1 / 8).abs() < 5 * (1 / 8 * 7 / 8 / 2000) ** 0.5).all()


def test_the_seed_makes_the_order() -> None:
    def orders(seed: int) -> list[list[int]]:
        requests = [Request(index, (1,), Random()) for index in range(3)]
        return [output.step_of for output in denoise(FakeModel(), requests, Generation(8, 8, 8), 3, seed=seed)]

    assert orders(0) == orders(0) != orders(1)
    assert len({tuple(order) for order in orders(0)}) == 3
