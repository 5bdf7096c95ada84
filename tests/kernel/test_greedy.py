import pytest
import torch


def exact(logits, mask_token, banned):
    logits = logits.float().clone()
    if banned is not None:
        logits[:, banned] = -torch.inf
    probability = logits.softmax(-1)
    logits[:, mask_token] = -torch.inf
    token = logits.argmax(-1)
    return token, probability.gather(-1, token[:, None])[:, 0]


@pytest.mark.parametrize(("positions", "vocabulary"), [(3, 9000), (1, 5), (130, 20000)])
@pytest.mark.parametrize("banned", [None, 1])
def test_token_and_probability_are_those_of_the_softmax(draw, positions, vocabulary, banned) -> None:
    from dlmlab.kernel.greedy import greedy

    logits = 4 * draw(positions, vocabulary)
    logits[0, [2, 4]] = 30.0  # a tie: the lower one
    logits[-1, 0] = 31.0  # the mask token is likeliest
    token, probability = greedy(logits, 0, banned)
    expected_token, expected = exact(logits, 0, banned)
    assert torch.equal(token, expected_token)
    torch.testing.assert_close(probability, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_shows(draw, value) -> None:
    from dlmlab.kernel.greedy import greedy

    logits = draw(2, 6000)
    logits[1, 5000] = value
    _, probability = greedy(logits, 0)
    assert probability.isnan().tolist() == [False, True]
