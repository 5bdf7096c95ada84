"""Products with weights in NF4 (arXiv:2305.14314), straight from the bytes and scales that bitsandbytes keeps.

A byte holds two codes, the first in its upper half. A block of 64 weights shares a scale; scales are bytes themselves,
an index into a table of 256, times a scale of their own for 256 of them, plus the matrix's offset.

For few rows one kernel unpacks a tile of weights in registers and multiplies it. For many rows that would unpack each
weight again for every 128 rows: there a part of the matrix is unpacked into memory, and cuBLAS multiplies it.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

ROWS = 128
"""Rows of a tile; up to so many, the one kernel is faster."""
COLUMNS = 64
UNPACKED = 6144 * 4096
"""Weights that are unpacked at a time: 48 MiB in bfloat16. More is hardly faster, and memory is why NF4 is chosen."""
ALIGNED = 64
"""Columns that are unpacked at a time are a multiple of this, so that cuBLAS writes to aligned memory."""
UNPACK_BYTES = 1024
MULTIPROCESSORS = 132
"""An H200's. Where a matrix has fewer tiles than fill it twice, its inner dimension is split as well."""
WIDE_SHARED = 160_000
"""Bytes of shared memory that two blocks of 64 weights at a time want; consumer cards have less."""


class Packed(NamedTuple):
    """A matrix of N × K weights. K is a multiple of 64.

    Attributes:
        codes: The codes, (N, K / 2) bytes.
        scales: An index into `scale_values` for each 64 weights, (N K / 64,) bytes.
        scale_values: What such an index means, (256,) float32.
        scale_scales: A factor for each 256 scales, (N K / 16384,) float32.
        offset: What is added to a row's scales, of the matrix that the row came from, (N,) float32.
        code_values: What a code means, (16,) float32.
    """

    codes: Tensor
    scales: Tensor
    scale_values: Tensor
    scale_scales: Tensor
    offset: Tensor
    code_values: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        return self.codes.shape[0], 2 * self.codes.shape[1]


def _look_up(first: int) -> str:
    """Assembly that makes four weights of the four codes in the bytes of x: the outputs `first` and the next."""
    return f"""
        shr.u32 a, x, 4;
        or.b32 x, x, a;
        prmt.b32 x, x, 0, 0x4420;
        and.b32 s, x, 0x7777;
        and.b32 t, x, 0x8888;
        shr.u32 t, t, 1;
        or.b32 t, t, 0x3210;
        prmt.b32 a, 0xbebfbfbf, 0x00bdbebe, s;
        prmt.b32 b, 0x3e3e3e3d, 0x3f3f3f3e, s;
        prmt.b32 u, a, b, t;
        prmt.b32 a, 0xca063280, 0x00ba3d92, s;
        prmt.b32 b, 0xad7c25a3, 0x803910e2, s;
        prmt.b32 l, a, b, t;
        prmt.b32 r, l, u, 0x5140;
        fma.rn.bf16x2 ${first}, r, $5, zero;
        prmt.b32 r, l, u, 0x7362;
        fma.rn.bf16x2 ${first + 1}, r, $6, zero;
    """


UNPACK = tl.constexpr(
    f"""
    {{
    .reg .b32 x, s, t, a, b, u, l, r, zero;
    mov.b32 zero, 0x80008000;
    shr.u32 x, $4, 4;
    and.b32 x, x, 0x0f0f0f0f;
    {_look_up(0)}
    and.b32 x, $4, 0x0f0f0f0f;
    {_look_up(2)}
    }}
    """
)


@triton.jit
def _weights(codes, scale):
    """Two tensors of bfloat16, the upper and the lower halves' codes times the scale; four bytes in a register.

    The 16 codes, in bfloat16, stand in four registers for their upper bytes and four for their lower ones; a byte
    permutation looks four of them up at once, by three bits of the code in either half of the table, then by the
    fourth.
    """
    return tl.inline_asm_elementwise(
        UNPACK, "=r,=r,=r,=r,r,r,r", [codes, scale], dtype=(tl.bfloat16, tl.bfloat16), is_pure=True, pack=4
    )


