"""Run one forward pass and propose tokens at the masked positions of each row's active block.

Logits exist only for those positions, a chunk at a time; a (B, K, V) tensor is built only for a rule that asks for one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from dlmlab.denoiser import AttentionDenoiser, Denoiser
from dlmlab.loop.canvases import Canvases
from dlmlab.rule import Candidates, Rule
from dlmlab.types import CONFIDENCE_DTYPES, Generation

CHUNK_ELEMENTS = 2**24
"""Largest number of logits that are alive at a time: 64 MiB in float32."""
FUSED_CHUNK_ELEMENTS = 2**25
"""Largest number of logits that are alive at a time where they stay in bfloat16."""


class Pass(NamedTuple):
    """A forward pass under way.

    Attributes:
        slot: The positions of the active blocks that it is asked for, as indices into B × K.
        hidden_ND: The model's last hidden states there; twice as many in guided canvases, those of masked prompts last.
        attention_BKK: The attention between the active blocks' positions, for a rule that asks for it.
    """

    slot: np.ndarray
    hidden_ND: Tensor
    attention_BKK: Tensor | None = None


class Proposal(NamedTuple):
    """A forward pass's proposals; the fields are those of `Step`. A confidence is NaN where a logit is not finite."""

    token_BK: Tensor
    confidence_BK: Tensor
    measure_BK: Tensor | None = None
    logits_BKV: Tensor | None = None
    kept_BK: Tensor | None = None
    review_BK: Tensor | None = None
    candidates: Candidates | None = None
    attention_BKK: Tensor | None = None


def launch(model: Denoiser, canvases: Canvases, rule: Rule) -> Pass:
    """Run the model once, without its head.

    Args:
        model: The model.
        canvases: The rows.
        rule: The rows' rule, which says what is asked for.
    """
    slot = canvases.slots(rule.everywhere)
    query = canvases.query(slot)
    if rule.attends:
        shows = cast(AttentionDenoiser, model)  # or the rule was refused
        return Pass(slot, *shows.hidden_and_attention(query, torch.from_numpy(canvases.position_BK), rule.attends))
    return Pass(slot, model.hidden(query))


