"""One forward pass: what the model proposes at the masked places of each row's active block.

Logits exist only for those places, a chunk at a time; a (B, K, V) tensor is built only for a rule that asks for one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dlmlab.types import CONFIDENCE_DTYPES, Denoiser, Generation, Rule

CHUNK_ELEMENTS = 2**24
"""Logits that are alive at a time: 64 MiB in float32."""


class Window(NamedTuple):
    """A row as the model sees it: its tokens (L,), where its active block begins, and its source of randomness."""

    tokens: np.ndarray
    start: int
    generator: torch.Generator


class Proposal(NamedTuple):
    """See `Step`, which has the same fields. A confidence is NaN where a logit is not finite."""

    token_BK: Tensor
    confidence_BK: Tensor
    measure_BK: Tensor | None = None
    logits_BKV: Tensor | None = None
    kept_BK: Tensor | None = None


@torch.inference_mode()
def propose(
    model: Denoiser, windows: Sequence[Window], generation: Generation, rule: Rule, state: tuple[Tensor, ...] = ()
) -> Proposal:
    """Run the model once over B windows of any lengths and score the masked places of their blocks."""
    width, device = generation.block_length, model.device
    tokens_BL, mask_BL = pad([window.tokens for window in windows], model.config.pad_token_id)
    block_BK = np.array([window.tokens[window.start : window.start + width] for window in windows])
    masked_BK = block_BK == model.config.mask_token_id
    row_N, place_N = np.nonzero(np.ones_like(masked_BK) if rule.revokes else masked_BK)
    start_B = np.array([window.start for window in windows])
    where_N = torch.from_numpy(row_N * tokens_BL.shape[1] + start_B[row_N] + place_N).to(device)
    slot_N = torch.from_numpy(row_N * width + place_N).to(device)

    mask = None if mask_BL is None else torch.from_numpy(mask_BL).to(device)
    hidden_ND = model.hidden(torch.from_numpy(tokens_BL).to(device), mask, where_N)
    dtype = CONFIDENCE_DTYPES[generation.confidence_dtype]
    raw_BKV: Tensor | None = None
    if rule.needs_logits:
        raw_NV = model.head(hidden_ND).to(dtype)
        raw_BKV = raw_NV.new_zeros(masked_BK.size, raw_NV.shape[-1]).index_copy_(0, slot_N, raw_NV)
        raw_BKV = raw_BKV.view(*masked_BK.shape, -1)
        logits_NV = rule.transform(raw_BKV, state).flatten(0, 1)[slot_N]

    tokens, scores, measures, kept, finite = (list[Tensor]() for _ in range(5))
    for part, generator in chunks(row_N, windows, model.config.vocab_size, generation.temperature > 0):
        logits = logits_NV[part] if rule.needs_logits else model.head(hidden_ND[part]).to(dtype)
        finite.append(logits.sum(-1).isfinite())
        token, probability = choose(logits, model, generation, generator)
        tokens.append(token)
        scores.append(probability.gather(-1, token[:, None])[:, 0])
        if rule.measures:
            measures.append(rule.measure(probability))
        if rule.revokes:
            present = torch.from_numpy(block_BK[row_N[part], place_N[part]]).to(device)
            kept.append(probability.gather(-1, present[:, None])[:, 0])
    token_N, score_N = torch.cat(tokens), torch.cat(scores)
    if generation.confidence_eos_eot_inf:
        ends = torch.tensor(model.end_token_ids, device=device)
        score_N = score_N.masked_fill(torch.isin(token_N, ends), 0.0)
    score_N = score_N.masked_fill(~torch.cat(finite), torch.nan)

    def spread(values_N: Tensor, empty: float) -> Tensor:
        return values_N.new_full((masked_BK.size,), empty).index_copy_(0, slot_N, values_N).view(masked_BK.shape)

    token_BK, confidence_BK = spread(token_N, 0), spread(score_N, -torch.inf)
    measure_BK = spread(torch.cat(measures), -torch.inf) if rule.measures else None
    if not rule.revokes:
        return Proposal(token_BK, confidence_BK, measure_BK, raw_BKV)
    eligible_BK = torch.from_numpy(masked_BK).to(device)
    kept_BK = spread(torch.cat(kept), -torch.inf).masked_fill(eligible_BK, -torch.inf)
    confidence_BK = confidence_BK.masked_fill(~eligible_BK & ~confidence_BK.isnan(), -torch.inf)
    if measure_BK is not None:
        measure_BK = measure_BK.masked_fill(~eligible_BK, -torch.inf)
    return Proposal(token_BK, confidence_BK, measure_BK, raw_BKV, kept_BK)


def pad(rows: Sequence[np.ndarray], pad_token: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Rows as one (B, L) array, padded on the right, and True at the places that count; None where all do.

    On the right, so that every row's positions count from 0 whatever its neighbours' lengths are.
    """
    lengths = [len(row) for row in rows]
    if len(set(lengths)) == 1:
        return np.array(rows), None
    tokens_BL = np.full((len(rows), max(lengths)), pad_token, dtype=np.int64)
    for tokens_L, row in zip(tokens_BL, rows, strict=True):
        tokens_L[: len(row)] = row
    return tokens_BL, np.arange(max(lengths)) < np.array(lengths)[:, None]


def chunks(
    row_N: np.ndarray, windows: Sequence[Window], vocab_size: int, per_row: bool
) -> Iterator[tuple[slice, torch.Generator | None]]:
    """Cut N places into parts of bounded size. Where noise is drawn, a part lies in one row and has its generator."""
    most = max(1, CHUNK_ELEMENTS // vocab_size)
    ends = [*np.flatnonzero(np.diff(row_N)) + 1, len(row_N)] if per_row else [len(row_N)]
    begin = 0
    for end in ends:
        generator = windows[row_N[begin]].generator if per_row else None
        for low in range(begin, end, most):
            yield slice(low, min(low + most, end)), generator
        begin = end


def choose(
    logits_NV: Tensor, model: Denoiser, generation: Generation, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Proposed tokens (N,) and all probabilities (N, V); overwrites the logits.

    The mask token counts in the softmax, as in LLaDA's published code, but is never proposed: a committed mask would
    be masked still. At a temperature the choice is LLaDA's Gumbel-max, in float64 as there (arXiv:2409.02908).
    """
    if generation.logits_eos_inf:
        logits_NV[:, model.config.eos_token_id] = -torch.inf
    probability_NV = logits_NV.softmax(-1)
    logits_NV[:, model.config.mask_token_id] = -torch.inf
    if generator is None:
        return logits_NV.argmax(-1), probability_NV
    uniform_NV = torch.rand(logits_NV.shape, generator=generator, dtype=torch.float64, device=logits_NV.device)
    noise_NV = -(-uniform_NV.log()).log()
    return (logits_NV.double() + generation.temperature * noise_NV).argmax(-1), probability_NV
