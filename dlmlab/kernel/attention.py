"""Rotary positions and attention, from the projections' output to the mixed heads, in one pass.

Rows of different lengths follow each other without padding. Attention sees both directions, or no later block.
"""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

QUERIES, KEYS = 64, 64
"""Tokens that a program works on at a time; measured on LLaDA-8B's shape, canvases of 96 positions."""


class Reach(NamedTuple):
    """How far the queries of a row reach.

    Attributes:
        tiles: Tiles of QUERIES tokens, at least as many as the row with the most new tokens has.
        block_length: Positions of a block, where none sees a later one; 0 where all of a row is seen.
    """

    tiles: int
    block_length: int = 0


@triton.jit
def _rotated(base_ptr, token, real, position, width, cos_ptr, sin_ptr, E: tl.constexpr, R: tl.constexpr):
    """The two halves of a head's vectors of these tokens, turned by their positions (arXiv:2104.09864).

    All of a vector is turned, or R numbers at its beginning, half of it at most.
    """
    e = tl.arange(0, E // 2)[None, :]
    at = base_ptr + token[:, None] * width + e
    low = tl.load(at, real[:, None], 0.0).to(tl.float32)
    high = tl.load(at + E // 2, real[:, None], 0.0).to(tl.float32)
    dtype = base_ptr.dtype.element_ty
    if R < E:
        turned = real[:, None] & (e < R)
        pair = tl.load(at + tl.where(e < R // 2, R // 2, -(R // 2)), turned, 0.0).to(tl.float32)
        cos = tl.load(cos_ptr + position[:, None] * R + e, turned, 1.0)
        sin = tl.load(sin_ptr + position[:, None] * R + e, turned, 0.0)
        return (low * cos + pair * sin).to(dtype), high.to(dtype)
    else:
        cos = tl.load(cos_ptr + position[:, None] * E + e, real[:, None], 0.0)
        sin = tl.load(sin_ptr + position[:, None] * E + E // 2 + e, real[:, None], 0.0)
        return (low * cos - high * sin).to(dtype), (high * cos + low * sin).to(dtype)


@triton.jit
def _attention(
    qkv_ptr, position_ptr, begin_ptr, cos_ptr, sin_ptr, out_ptr, scale,
    H: tl.constexpr, G: tl.constexpr, E: tl.constexpr, R: tl.constexpr, Q: tl.constexpr, K: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """A program: Q queries of one head of one row, over all of its keys, K at a time (arXiv:2205.14135)."""
    head, row = tl.program_id(0), tl.program_id(2)
    begin = tl.load(begin_ptr + row)
    length = tl.load(begin_ptr + row + 1) - begin
    if tl.program_id(1) * Q >= length:
        return
    WIDTH: tl.constexpr = (H + 2 * G) * E
    group = head // (H // G)
    base = qkv_ptr + begin.to(tl.int64) * WIDTH
    q = tl.program_id(1) * Q + tl.arange(0, Q)
    e = tl.arange(0, E)[None, :]
    turn = tl.load(position_ptr + begin + q, q < length, 0)
    q_low, q_high = _rotated(base + head * E, q, q < length, turn, WIDTH, cos_ptr, sin_ptr, E, R)
    mixed = tl.zeros((Q, E), tl.float32)
    top = tl.full((Q,), float("-inf"), tl.float32)
    total = tl.zeros((Q,), tl.float32)
    for first in range(0, length, K):
        k = first + tl.arange(0, K)
        key_turn = tl.load(position_ptr + begin + k, k < length, 0)
        k_low, k_high = _rotated(base + (H + group) * E, k, k < length, key_turn, WIDTH, cos_ptr, sin_ptr, E, R)
        score = tl.dot(q_low, k_low.T, input_precision="ieee")
        score = tl.dot(q_high, k_high.T, score, input_precision="ieee") * scale
        seen = (k < length)[None, :]
        if BLOCK:
            seen = seen & (key_turn[None, :] // BLOCK <= turn[:, None] // BLOCK)
        score = tl.where(seen, score, float("-inf"))
        new_top = tl.maximum(top, tl.max(score, 1))
        weight = tl.exp(score - new_top[:, None])
        faded = tl.exp(top - new_top)
        total = total * faded + tl.sum(weight, 1)
        v = tl.load(base + (H + G + group) * E + k[:, None] * WIDTH + e, (k < length)[:, None], 0.0)
        mixed = tl.dot(weight.to(v.dtype), v, mixed * faded[:, None], input_precision="ieee")
        top = new_top
    at = out_ptr + (begin.to(tl.int64) + q[:, None]) * (H * E) + head * E + e
    tl.store(at, (mixed / total[:, None]).to(out_ptr.dtype.element_ty), (q < length)[:, None])


def attention(
    qkv_TD: Tensor,
    position_T: Tensor,
    begin_B: Tensor,
    reach: Reach,
    rotary: tuple[Tensor, Tensor],
    heads: tuple[int, int],
    out_TD: Tensor,
) -> None:
    """Rotate queries and keys by their positions, and mix for each token the values that it sees of its row.

    Args:
        qkv_TD: Queries, keys and values side by side, of rows that follow each other, (T, (heads + 2 kv_heads) × E).
        position_T: int32: each token's position in its row.
        begin_B: int32: where each row begins, and behind them where the last one ends, (B + 1,).
        reach: How far queries reach.
        rotary: See `dlmlab.model.llada.LLaDAModel.rotary`.
        heads: How many heads the queries have, and how many keys and values have.
        out_TD: Takes the mixed heads, (T, heads × E). What stands behind the last row stays as it is.
    """
    query_heads, kv_heads = heads
    head_width = qkv_TD.shape[-1] // (query_heads + 2 * kv_heads)
    _attention[(query_heads, reach.tiles, len(begin_B) - 1)](
        qkv_TD, position_T, begin_B, *rotary, out_TD, head_width**-0.5,
        H=query_heads, G=kv_heads, E=head_width, R=rotary[0].shape[-1], Q=QUERIES, K=KEYS, BLOCK=reach.block_length,
        num_warps=4, num_stages=1,
    )  # fmt: skip