def propose(
    model: Denoiser,
    canvases: Canvases,
    generation: Generation,
    rule: Rule,
    state: tuple[Tensor, ...] = (),
    launched: Pass | None = None,
) -> Proposal:
    """Score the masked positions of the canvases' active blocks.

    Args:
        model: The model.
        canvases: The B rows.
        generation: How tokens are chosen and scored.
        rule: The rows' rule, stacked.
        state: The rule's states, each (B, …), for a rule that needs logits.
        launched: The forward pass, if it is under way.

    Returns:
        Tokens and confidences, (B, K), and whatever else the rule declares.
    """
    slot, hidden_ND, attention_BKK = launched or launch(model, canvases, rule)
    device, masked_BK = model.device, canvases.masked_BK
    row_N, slot_N = slot // masked_BK.shape[1], sent(slot, device)
    dtype = CONFIDENCE_DTYPES[generation.confidence_dtype]
    raw_BKV: Tensor | None = None
    if rule.needs_logits:
        raw_NV = logits_of(model, hidden_ND, slice(0, len(slot)), generation.cfg_scale, dtype)
        raw_BKV = raw_NV.new_zeros(masked_BK.size, raw_NV.shape[-1]).index_copy_(0, slot_N, raw_NV)
        raw_BKV = raw_BKV.view(*masked_BK.shape, -1)
        logits_NV = rule.transform(raw_BKV, state).flatten(0, 1)[slot_N]

    tokens: list[Tensor] = []
    scores: list[Tensor] = []
    measures: list[Tensor] = []
    kept: list[Tensor] = []
    fused = model.greedy_kernel and in_one_pass(generation, rule)
    most = max(1, (FUSED_CHUNK_ELEMENTS if fused else CHUNK_ELEMENTS) // model.config.vocab_size)
    for part, generator in chunks(row_N, canvases.generators, most, generation.temperature > 0):
        if fused:
            token, score = greedy(known(model.head(hidden_ND[part]), model), model, generation)
        else:
            if rule.needs_logits:
                logits = logits_NV[part]
            else:
                logits = logits_of(model, hidden_ND, part, generation.cfg_scale, dtype)
            finite = logits.sum(-1).isfinite()
            token, probability = sample(logits, model, generation, generator)
            score = probability.gather(-1, token[:, None])[:, 0].masked_fill(~finite, torch.nan)
        tokens.append(token)
        scores.append(score)
        if rule.measures:
            measures.append(rule.measure(probability))
        if rule.revokes:
            present = sent(canvases.at(np.take(canvases.position_BK, slot[part])), device)
            kept.append(probability.gather(-1, present[:, None])[:, 0])
    token_N, score_N = torch.cat(tokens), torch.cat(scores)
    measure_N = torch.cat(measures) if rule.measures else None
    if generation.confidence_eos_eot_inf or generation.confidence_eos_eot_zero:
        end_N = torch.isin(token_N, torch.tensor(model.end_token_ids, device=device))
        score_N = score_N.masked_fill(end_N & ~score_N.isnan(), 0.0)
        if measure_N is not None:
            nothing = measure_of_ignorance(rule, model, measure_N)
            measure_N = measure_N.where(like_shaped(~end_N, measure_N), nothing)

    def spread(values_N: Tensor, empty: float) -> Tensor:
        more = values_N.shape[1:]
        all_N = values_N.new_full((masked_BK.size, *more), empty).index_copy_(0, slot_N, values_N)
        return all_N.view(*masked_BK.shape, *more)

    token_BK, confidence_BK = spread(token_N, 0), spread(score_N, -torch.inf)
    measure_BK = None if measure_N is None else spread(measure_N, -torch.inf)
    if not rule.everywhere:
        return Proposal(token_BK, confidence_BK, measure_BK, raw_BKV, attention_BKK=attention_BKK)
    eligible_BK, committed_BK = sent(masked_BK, device), sent(canvases.committed_BK, device)
    kept_BK = review_BK = None
    if rule.revokes:
        kept_BK = spread(torch.cat(kept), -torch.inf).masked_fill(~committed_BK, -torch.inf)
    if rule.edits:
        other_BK = committed_BK & (token_BK != sent(canvases.at(canvases.position_BK), device))
        review_BK = confidence_BK.masked_fill(~other_BK, -torch.inf)
    confidence_BK = confidence_BK.masked_fill(~eligible_BK & ~confidence_BK.isnan(), -torch.inf)
    return Proposal(token_BK, confidence_BK, measure_BK, raw_BKV, kept_BK, review_BK, attention_BKK=attention_BKK)


def logits_of(model: Denoiser, hidden_ND: Tensor, part: slice, cfg_scale: float, dtype: torch.dtype) -> Tensor:
    """Return the logits at some of the positions that a pass was asked for, guided away from those of masked prompts.

    Source: LLaDA, arXiv:2502.09992, appendix A.2, and its code, whose scale this is.

    Args:
        model: Its head makes the logits.
        hidden_ND: The last hidden states of the pass; with guidance those of masked prompts follow.
        part: Which of the N positions.
        cfg_scale: The guidance's scale; at 0 there is none.
        dtype: Type of the logits.
    """
    logits_NV = model.head(hidden_ND[part]).to(dtype)
    if not cfg_scale:
        return logits_NV
    half = len(hidden_ND) // 2
    blind_NV = model.head(hidden_ND[half + part.start : half + part.stop]).to(dtype)
    return blind_NV + (cfg_scale + 1) * (logits_NV - blind_NV)


def measure_of_ignorance(rule: Rule, model: Denoiser, like: Tensor) -> Tensor:
    """Return the rule's measure, (1,) or (1, M), of a position at which all tokens are equally likely.

    Args:
        rule: A rule with `measures`.
        model: Says how many tokens there are.
        like: Gives dtype and device.
    """
    size = model.config.padded_vocab_size
    return rule.measure(like.new_full((1, size), 1 / size))


def like_shaped(mask: Tensor, values: Tensor) -> Tensor:
    """Return a mask of positions with as many axes as the values that it is for.

    Args:
        mask: A mask, (N,).
        values: Numbers for each position, (N, …).
    """
    return mask.view(*mask.shape, *[1] * (values.ndim - mask.ndim))


def sent(values: np.ndarray, device: torch.device) -> Tensor:
    """Send values to the device without waiting for the copy, nor for what the device does before it.

    Args:
        values: An array on the host.
        device: Where it goes.
    """
    return torch.from_numpy(values).to(device, non_blocking=True)


def in_one_pass(generation: Generation, rule: Rule) -> bool:
    """Return whether tokens and confidences are all that is needed of the logits, at their own precision.

    Args:
        generation: How canvases are laid out, scheduled and scored.
        rule: The rows' rule.
    """
    more = rule.needs_logits or rule.measures or rule.everywhere or generation.temperature > 0
    more = (
        more
        or generation.cfg_scale > 0
        or generation.confidence_eos_eot_inf
        or generation.top_k is not None
        or generation.top_p is not None
    )
    return not more and generation.confidence_dtype == "float32"


def known(logits_NV: Tensor, model: Denoiser) -> Tensor:
    """Return the logits of tokens that exist: an embedding may be padded beyond the vocabulary.

    Args:
        logits_NV: The logits, which may be wider than the vocabulary.
        model: Says how many tokens there are.
    """
    return logits_NV[:, : model.config.vocab_size].contiguous()


def greedy(logits_NV: Tensor, model: Denoiser, generation: Generation) -> tuple[Tensor, Tensor]:
    """Return what `sample` proposes at temperature 0, and its probability, by a kernel that reads the logits once.

    Args:
        logits_NV: The logits of tokens that exist.
        model: Says which tokens are never proposed.
        generation: Whether end tokens may be proposed.
    """
    from dlmlab.kernel.greedy import greedy as kernel

    banned = model.config.eos_token_id if generation.logits_eos_inf else None
    return kernel(logits_NV, model.config.mask_token_id, banned)


def chunks(
    row_N: np.ndarray, generators: Sequence[torch.Generator | None], most: int, per_row: bool
) -> Iterator[tuple[slice, torch.Generator | None]]:
    """Cut N positions into parts of at most `most`. Where noise is drawn, a part lies in one row and has its
    generator.

    Args:
        row_N: The row of each position, ascending.
        generators: The source of randomness of each row.
        most: Most positions of a part.
        per_row: Whether noise is drawn.
    """
    ends = [*np.flatnonzero(np.diff(row_N)) + 1, len(row_N)] if per_row else [len(row_N)]
    begin = 0
    for end in ends:
        generator = generators[row_N[begin]] if per_row else None
        for low in range(begin, end, most):
            yield slice(low, min(low + most, end)), generator
        begin = end


def sample(
    logits_NV: Tensor, model: Denoiser, generation: Generation, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Propose tokens; overwrites the logits.

    The mask token counts in the softmax, as in LLaDA's published code, but is never proposed: a committed mask would
    be masked still. End tokens don't count with `confidence_eos_eot_inf`, and may be proposed
    (at a temperature the published code leaves out the end of turn alone). What pads the embedding
    beyond the vocabulary is no token: it neither counts nor is proposed. At a temperature the choice is LLaDA's
    Gumbel-max, in float64 as there (arXiv:2409.02908).

    Args:
        logits_NV: The logits at N positions.
        model: The model that they come from.
        generation: How tokens are chosen and scored.
        generator: The source of randomness; None chooses the likeliest token.

    Returns:
        The proposed tokens, (N,), and all probabilities, (N, V).
    """
    if logits_NV.shape[1] > model.config.vocab_size:
        logits_NV[:, model.config.vocab_size :] = -torch.inf
    if generation.logits_eos_inf:
        logits_NV[:, model.config.eos_token_id] = -torch.inf
    if generation.tempered and generator is not None:
        logits_NV /= generation.temperature
    likeliest_(logits_NV, generation.top_k, generation.top_p)
    counted_NV = logits_NV
    if generation.confidence_eos_eot_inf:
        ends = torch.tensor(model.end_token_ids, device=logits_NV.device)
        counted_NV = logits_NV.index_fill(-1, ends, -torch.inf)
    probability_NV = counted_NV.softmax(-1)
    logits_NV[:, model.config.mask_token_id] = -torch.inf
    if generator is None:
        return logits_NV.argmax(-1), probability_NV
    uniform_NV = torch.rand(logits_NV.shape, generator=generator, dtype=torch.float64, device=logits_NV.device)
    noise_NV = -(-uniform_NV.log()).log()
    temperature = 1.0 if generation.tempered else generation.temperature
    return (logits_NV.double() + temperature * noise_NV).argmax(-1), probability_NV


def likeliest_(logits_NV: Tensor, top_k: int | None, top_p: float | None) -> None:
    """Overwrite the logits of all but the likeliest tokens with -inf.

    By top_p first and top_k then, as in Dream's published code.

    Args:
        logits_NV: Logits; they are overwritten.
        top_k: So many tokens stay, and what is as likely as the last one; None is all.
        top_p: The fewest tokens stay whose probabilities sum to more than it; None is all.
    """
    if top_p is not None and top_p < 1:
        sorted_NV, order_NV = logits_NV.sort(-1, descending=True)
        before_NV = sorted_NV.softmax(-1).cumsum(-1).roll(1, -1)
        before_NV[:, 0] = 0
        logits_NV.masked_fill_(torch.zeros_like(before_NV > 0).scatter_(-1, order_NV, before_NV > top_p), -torch.inf)
    if top_k is not None and top_k < logits_NV.shape[-1]:
        least_N1 = logits_NV.topk(top_k, -1).values[:, -1:]
        logits_NV.masked_fill_(logits_NV < least_N1, -torch.inf)
