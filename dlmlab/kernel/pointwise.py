"""What stands between two projections: norms, the gated activation, and rounding to FP8; a program a row."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor


class Float8(NamedTuple):
    """Rows in FP8.

    Attributes:
        values: The numbers, (M, D) float8_e4m3fn.
        scale: What each row's numbers are to be multiplied by, float32, (M, 1); or (M, S), for each of S equal parts.
    """

    values: Tensor
    scale: Tensor


class Product(NamedTuple):
    """What a projection leaves to whoever reads it: to add up parts, then to multiply by both scales.

    Attributes:
        parts_SMN: The S parts.
        scale_M1: Each row's scale, float32; None where rows have none.
        scale_N1: Each column's scale, float32; None where columns have none.
    """

    parts_SMN: Tensor
    scale_M1: Tensor | None = None
    scale_N1: Tensor | None = None


@triton.jit
def _load(
    parts_ptr, scale_m_ptr, scale_n_ptr, row, rows, n, real, columns, PARTS: tl.constexpr, SCALED: tl.constexpr
):  # fmt: skip
    """Columns n of a product's row, in float32, rounded as a product in one piece is."""
    at = parts_ptr + row * columns + n
    # What is read once is kept out of the L1, where the columns' scales stay for the next row.
    value = tl.load(at, real, 0.0, cache_modifier=".cg").to(tl.float32)
    for part in tl.static_range(1, PARTS):
        value += tl.load(at + part * rows * columns, real, 0.0, cache_modifier=".cg").to(tl.float32)
    if SCALED:
        value *= tl.load(scale_m_ptr + row) * tl.load(scale_n_ptr + n, real, 0.0)
    return value.to(parts_ptr.dtype.element_ty).to(tl.float32)


@triton.jit
def _store(y, out_ptr, scale_ptr, at, real, FLOAT8: tl.constexpr):
    """Write a row; in FP8 with the scale that lets its largest number be the largest there is (arXiv:2209.05433)."""
    if FLOAT8:
        y = y.to(tl.bfloat16).to(tl.float32)  # as the plain pass has it before it rounds to FP8
        scale = tl.maximum(tl.max(tl.abs(y)), 1e-12) / 448.0
        tl.store(scale_ptr, scale)
        y = y / scale
    tl.store(out_ptr + at, y.to(out_ptr.dtype.element_ty), real)


@triton.jit(do_not_specialize=["M"])
def _add_norm(
    x_ptr, y_ptr, y_scale_m_ptr, y_scale_n_ptr, weight_ptr, out_ptr, scale_ptr, M, D, eps,
    BLOCK: tl.constexpr, PARTS: tl.constexpr, SCALED: tl.constexpr, FLOAT8: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    d = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + row * D + d, d < D, 0.0)
    if PARTS > 0:
        y = _load(y_ptr, y_scale_m_ptr, y_scale_n_ptr, row, M, d, d < D, D, PARTS, SCALED)
        x = (x.to(tl.float32) + y).to(x_ptr.dtype.element_ty)
        tl.store(x_ptr + row * D + d, x, d < D)
    x = x.to(tl.float32)
    weight = tl.load(weight_ptr + d, d < D, 0.0).to(tl.float32)
    y = x * tl.rsqrt(tl.sum(x * x) / D + eps) * weight
    _store(y, out_ptr, scale_ptr + row, row * D + d, d < D, FLOAT8)


@triton.jit(do_not_specialize=["M"])
def _swiglu(
    h_ptr, h_scale_m_ptr, h_scale_n_ptr, out_ptr, scale_ptr, M, D, SPAN: tl.constexpr,
    BLOCK: tl.constexpr, PARTS: tl.constexpr, SCALED: tl.constexpr, FLOAT8: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, BLOCK)
    d = tl.program_id(1) * SPAN + lane
    real = (lane < SPAN) & (d < D)
    gate = _load(h_ptr, h_scale_m_ptr, h_scale_n_ptr, row, M, d, real, 2 * D, PARTS, SCALED)
    up = _load(h_ptr, h_scale_m_ptr, h_scale_n_ptr, row, M, D + d, real, 2 * D, PARTS, SCALED)
    active = (gate / (1 + tl.exp(-gate))).to(h_ptr.dtype.element_ty).to(tl.float32)
    _store(active * up, out_ptr, scale_ptr + row * tl.num_programs(1) + tl.program_id(1), row * D + d, real, FLOAT8)


@triton.jit
def _quantize(x_ptr, out_ptr, scale_ptr, D, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    d = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + row * D + d, d < D, 0.0).to(tl.float32)
    _store(x, out_ptr, scale_ptr + row, row * D + d, d < D, True)


