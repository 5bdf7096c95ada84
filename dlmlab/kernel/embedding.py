"""Rows of an embedding, read by the GPU wherever the matrix lies, also in pinned memory of the host."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

COLUMNS = 1024


@triton.jit
def _gather(ids_ptr, weight_ptr, out_ptr, columns, BLOCK: tl.constexpr):
    """A program: BLOCK numbers of a token's row."""
    token = tl.program_id(0)
    n = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    row = tl.load(ids_ptr + token).to(tl.int64)
    tl.store(
        out_ptr + token.to(tl.int64) * columns + n, tl.load(weight_ptr + row * columns + n, n < columns), n < columns
    )


def gather(weight_VD: Tensor, ids_T: Tensor, out_TD: Tensor) -> None:
    """Write the tokens' rows of the matrix.

    Args:
        weight_VD: The matrix, on the device or in pinned memory of the host.
        ids_T: Token ids, on the device.
        out_TD: Takes the rows, on the device.
    """
    columns = weight_VD.shape[1]
    _gather[(len(ids_T), triton.cdiv(columns, COLUMNS))](ids_T, weight_VD, out_TD, columns, BLOCK=COLUMNS, num_warps=4)
