"""The estimate of a likelihood: against a plain loop, and against the sum over all masks."""

from __future__ import annotations

import math

import pytest
import torch

from dlmlab.denoiser import Query
from dlmlab.errors import UserError
from dlmlab.measure.likelihood import draw, exact, is_greedy, log_likelihood, score
from tests.model.helpers import small_model

PROMPT, ANSWER = [5, 9, 2], [7, 3, 11, 4]


@pytest.fixture(scope="module")
def model():
    return small_model()


def plain(model, prompt, answer, samples, batch_size, seed):
    """LLaDA's procedure as it is written down: one canvas at a time, the sum over masked positions by hand."""
    generator = torch.Generator().manual_seed(seed)
    terms = []
    for _ in range(samples // batch_size):
        for masked in draw(batch_size, len(answer), generator).tolist():
            canvas = [
                model.config.mask_token_id if hidden else token for token, hidden in zip(answer, masked, strict=True)
            ]
            logits = model.head(model.hidden(Query(torch.tensor([[*prompt, *canvas]]))))[0]
            term = 0.0
            for place, token in enumerate(answer):
                if masked[place]:
                    row = logits[len(prompt) + place].tolist()
                    top = max(row)
                    term += row[token] - top - math.log(sum(math.exp(each - top) for each in row))
            terms.append(term * len(answer) / sum(masked))
    return sum(terms) / len(terms)


def test_it_is_the_plain_procedure_in_batches(model):
    found = log_likelihood(model, PROMPT, ANSWER, samples=24, batch_size=8, seed=3)
    assert found.log_likelihood == pytest.approx(plain(model, PROMPT, ANSWER, 24, 8, 3), abs=1e-4)


def test_it_tends_to_the_sum_over_all_masks(model):
    truth = exact(model, PROMPT, ANSWER)
    found = log_likelihood(model, PROMPT, ANSWER, samples=4096, batch_size=64)
    terms = score(model, PROMPT, ANSWER, draw(64, len(ANSWER), torch.Generator().manual_seed(1)))
    error = float(terms.std()) / math.sqrt(4096)
    assert abs(found.log_likelihood - truth) < 4 * error


def test_one_token_has_one_mask(model):
    found = log_likelihood(model, PROMPT, [7], samples=2, batch_size=2)
    assert found.log_likelihood == pytest.approx(exact(model, PROMPT, [7]), abs=1e-6)


def test_the_seed_fixes_it_and_nothing_else_does(model):
    first = log_likelihood(model, PROMPT, ANSWER, samples=8, seed=1)
    log_likelihood(model, PROMPT, [1, 2], samples=8, seed=5)
    assert log_likelihood(model, PROMPT, ANSWER, samples=8, seed=1) == first
    assert log_likelihood(model, PROMPT, ANSWER, samples=8, seed=2) != first


def test_counts_are_spread_evenly():
    masks = draw(8, 8, torch.Generator().manual_seed(0))
    assert sorted(masks.sum(-1).tolist()) == [1, 2, 3, 4, 5, 6, 7, 8]


def test_greedy_is_of_the_fully_masked_answer(model):
    hidden = model.hidden(Query(torch.tensor([[*PROMPT, *[model.config.mask_token_id] * 3]]), None, torch.arange(3, 6)))
    best = model.head(hidden).argmax(-1).tolist()
    assert is_greedy(model, PROMPT, best)
    assert not is_greedy(model, PROMPT, [best[0] ^ 1, *best[1:]])


@pytest.mark.parametrize(
    ("prompt", "answer", "message"),
    [([1], [], "has no token"), ([1] * 10_000, [2], r"10001 tokens, \d+ more than the model's context")],
)
def test_what_does_not_fit_is_one_line(model, prompt, answer, message):
    with pytest.raises(UserError, match=message):
        log_likelihood(model, prompt, answer)
