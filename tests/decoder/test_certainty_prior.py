import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from dlmlab.decoder.certainty_prior import CertaintyPrior
from tests.decoder.steps import committed, step_of


def test_what_is_near_to_the_known_goes_first() -> None:
    row = [0.5, 0.5, 0.5, None, 0.5, 0.5, 0.5, 0.5]
    assert committed(CertaintyPrior(1.0)(step_of([row], quota=3))) == [[0, 2, 4]]
    assert committed(CertaintyPrior(1.0)(step_of([[0.5, 0.5, 0.5, 0.5]]))) == [[0]], "what is on the left is known"


@given(st.lists(st.booleans(), min_size=1, max_size=8), st.sampled_from([0.5, 2.0, 10.0]))
def test_the_density_as_it_is_written(known: list[bool], sigma: float) -> None:
    n = len(known)
    around = [True] * n + known + [known[-1]] * n
    kernel = [math.exp(-(d**2) / (2 * sigma**2)) for d in range(-3 * n, 3 * n)]
    expected = [
        sum(math.exp(-((n + i - j) ** 2) / (2 * sigma**2)) for j in range(3 * n) if around[j]) / sum(kernel)
        for i in range(n)
    ]
    [found] = CertaintyPrior(sigma).density(torch.tensor([known])).tolist()
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected))
