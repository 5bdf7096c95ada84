"""What stands between two projections: norms, the gated activation, and rounding to FP8; a program a row."""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor


class Float8(NamedTuple):
    """Rows in FP8: values (M, D) of float8_e4m3fn, to be multiplied by scale (M,) of float32."""

    values: Tensor
    scale: Tensor


@triton.jit
def _store(y, out_ptr, scale_ptr, row, D, d, FLOAT8: tl.constexpr):
    """Write a row; in FP8 with the scale that lets its largest number be the largest there is (arXiv:2209.05433)."""
    if FLOAT8:
        y = y.to(tl.bfloat16).to(tl.float32)  # as the plain pass has it before it rounds to FP8
        scale = tl.maximum(tl.max(tl.abs(y)), 1e-12) / 448.0
        tl.store(scale_ptr + row, scale)
        y = y / scale
    tl.store(out_ptr + row * D + d, y.to(out_ptr.dtype.element_ty), d < D)


@triton.jit
def _add_norm(
    x_ptr, y_ptr, weight_ptr, out_ptr, scale_ptr, D, eps, BLOCK: tl.constexpr, ADD: tl.constexpr, FLOAT8: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    d = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + row * D + d, d < D, 0.0)
    if ADD:
        x += tl.load(y_ptr + row * D + d, d < D, 0.0)
        tl.store(x_ptr + row * D + d, x, d < D)
    x = x.to(tl.float32)
    weight = tl.load(weight_ptr + d, d < D, 0.0).to(tl.float32)
    y = x * tl.rsqrt(tl.sum(x * x) / D + eps) * weight
    _store(y, out_ptr, scale_ptr, row, D, d, FLOAT8)


@triton.jit
def _swiglu(h_ptr, out_ptr, scale_ptr, D, BLOCK: tl.constexpr, FLOAT8: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    d = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    gate = tl.load(h_ptr + row * 2 * D + d, d < D, 0.0).to(tl.float32)
    up = tl.load(h_ptr + row * 2 * D + D + d, d < D, 0.0).to(tl.float32)
    active = (gate / (1 + tl.exp(-gate))).to(h_ptr.dtype.element_ty).to(tl.float32)
    _store(active * up, out_ptr, scale_ptr, row, D, d, FLOAT8)


@triton.jit
def _quantize(x_ptr, out_ptr, scale_ptr, D, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    d = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + row * D + d, d < D, 0.0).to(tl.float32)
    _store(x, out_ptr, scale_ptr, row, D, d, True)


def add_norm(x_MD: Tensor, y_MD: Tensor | None, weight_D: Tensor, eps: float, float8: bool) -> Tensor | Float8:
    """Add y to x in place, where there is one, and answer x's RMS norm (arXiv:1910.07467), (M, D)."""
    out, scale = _rows(x_MD, x_MD.shape[-1], float8)
    width = x_MD.shape[-1]
    _add_norm[(len(x_MD),)](
        x_MD, x_MD if y_MD is None else y_MD, weight_D, out, scale, width, eps,
        BLOCK=triton.next_power_of_2(width), ADD=y_MD is not None, FLOAT8=float8, num_warps=8,
    )  # fmt: skip
    return Float8(out, scale) if float8 else out


def swiglu(h_MD: Tensor, float8: bool) -> Tensor | Float8:
    """silu(gate) × up (arXiv:2002.05202) of rows that hold first all gates, then all ups: (M, 2 D) to (M, D)."""
    width = h_MD.shape[-1] // 2
    out, scale = _rows(h_MD, width, float8)
    block = triton.next_power_of_2(width) if float8 else 2048  # FP8 needs the whole row's largest number
    _swiglu[(len(h_MD), triton.cdiv(width, block))](
        h_MD, out, scale, width, BLOCK=block, FLOAT8=float8, num_warps=16 if float8 else 8
    )
    return Float8(out, scale) if float8 else out


def quantize(x_MD: Tensor) -> Float8:
    """Rows in FP8, each with a scale of its own."""
    out, scale = _rows(x_MD, x_MD.shape[-1], True)
    width = x_MD.shape[-1]
    _quantize[(len(x_MD),)](x_MD, out, scale, width, BLOCK=triton.next_power_of_2(width), num_warps=8)
    return Float8(out, scale)


def _rows(like: Tensor, width: int, float8: bool) -> tuple[Tensor, Tensor]:
    """Room for the result and for its scales."""
    dtype = torch.float8_e4m3fn if float8 else like.dtype
    return like.new_empty(len(like), width, dtype=dtype), like.new_empty(len(like), dtype=torch.float32)
