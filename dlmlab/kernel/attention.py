"""Rotary positions and attention in both directions, from the projections' output to the mixed heads, in one pass."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

QUERIES, KEYS = 64, 64
"""Places that a program works on at a time; measured on LLaDA-8B's shape, canvases of 96 places."""


@triton.jit
def _rotated(base_ptr, place, real, width, cos_ptr, sin_ptr, E: tl.constexpr):
    """The two halves of a head's vectors at these places, turned by their positions (arXiv:2104.09864)."""
    e = tl.arange(0, E // 2)[None, :]
    at = base_ptr + place[:, None] * width + e
    low = tl.load(at, real[:, None], 0.0).to(tl.float32)
    high = tl.load(at + E // 2, real[:, None], 0.0).to(tl.float32)
    cos = tl.load(cos_ptr + place[:, None] * E + e, real[:, None], 0.0)
    sin = tl.load(sin_ptr + place[:, None] * E + E // 2 + e, real[:, None], 0.0)
    dtype = base_ptr.dtype.element_ty
    return (low * cos - high * sin).to(dtype), (high * cos + low * sin).to(dtype)


@triton.jit
def _attention(
    qkv_ptr, cos_ptr, sin_ptr, mask_ptr, out_ptr, L, scale,
    H: tl.constexpr, G: tl.constexpr, E: tl.constexpr, Q: tl.constexpr, K: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """A program: Q queries of one head of one row, over all keys, K at a time (arXiv:2205.14135)."""
    head, row = tl.program_id(0), tl.program_id(2)
    WIDTH: tl.constexpr = (H + 2 * G) * E
    group = head // (H // G)
    base = qkv_ptr + row.to(tl.int64) * L * WIDTH
    q = tl.program_id(1) * Q + tl.arange(0, Q)
    e = tl.arange(0, E)[None, :]
    q_low, q_high = _rotated(base + head * E, q, q < L, WIDTH, cos_ptr, sin_ptr, E)
    mixed = tl.zeros((Q, E), tl.float32)
    top = tl.full((Q,), float("-inf"), tl.float32)
    total = tl.zeros((Q,), tl.float32)
    for first in range(0, L, K):
        k = first + tl.arange(0, K)
        k_low, k_high = _rotated(base + (H + group) * E, k, k < L, WIDTH, cos_ptr, sin_ptr, E)
        score = tl.dot(q_low, k_low.T, input_precision="ieee")
        score = tl.dot(q_high, k_high.T, score, input_precision="ieee") * scale
        real = k < L
        if MASKED:
            real = real & (tl.load(mask_ptr + row * L + k, real, 0) != 0)
        score = tl.where(real[None, :], score, -65504.0)  # finite, so that a row of padding alone is no NaN
        new_top = tl.maximum(top, tl.max(score, 1))
        weight = tl.exp(score - new_top[:, None])
        faded = tl.exp(top - new_top)
        total = total * faded + tl.sum(weight, 1)
        v = tl.load(base + (H + G + group) * E + k[:, None] * WIDTH + e, (k < L)[:, None], 0.0)
        mixed = tl.dot(weight.to(v.dtype), v, mixed * faded[:, None], input_precision="ieee")
        top = new_top
    at = out_ptr + (row.to(tl.int64) * L + q[:, None]) * (H * E) + head * E + e
    tl.store(at, (mixed / total[:, None]).to(out_ptr.dtype.element_ty), (q < L)[:, None])


def attention(
    qkv_BLD: Tensor, rotary: tuple[Tensor, Tensor], mask_BL: Tensor | None, heads: int, kv_heads: int
) -> Tensor:
    """Queries, keys and values side by side, (B, L, (heads + 2 kv_heads) × E), to (B, L, heads × E).

    rotary: see `dlmlab.model.llada.LLaDAModel.rotary`. mask_BL: true at keys that count; None where all do.
    """
    rows, length, width = qkv_BLD.shape
    head_width = width // (heads + 2 * kv_heads)
    out = qkv_BLD.new_empty(rows, length, heads * head_width)
    _attention[(heads, triton.cdiv(length, QUERIES), rows)](
        qkv_BLD, *rotary, qkv_BLD if mask_BL is None else mask_BL, out, length, head_width**-0.5,
        H=heads, G=kv_heads, E=head_width, Q=QUERIES, K=KEYS, MASKED=mask_BL is not None, num_warps=4, num_stages=1,
    )  # fmt: skip
    return out