@triton.jit(do_not_specialize=["M"])
def _matmul(
    x_desc, codes_desc, scales_ptr, values_ptr, scale_scales_ptr, offset_ptr, out_ptr, part_ptr, arrived_ptr,
    M, N, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, SPLIT: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """A tile of BM rows and BN columns of the product; SPLIT programs share its inner dimension.

    Each leaves its part in memory, and the one that comes last adds them up, in the same order whoever that is.
    """
    n_first, split, m_first = tl.program_id(0) * BN, tl.program_id(1), tl.program_id(2) * BM
    BLOCKS: tl.constexpr = BK // 64
    span = K // SPLIT
    k_first = split * span
    n = n_first + tl.arange(0, BN)
    last = N * K // 64 - 1
    block = tl.minimum((n[:, None] * K + k_first) // 64 + tl.arange(0, BLOCKS)[None, :], last)
    offset = tl.load(offset_ptr + n, n < N, 0.0)[:, None]
    # Scales are looked up two steps ahead, their values one: three loads, one after the other, would stall each step.
    value = tl.load(values_ptr + tl.load(scales_ptr + block).to(tl.int32))
    scale_scale = tl.load(scale_scales_ptr + block // 256)
    scale = tl.load(scales_ptr + tl.minimum(block + BLOCKS, last)).to(tl.int32)
    acc = tl.zeros((BN, BM), tl.float32)
    for k in tl.range(k_first, k_first + span, BK, num_stages=STAGES):
        x = x_desc.load([m_first, k])
        codes = codes_desc.load([n_first, k // 2])
        factor = (value * scale_scale + offset).to(tl.bfloat16)
        block += BLOCKS
        value = tl.load(values_ptr + scale)
        scale_scale = tl.load(scale_scales_ptr + tl.minimum(block, last) // 256)
        scale = tl.load(scales_ptr + tl.minimum(block + BLOCKS, last)).to(tl.int32)
        upper, lower = _weights(codes, tl.broadcast_to(factor[:, :, None], (BN, BLOCKS, 32)).reshape(BN, BK // 2))
        acc = tl.dot(tl.join(upper, lower).reshape(BN, BK), x.T, acc)
    m = m_first + tl.arange(0, BM)
    at = m[:, None] * N + n[None, :]
    real = (m < M)[:, None] & (n < N)[None, :]
    y = acc.T
    if SPLIT == 1:
        tl.store(out_ptr + at, y.to(tl.bfloat16), real)
    else:
        tl.store(part_ptr + split * M * N + at, y, real)
        tl.debug_barrier()
        tile = tl.program_id(2) * tl.num_programs(0) + tl.program_id(0)
        if tl.atomic_add(arrived_ptr + tile, 1, sem="acq_rel") == SPLIT - 1:
            y = tl.zeros((BM, BN), tl.float32)
            for part in range(SPLIT):
                y += tl.load(part_ptr + part * M * N + at, real, 0.0)
            tl.store(out_ptr + at, y.to(tl.bfloat16), real)
            tl.store(arrived_ptr + tile, 0)


@triton.jit
def _unpack(
    codes_ptr, scales_ptr, values_ptr, scale_scales_ptr, offset_ptr, code_values_ptr, out_ptr, first_block, K,
    BYTES: tl.constexpr,
):  # fmt: skip
    block = first_block + tl.program_id(0) * (BYTES // 32) + tl.arange(0, BYTES // 32)
    factor = tl.load(values_ptr + tl.load(scales_ptr + block).to(tl.int32)) * tl.load(scale_scales_ptr + block // 256)
    factor += tl.load(offset_ptr + block * 64 // K)
    factor = tl.broadcast_to(factor[:, None], (BYTES // 32, 32)).reshape(BYTES)
    codes = tl.load(codes_ptr + (first_block * 32 + tl.program_id(0) * BYTES).to(tl.int64) + tl.arange(0, BYTES))
    upper = tl.load(code_values_ptr + (codes >> 4).to(tl.int32)) * factor
    lower = tl.load(code_values_ptr + (codes & 15).to(tl.int32)) * factor
    weights = tl.join(upper, lower).reshape(2 * BYTES)
    at = out_ptr + (tl.program_id(0) * 2 * BYTES).to(tl.int64) + tl.arange(0, 2 * BYTES)
    tl.store(at, weights.to(out_ptr.dtype.element_ty))


def matmul(x_MK: Tensor, packed: Packed) -> Tensor:
    """Multiply rows with packed weights: unpacked in registers for few rows, in memory for many.

    Args:
        x_MK: The rows, in bfloat16.
        packed: A matrix of N × K weights.

    Returns:
        The product, (M, N), in bfloat16.
    """
    if len(x_MK) <= ROWS:
        return matmul_few(x_MK, packed)
    columns, inner = packed.shape
    out_MN = x_MK.new_empty(len(x_MK), columns)
    room = max(ALIGNED, UNPACKED // inner // ALIGNED * ALIGNED)
    for begin in range(0, columns, room):
        weight_NK = unpack(packed, begin, min(begin + room, columns), x_MK.dtype)
        torch.mm(x_MK, weight_NK.T, out=out_MN[:, begin : begin + len(weight_NK)])
    return out_MN


def matmul_few(x_MK: Tensor, packed: Packed) -> Tensor:
    """Multiply by the one kernel, for any number of rows.

    Args:
        x_MK: The rows, in bfloat16.
        packed: A matrix of N × K weights.

    Returns:
        The product, (M, N), in bfloat16.
    """
    rows, (columns, inner) = len(x_MK), packed.shape
    tiles = triton.cdiv(columns, COLUMNS)
    split = next((each for each in (1, 2) if tiles * each >= 1.4 * MULTIPROCESSORS), 4)
    wide = split == 4 and _shared_bytes(x_MK.device) >= WIDE_SHARED
    depth = 128 if wide else 64
    while inner % (split * depth):
        split, depth = (split // 2, depth) if split > 1 else (1, 64)
    out_MN = x_MK.new_empty(rows, columns)
    parts = x_MK.new_empty(split if split > 1 else 0, rows, columns, dtype=torch.float32)
    grid = (tiles, split, triton.cdiv(rows, ROWS))
    _matmul[grid](
        TensorDescriptor.from_tensor(x_MK, [ROWS, depth]),
        TensorDescriptor.from_tensor(packed.codes, [COLUMNS, depth // 2]),
        packed.scales, packed.scale_values, packed.scale_scales, packed.offset,
        out_MN, parts, _arrived(x_MK.device), rows, columns, inner,
        BM=ROWS, BN=COLUMNS, BK=depth, SPLIT=split, STAGES=3 if wide else 4, num_warps=4,
    )  # fmt: skip
    return out_MN


def unpack(packed: Packed, begin: int, end: int, dtype: torch.dtype) -> Tensor:
    """Return rows of the matrix, (end - begin, K), each weight what bitsandbytes makes of it, to the bit.

    Args:
        packed: A matrix of N × K weights.
        begin: The first row, of N.
        end: The first row that is left out.
        dtype: What the weights are rounded to; they are computed in float32.
    """
    inner = packed.shape[1]
    out = packed.codes.new_empty(end - begin, inner, dtype=dtype)
    size = next(each for each in (UNPACK_BYTES, 512, 256, 128, 64, 32) if out.numel() // 2 % each == 0)
    _unpack[(out.numel() // 2 // size,)](
        packed.codes, packed.scales, packed.scale_values, packed.scale_scales, packed.offset, packed.code_values,
        out, begin * inner // 64, inner, BYTES=size, enable_fp_fusion=False,
    )  # fmt: skip
    return out


@functools.cache
def _shared_bytes(device: torch.device) -> int:
    """Shared memory that a program may have."""
    properties: Any = torch.cuda.get_device_properties(device)
    return int(properties.shared_memory_per_block_optin)


@functools.cache
def _arrived(device: torch.device) -> Tensor:
    """Return how many programs of a tile are done; each product leaves zeros."""
    return torch.zeros(65536, dtype=torch.int32, device=device)
