"""The likeliest token of each position and its probability, in one pass over logits that stay in their own
precision.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 4096
FEW_POSITIONS = 128
PARTS_OF_FEW, PARTS_OF_MANY = 16, 4
"""Programs that share a position's vocabulary: more where few positions would leave most of the GPU idle."""


@triton.jit
def _part(
    logits_ptr, token_ptr, best_ptr, top_ptr, total_ptr, V, SPAN, mask_token, banned,
    PARTS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Of one part of the vocabulary: the best token, its logit, and the largest logit and sum of the softmax."""
    position, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    lane = tl.arange(0, BLOCK)
    top = tl.full((BLOCK,), -1e30, tl.float32)
    best = tl.full((BLOCK,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    token = lane
    broken = lane < 0
    end = tl.minimum((part + 1) * SPAN, V)
    for first in range(part * SPAN, end, BLOCK):
        v = first + lane
        x = tl.load(logits_ptr + position * V + v, v < end, 0.0).to(tl.float32)
        broken = broken | (x - x != 0)
        x = tl.where((v == banned) | (v >= end), float("-inf"), x)
        higher = x > top
        e = tl.exp(tl.where(higher, top - x, x - top))  # of the two, the one that is not raised to the power of zero
        total = tl.where(higher, total * e + 1, total + e)
        top = tl.where(higher, x, top)
        better = (x > best) & (v != mask_token)
        token = tl.where(better, v, token)
        best = tl.where(better, x, best)
    high = tl.max(top, 0)
    highest = tl.max(best, 0)
    at = position * PARTS + part
    whole = tl.max(broken.to(tl.int32), 0) == 0
    tl.store(total_ptr + at, tl.where(whole, tl.sum(total * tl.exp(top - high), 0), float("nan")))
    tl.store(top_ptr + at, high)
    tl.store(best_ptr + at, highest)
    tl.store(token_ptr + at, tl.min(tl.where(best == highest, token, V), 0))


@triton.jit
def _join(part_token_ptr, best_ptr, top_ptr, total_ptr, token_ptr, probability_ptr, PARTS: tl.constexpr):
    position = tl.program_id(0)
    at = position * PARTS + tl.arange(0, PARTS)
    top, best = tl.load(top_ptr + at), tl.load(best_ptr + at)
    high, highest = tl.max(top, 0), tl.max(best, 0)
    total = tl.sum(tl.load(total_ptr + at) * tl.exp(top - high), 0)
    token = tl.min(tl.where(best == highest, tl.load(part_token_ptr + at), 2147483647), 0)
    tl.store(token_ptr + position, token.to(tl.int64))
    tl.store(probability_ptr + position, tl.exp(highest - high) / total)


def greedy(logits_NV: Tensor, mask_token: int, banned: int | None = None) -> tuple[Tensor, Tensor]:
    """Return each position's likeliest token but the mask token, (N,) int64, and its softmax probability, (N,)
    float32.

    The probability is NaN where a logit isn't finite. Of equal logits the token with the smallest id is taken.

    Args:
        logits_NV: Logits in any precision, on a GPU, in contiguous memory; computed with in float32.
        mask_token: The id of a token that is never returned, but counts in the softmax.
        banned: The id of a token that is never returned, and doesn't count in the softmax; None bans none.
    """
    positions, vocabulary = logits_NV.shape
    count = PARTS_OF_FEW if positions <= FEW_POSITIONS else PARTS_OF_MANY
    parts = logits_NV.new_empty(3, positions, count, dtype=torch.float32)
    part_token = logits_NV.new_empty(positions, count, dtype=torch.int32)
    token_N = logits_NV.new_empty(positions, dtype=torch.int64)
    probability_N = logits_NV.new_empty(positions, dtype=torch.float32)
    span = triton.cdiv(triton.cdiv(vocabulary, count), BLOCK) * BLOCK
    _part[(positions, count)](
        logits_NV, part_token, parts[0], parts[1], parts[2], vocabulary, span, mask_token,
        -1 if banned is None else banned, PARTS=count, BLOCK=BLOCK, num_warps=8,
    )  # fmt: skip
    _join[(positions,)](part_token, parts[0], parts[1], parts[2], token_N, probability_N, PARTS=count, num_warps=1)
    return token_N, probability_N