@triton.jit
def _norm_heads(qkv_ptr, query_ptr, key_ptr, row_width, eps, H: tl.constexpr, E: tl.constexpr):
    """A program: one head of one row, in place."""
    e = tl.arange(0, E)
    head = tl.program_id(1)
    at = qkv_ptr + tl.program_id(0).to(tl.int64) * row_width + head * E + e
    x = tl.load(at).to(tl.float32)
    weight = tl.load(tl.where(head < H, query_ptr, key_ptr) + e).to(tl.float32)
    tl.store(at, (x * tl.rsqrt(tl.sum(x * x) / E + eps) * weight).to(qkv_ptr.dtype.element_ty))


def add_norm(x_MD: Tensor, y: Product | None, weight_D: Tensor, eps: float, float8: bool) -> Tensor | Float8:
    """Add y to x in place, where there is one, and return x's RMS norm (arXiv:1910.07467).

    Args:
        x_MD: The residual stream at M positions; written to where there is a y.
        y: What a projection to D columns has left to be added; None where there is nothing.
        weight_D: The norm's weight.
        eps: What is added to the mean square of a row, so that its root isn't 0.
        float8: Whether the result is rounded to FP8, with a scale for each row.

    Returns:
        The norm, (M, D), in x's dtype or in FP8; it is computed in float32.
    """
    out, scale = _rows(x_MD, x_MD.shape[-1], float8)
    width = x_MD.shape[-1]
    pointers, flags = _arguments(y or Product(x_MD[None]))
    if y is None:
        flags["PARTS"] = 0
    _add_norm[(len(x_MD),)](
        x_MD, *pointers, weight_D, out, scale, len(x_MD), width, eps,
        BLOCK=triton.next_power_of_2(width), FLOAT8=float8, num_warps=8, **flags,
    )  # fmt: skip
    return Float8(out, scale) if float8 else out


def swiglu(h: Product, float8: bool, parts: int = 1) -> Tensor | Float8:
    """Return silu(gate) × up (arXiv:2002.05202) of rows that hold first all gates, then all ups.

    Args:
        h: What the gate's and the up projection have left, side by side: M rows of 2 D columns.
        float8: Whether the result is rounded to FP8, with scales for each row.
        parts: Equal parts of a row which have a scale of their own then; more of the device works where rows are few.

    Returns:
        The product, (M, D), in the dtype of h's parts or in FP8; it is computed in float32.
    """
    *_, rows, width = h.parts_SMN.shape
    width //= 2
    out, scale = _rows(h.parts_SMN[0], width, float8, parts)
    span = width // parts if float8 else 2048  # FP8 needs the largest number of all that share a scale
    block = triton.next_power_of_2(span)
    pointers, flags = _arguments(h)
    _swiglu[(rows, triton.cdiv(width, span))](
        *pointers, out, scale, rows, width, SPAN=span, BLOCK=block, FLOAT8=float8,
        num_warps=16 if block > 4096 else 8, **flags,
    )  # fmt: skip
    return Float8(out, scale) if float8 else out


def norm_heads(qkv_MD: Tensor, query_weight_E: Tensor, key_weight_E: Tensor, heads: int, eps: float) -> None:
    """Replace each head's query and key by its RMS norm (arXiv:1910.07467), in place; it is computed in float32.

    Args:
        qkv_MD: Queries, keys and values side by side, (M, (heads + 2 kv_heads) × E).
        query_weight_E: The weight of the queries' norm.
        key_weight_E: The weight of the keys' norm.
        heads: Heads of the queries.
        eps: What is added to the mean square of a head, so that its root isn't 0.
    """
    rows, row_width = qkv_MD.shape
    width = len(query_weight_E)
    kv_heads = (row_width // width - heads) // 2
    _norm_heads[(rows, heads + kv_heads)](
        qkv_MD, query_weight_E, key_weight_E, row_width, eps, H=heads, E=width, num_warps=1
    )


def quantize(x_MD: Tensor) -> Float8:
    """Rows in FP8, each with a scale of its own."""
    out, scale = _rows(x_MD, x_MD.shape[-1], True)
    width = x_MD.shape[-1]
    _quantize[(len(x_MD),)](x_MD, out, scale, width, BLOCK=triton.next_power_of_2(width), num_warps=8)
    return Float8(out, scale)


def _rows(like: Tensor, width: int, float8: bool, scales: int = 1) -> tuple[Tensor, Tensor]:
    """Room for the result and for its scales."""
    dtype = torch.float8_e4m3fn if float8 else like.dtype
    return like.new_empty(len(like), width, dtype=dtype), like.new_empty(len(like), scales, dtype=torch.float32)


def _arguments(product: Product) -> tuple[tuple[Tensor, Tensor, Tensor], dict[str, Any]]:
    """Return what a kernel is given to read a product by: three pointers and two constants."""
    parts_SMN, scale_M1, scale_N1 = product
    if scale_M1 is None or scale_N1 is None:
        return (parts_SMN, parts_SMN, parts_SMN), {"PARTS": len(parts_SMN), "SCALED": False}
    return (parts_SMN, scale_M1, scale_N1), {"PARTS": len(parts_SMN), "SCALED": True}
