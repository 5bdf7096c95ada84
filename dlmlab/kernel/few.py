"""Products of few rows with a large matrix, whose time is that in which the matrix is read.

A pass over one block of a canvas has 32 rows. Tiles of the matrix go through shared memory several at a time, so that
the device's memory never waits; where a matrix has few columns, several programs share its inner dimension, and leave
their parts to whoever reads the product (`dlmlab.kernel.pointwise.Product`).
"""

from __future__ import annotations

import functools

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

MOST_ROWS = 64
"""Up to so many rows this is faster than cuBLAS; measured on an H100 with LLaDA-8B's matrices, as the tiles are."""
COLUMNS, DEPTH_BYTES, STAGES = 64, 256, 3
PARTS = 4
"""Programs that share the inner dimension of a matrix with no more columns than that."""


@triton.jit(do_not_specialize=["M"])
def _few_matmul(
    x_desc, weight_desc, scale_m_ptr, scale_n_ptr, out_ptr, M, N, K,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, PARTS: tl.constexpr, STAGES: tl.constexpr,
    SCALES: tl.constexpr,
):  # fmt: skip
    """A program: all rows of BN columns, over a part of the inner dimension; a row has SCALES scales, one for each."""
    n_first, part = tl.program_id(0) * BN, tl.program_id(1)
    span = K // PARTS
    acc = tl.zeros((BN, BM), tl.float32)
    for k in tl.range(part * span, part * span + span, BK, num_stages=STAGES):
        acc = tl.dot(weight_desc.load([n_first, k]), x_desc.load([0, k]).T, acc)
    m, n = tl.arange(0, BM), n_first + tl.arange(0, BN)
    y = acc.T
    if SCALES > 0:
        scale_m = tl.load(scale_m_ptr + m * SCALES + (part if SCALES > 1 else 0), m < M, 0.0)
        y *= scale_m[:, None] * tl.load(scale_n_ptr + n, n < N, 0.0)[None, :]
    at = part.to(tl.int64) * M * N + m[:, None] * N + n[None, :]
    tl.store(out_ptr + at, y.to(out_ptr.dtype.element_ty), (m < M)[:, None] & (n < N)[None, :])


@triton.jit(do_not_specialize=["M"])
def _few_matmul_gated(
    x_desc, weight_desc, out_ptr, M, N, K,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """A program: all rows of BN columns of silu(gate) × up; the matrix has N rows of gates, then N of ups."""
    n_first = tl.program_id(0) * BN
    gate, up = tl.zeros((BN, BM), tl.float32), tl.zeros((BN, BM), tl.float32)
    for k in tl.range(0, K, BK, num_stages=STAGES):
        x = x_desc.load([0, k]).T
        gate = tl.dot(weight_desc.load([n_first, k]), x, gate)
        up = tl.dot(weight_desc.load([N + n_first, k]), x, up)
    # Rounded where a product in memory and PyTorch's activation would be.
    dtype = out_ptr.dtype.element_ty
    gate, up = gate.to(dtype).to(tl.float32), up.to(dtype).to(tl.float32)
    active = (gate / (1 + tl.exp(-gate))).to(dtype).to(tl.float32)
    m, n = tl.arange(0, BM), n_first + tl.arange(0, BN)
    at = m[:, None] * N + n[None, :]
    tl.store(out_ptr + at, (active * up).T.to(dtype), (m < M)[:, None] & (n < N)[None, :])


def parts_of(weight_NK: Tensor, whole: bool = False) -> int:
    """Return how many parts a product with few rows is computed in; 0 where the kernels don't know the matrix.

    Args:
        weight_NK: The matrix.
        whole: Whether it must be one.
    """
    columns, inner = weight_NK.shape
    parts = 1 if whole or columns > inner else PARTS
    fits = columns % COLUMNS == 0 and inner % (parts * DEPTH_BYTES // weight_NK.itemsize) == 0
    return parts if fits and asks_ahead(weight_NK.device) else 0


@functools.cache
def asks_ahead(device: torch.device) -> bool:
    """Return whether tiles are asked for ahead of time, which Triton does by TMA alone: on Hopper and later."""
    return device.type != "cuda" or torch.cuda.get_device_capability(device) >= (9, 0)


def matmul_few(x_MK: Tensor, weight_NK: Tensor, parts: int, scales: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """Return x times the weights' transpose, in parts that are still to be added up, (S, M, N).

    Args:
        x_MK: At most MOST_ROWS rows, in bfloat16 or FP8.
        weight_NK: The matrix, in the same dtype.
        parts: See `parts_of`.
        scales: What rows, (M, 1) or (M, S), and columns, (N, 1), are multiplied by, float32; None for nothing.
    """
    rows, columns = len(x_MK), len(weight_NK)
    dtype = torch.bfloat16 if x_MK.itemsize == 1 else x_MK.dtype
    out_SMN = x_MK.new_empty(parts, rows, columns, dtype=dtype)
    _few_matmul[(columns // COLUMNS, parts)](
        *_tiles(x_MK, weight_NK), *(scales or (out_SMN, out_SMN)), out_SMN, *(rows, columns, x_MK.shape[1]),
        PARTS=parts, SCALES=0 if scales is None else scales[0].shape[1], **_sizes(x_MK),
    )  # fmt: skip
    return out_SMN


def gated_few(x_MK: Tensor, weight_NK: Tensor) -> Tensor:
    """Return silu(x times the first half's transpose) × (x times the second's), (M, N / 2), in x's dtype.

    Args:
        x_MK: At most MOST_ROWS rows, in bfloat16.
        weight_NK: The gate's matrix and the up projection's below it, in the same dtype; see `parts_of`.
    """
    rows, columns = len(x_MK), len(weight_NK) // 2
    out_MN = x_MK.new_empty(rows, columns)
    _few_matmul_gated[(columns // COLUMNS,)](
        *_tiles(x_MK, weight_NK), out_MN, rows, columns, x_MK.shape[1], **_sizes(x_MK)
    )
    return out_MN


def _tiles(x_MK: Tensor, weight_NK: Tensor) -> tuple[TensorDescriptor, TensorDescriptor]:
    depth = DEPTH_BYTES // x_MK.itemsize
    return (
        TensorDescriptor.from_tensor(x_MK, [_height(x_MK), depth]),
        TensorDescriptor.from_tensor(weight_NK, [COLUMNS, depth]),
    )


def _sizes(x_MK: Tensor) -> dict[str, int]:
    depth = DEPTH_BYTES // x_MK.itemsize
    return {"BM": _height(x_MK), "BN": COLUMNS, "BK": depth, "STAGES": STAGES, "num_warps": 4}


def _height(x_MK: Tensor) -> int:
    return max(16, 1 << (len(x_MK) - 1).bit_length())
