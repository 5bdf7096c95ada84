"""LLaDA's estimate of how likely an answer is after a prompt (arXiv:2502.09992, equation 6 and appendix B.5).

An answer of L tokens is masked at k of its positions, k uniform on 1 … L and the positions drawn evenly, and scored by

    log p(answer | prompt) ≥ E_k E_positions [ (L / k) Σ over masked positions log p(token | prompt, the rest) ].

The counts of a batch are spread evenly over 1 … L, from a random first one on, which takes most of the noise out; the
prompt is never masked. The expectation over all masks is `exact`, which a few tokens allow.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from math import comb
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dlmlab.denoiser import Query
from dlmlab.errors import UserError
from dlmlab.types import check_positive_int

SAMPLES = 128
"""Masks for each answer, as LLaDA's evaluation has them."""


class Estimate(NamedTuple):
    """An estimate of how likely an answer is.

    Attributes:
        log_likelihood: The lower bound of log p(answer | prompt), in nats.
        greedy: Whether the answer has the likeliest token everywhere, all of it being masked.
    """

    log_likelihood: float
    greedy: bool


def log_likelihood(
    model: Any,
    prompt: Sequence[int],
    answer: Sequence[int],
    *,
    samples: int = SAMPLES,
    batch_size: int = 8,
    seed: int = 0,
) -> Estimate:
    """Estimate how likely an answer is after a prompt.

    Args:
        model: A denoiser.
        prompt: Token ids; may be empty.
        answer: Token ids, at least one.
        samples: Masks that are drawn, a multiple of the batch size or rounded up to one.
        batch_size: Canvases that go through the model at once; the counts of a batch are spread together.
        seed: Fixes the masks, whatever else is estimated.

    Raises:
        UserError: The answer is empty, or it and the prompt don't fit the model's context.
    """
    check_fits(model, prompt, answer)
    check_positive_int("samples", samples)
    check_positive_int("batch_size", batch_size)
    generator = torch.Generator().manual_seed(seed)
    batch_size = min(batch_size, samples)
    batches = -(-samples // batch_size)
    total = 0.0
    for _ in range(batches):
        masked_BL = draw(batch_size, len(answer), generator)
        total += float(score(model, prompt, answer, masked_BL).sum())
    return Estimate(total / (batches * batch_size), is_greedy(model, prompt, answer))


def draw(batch_size: int, length: int, generator: torch.Generator) -> Tensor:
    """Return masks, (B, L) bool, whose counts are spread evenly over 1 … L from a random first one on.

    Args:
        batch_size: B, the number of masks.
        length: L, the tokens of the answer.
        generator: What the first count and the positions are drawn from.
    """
    first = int(torch.randint(1, length + 1, (), generator=generator))
    steps_B = torch.linspace(first, first + (batch_size - 1) * (length / batch_size), batch_size).round().long()
    count_B = (steps_B - 1) % length + 1
    rank_BL = torch.rand(batch_size, length, generator=generator).argsort(dim=-1).argsort(dim=-1)
    return rank_BL < count_B[:, None]


@torch.inference_mode()
def score(model: Any, prompt: Sequence[int], answer: Sequence[int], masked_BL: Tensor) -> Tensor:
    """Return each mask's term of the expectation, (B,) float64 on the host.

    Args:
        model: A denoiser.
        prompt: Token ids.
        answer: Token ids, L of them.
        masked_BL: True where the answer is masked, at one position of a row at least.
    """
    rows, length = masked_BL.shape
    answer_L = torch.tensor(answer)
    tokens_BL = torch.tensor([*prompt, *answer]).repeat(rows, 1)
    tokens_BL[:, len(prompt) :][masked_BL] = model.config.mask_token_id
    row_N, place_N = masked_BL.nonzero(as_tuple=True)
    wanted_N = row_N * tokens_BL.shape[1] + len(prompt) + place_N
    logits_NV = model.head(model.hidden(Query(tokens_BL, None, wanted_N)))
    log_p_NV = logits_NV.float().log_softmax(-1).cpu()
    log_p_N = log_p_NV.gather(-1, answer_L[place_N][:, None])[:, 0].double()
    sums_B = torch.zeros(rows, dtype=torch.float64).index_add_(0, row_N, log_p_N)
    return sums_B * length / masked_BL.sum(-1)


def exact(model: Any, prompt: Sequence[int], answer: Sequence[int]) -> float:
    """Return the expectation over all masks: 2 to the power of the answer's length, less one, forward passes.

    Args:
        model: A denoiser.
        prompt: Token ids; may be empty.
        answer: Token ids, at least one.
    """
    length = len(answer)
    total = 0.0
    for count in range(1, length + 1):
        for places in itertools.combinations(range(length), count):
            masked_1L = torch.zeros(1, length, dtype=torch.bool)
            masked_1L[0, list(places)] = True
            total += float(score(model, prompt, answer, masked_1L)) / (length * comb(length, count))
    return total


@torch.inference_mode()
def is_greedy(model: Any, prompt: Sequence[int], answer: Sequence[int]) -> bool:
    """Return whether every token of the answer is the most likely one where all of them are masked.

    Args:
        model: A denoiser.
        prompt: Token ids; may be empty.
        answer: Token ids, at least one.
    """
    tokens_1L = torch.tensor([[*prompt, *[model.config.mask_token_id] * len(answer)]])
    wanted_N = torch.arange(len(prompt), tokens_1L.shape[1])
    logits_NV = model.head(model.hidden(Query(tokens_1L, None, wanted_N)))
    return bool(logits_NV.argmax(-1).tolist() == list(answer))


def check_fits(model: Any, prompt: Sequence[int], answer: Sequence[int]) -> None:
    """Raise UserError for an empty answer, and for one that leaves the model's context with its prompt.

    Args:
        model: A denoiser, whose config has the length of its context.
        prompt: Token ids.
        answer: Token ids.
    """
    if not answer:
        raise UserError("the answer has no token: a likelihood is of one at least")
    total, context = len(prompt) + len(answer), model.config.max_sequence_length
    if total > context:
        raise UserError(
            f"prompt and answer have {total} tokens, {total - context} more than the model's context of {context}"
        )
