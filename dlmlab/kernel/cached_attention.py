"""Attention of a few new tokens of each row over keys and values that are kept from earlier passes.

New keys and values are written where they are kept, rotated; then a row's queries go over its kept keys, which several
programs share where queries are few (flash-decoding; each writes what is new in its share itself), and a last kernel
joins their parts. Rows follow each other without padding, and each has its own number of queries and of keys.
"""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from dlmlab.kernel.attention import Reach, _rotated

QUERIES, KEYS = 32, 64
"""New tokens, and kept ones, that a program works on at a time; a block of the field's usual length is 32."""


class KeptRows(NamedTuple):
    """Where the tokens of a pass go, and what each row attends to; int32, on the device.

    Attributes:
        position_T: Each new token's position in its row.
        into_T: Where its key and value are kept, as an index into the S kept positions; -1 where it is no token.
        begin_B: Where each row's tokens begin, and behind them where the last one's end, (B + 1,).
        base_B: Where each row's kept positions begin.
        keys_B: How many positions each row has.
    """

    position_T: Tensor
    into_T: Tensor
    begin_B: Tensor
    base_B: Tensor
    keys_B: Tensor


@triton.jit
def _keep(
    qkv_ptr, position_ptr, into_ptr, cos_ptr, sin_ptr, key_ptr, value_ptr, T,
    H: tl.constexpr, G: tl.constexpr, E: tl.constexpr, R: tl.constexpr, Q: tl.constexpr,
):  # fmt: skip
    """A program: one head's keys, rotated, and values of Q tokens, to where they are kept."""
    group = tl.program_id(0)
    token = tl.program_id(1) * Q + tl.arange(0, Q)
    into = tl.load(into_ptr + token, token < T, -1)
    real = into >= 0
    turn = tl.load(position_ptr + token, real, 0)
    at = into.to(tl.int64)[:, None] * (G * E) + group * E
    _write(qkv_ptr, token.to(tl.int64), real, turn, at, group, cos_ptr, sin_ptr, key_ptr, value_ptr, H, G, E, R)


@triton.jit
def _write(
    qkv_ptr, token, real, turn, at, group, cos_ptr, sin_ptr, key_ptr, value_ptr,
    H: tl.constexpr, G: tl.constexpr, E: tl.constexpr, R: tl.constexpr,
):  # fmt: skip
    """Write one head's keys, rotated, and values of these tokens, each `at` its place among those kept, (tokens, 1)."""
    WIDTH: tl.constexpr = (H + 2 * G) * E
    low, high = _rotated(qkv_ptr + (H + group) * E, token, real, turn, WIDTH, cos_ptr, sin_ptr, E, R)
    half = tl.arange(0, E // 2)[None, :]
    tl.store(key_ptr + at + half, _narrowed(low, key_ptr), real[:, None])
    tl.store(key_ptr + at + E // 2 + half, _narrowed(high, key_ptr), real[:, None])
    e = tl.arange(0, E)[None, :]
    value = tl.load(qkv_ptr + (H + G + group) * E + token[:, None] * WIDTH + e, real[:, None], 0.0)
    tl.store(value_ptr + at + e, _narrowed(value, value_ptr), real[:, None])


@triton.jit
def _narrowed(x, out_ptr):
    """Return x as it is kept; in FP8 what is beyond its largest number becomes that."""
    if out_ptr.dtype.element_ty == tl.float8e4nv:
        x = tl.minimum(tl.maximum(x.to(tl.float32), -448.0), 448.0)
    return x.to(out_ptr.dtype.element_ty)


@triton.jit
def _attend(
    qkv_ptr, position_ptr, begin_ptr, base_ptr, keys_ptr, cos_ptr, sin_ptr, key_ptr, value_ptr, out_ptr, part_ptr,
    scale, H: tl.constexpr, G: tl.constexpr, E: tl.constexpr, R: tl.constexpr, Q: tl.constexpr, K: tl.constexpr,
    SPLITS: tl.constexpr, T, KEEP: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A program: Q queries of one head of one row, over a share of the row's keys, K at a time (arXiv:2205.14135).

    With KEEP, where no row has more than Q new tokens, it first writes those that belong to its share. Of grouped heads
    each writes the same. With BLOCK, no position sees a later block of so many, nor reads what is kept there.
    """
    head, row, split = tl.program_id(0), tl.program_id(2) // SPLITS, tl.program_id(2) % SPLITS
    begin = tl.load(begin_ptr + row)
    count = tl.load(begin_ptr + row + 1) - begin
    if tl.program_id(1) * Q >= count:
        return
    length = tl.load(keys_ptr + row)
    share = tl.cdiv(tl.cdiv(length, K), SPLITS) * K
    WIDTH: tl.constexpr = (H + 2 * G) * E
    group = head // (H // G)
    q = tl.program_id(1) * Q + tl.arange(0, Q)
    e, half = tl.arange(0, E)[None, :], tl.arange(0, E // 2)[None, :]
    turn = tl.load(position_ptr + begin + q, q < count, 0)
    new = qkv_ptr + begin.to(tl.int64) * WIDTH
    q_low, q_high = _rotated(new + head * E, q, q < count, turn, WIDTH, cos_ptr, sin_ptr, E, R)
    kept = tl.load(base_ptr + row).to(tl.int64) * (G * E) + group * E
    if KEEP:
        own = (q < count) & (turn >= split * share) & (turn < split * share + share)
        into = kept + turn.to(tl.int64)[:, None] * (G * E)
        _write(new, q, own, turn, into, group, cos_ptr, sin_ptr, key_ptr, value_ptr, H, G, E, R)
        tl.debug_barrier()
    mixed = tl.zeros((Q, E), tl.float32)
    top = tl.full((Q,), float("-inf"), tl.float32)
    total = tl.zeros((Q,), tl.float32)
    if BLOCK:  # what is kept behind may be anything
        length = tl.minimum(length, (tl.max(turn) // BLOCK + 1) * BLOCK)
    for first in range(split * share, tl.minimum(split * share + share, length), K):
        k = first + tl.arange(0, K)
        there = (k < length)[:, None]
        at = kept + k[:, None] * (G * E)
        k_low = tl.load(key_ptr + at + half, there, 0.0).to(q_low.dtype)
        k_high = tl.load(key_ptr + at + E // 2 + half, there, 0.0).to(q_low.dtype)
        score = tl.dot(q_low, k_low.T, input_precision="ieee")
        score = tl.dot(q_high, k_high.T, score, input_precision="ieee") * scale
        seen = (k < length)[None, :]
        if BLOCK:
            seen = seen & (k[None, :] // BLOCK <= turn[:, None] // BLOCK)
        score = tl.where(seen, score, float("-inf"))
        new_top = tl.maximum(top, tl.max(score, 1))
        level = new_top
        if BLOCK:  # a query that sees nothing of a share has no top there
            level = tl.where(new_top == float("-inf"), 0.0, new_top)
        weight = tl.exp(score - level[:, None])
        faded = tl.exp(top - level)
        total = total * faded + tl.sum(weight, 1)
        v = tl.load(value_ptr + at + e, there, 0.0).to(q_low.dtype)
        mixed = tl.dot(weight.to(v.dtype), v, mixed * faded[:, None], input_precision="ieee")
        top = new_top
    token = (begin + q).to(tl.int64)
    if SPLITS == 1:
        at = out_ptr + token[:, None] * (H * E) + head * E + e
        tl.store(at, (mixed / total[:, None]).to(out_ptr.dtype.element_ty), (q < count)[:, None])
    else:
        at = (split * T + token) * H + head
        tl.store(part_ptr + at[:, None] * (E + 2) + e, mixed, (q < count)[:, None])
        tl.store(part_ptr + at * (E + 2) + E, top, q < count)
        tl.store(part_ptr + at * (E + 2) + E + 1, total, q < count)


@triton.jit
def _join(begin_ptr, part_ptr, out_ptr, B, T, H: tl.constexpr, E: tl.constexpr, SPLITS: tl.constexpr):
    """A program: one head of one token, from what the shares of its keys came to."""
    token, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    if token >= tl.load(begin_ptr + B):
        return
    e = tl.arange(0, E)
    at = ((tl.arange(0, SPLITS) * T + token) * H + head) * (E + 2)
    top = tl.load(part_ptr + at + E)
    weight = tl.exp(top - tl.max(top, 0))
    total = tl.sum(tl.load(part_ptr + at + E + 1) * weight, 0)
    mixed = tl.sum(tl.load(part_ptr + at[:, None] + e[None, :]) * weight[:, None], 0)
    tl.store(out_ptr + token * (H * E) + head * E + e, (mixed / total).to(out_ptr.dtype.element_ty))


def cached_attention(
    qkv_TD: Tensor,
    rows: KeptRows,
    reach: Reach,
    rotary: tuple[Tensor, Tensor],
    kept_2SGE: Tensor,
    out_TD: Tensor,
    part: Tensor | None,
) -> None:
    """Keep the new keys and values, and mix for each new token what its row has kept.

    Args:
        qkv_TD: Queries, keys and values side by side, of rows that follow each other, (T, (heads + 2 kv_heads) × E).
        rows: Where they belong; see KeptRows.
        reach: How far queries reach.
        rotary: See `dlmlab.model.llada.LLaDAModel.rotary`.
        kept_2SGE: A layer's keys, rotated, and its values; written and read.
        out_TD: Takes the mixed heads, (T, heads × E). What stands behind the last row stays as it is.
        part: Room for the parts of shares of keys, float32, (shares, T, heads, E + 2); None where one program goes
            over all keys of a row.
    """
    _, _, kv_heads, width = kept_2SGE.shape
    heads = out_TD.shape[-1] // width
    key_SGE, value_SGE = kept_2SGE
    splits, tokens, turned = 1 if part is None else part.shape[0], len(qkv_TD), rotary[0].shape[-1]
    if reach.tiles > 1:
        _keep[(kv_heads, triton.cdiv(tokens, QUERIES))](
            qkv_TD, rows.position_T, rows.into_T, *rotary, key_SGE, value_SGE, tokens,
            H=heads, G=kv_heads, E=width, R=turned, Q=QUERIES, num_warps=4,
        )  # fmt: skip
    _attend[(heads, reach.tiles, len(rows.base_B) * splits)](
        qkv_TD, rows.position_T, rows.begin_B, rows.base_B, rows.keys_B, *rotary, key_SGE, value_SGE, out_TD,
        out_TD if part is None else part, width**-0.5,
        H=heads, G=kv_heads, E=width, R=turned, Q=QUERIES, K=KEYS, SPLITS=splits, T=tokens, KEEP=reach.tiles == 1,
        BLOCK=reach.block_length, num_warps=4, num_stages=3,
    )  # fmt: skip
    if part is not None:
        _join[(tokens, heads)](
            rows.begin_B, part, out_TD, len(rows.base_B), tokens, H=heads, E=width, SPLITS=splits, num_warps=1
        )
