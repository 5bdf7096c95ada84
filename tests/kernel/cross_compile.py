"""Compile kernels for cards that aren't here, and print the shared memory that each takes on each, as JSON.

A program of its own: in the tests' process Triton interprets kernels, where an error that its compiler finds is none.

    python -m tests.kernel.cross_compile 80 90
"""

from __future__ import annotations

import json
import sys
from typing import Any, NamedTuple

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from dlmlab.kernel import attention, cached_attention, embedding, few, pointwise

INTEGERS = ("position", "into", "begin", "base", "keys", "ids")
FLOATS = ("cos", "sin", "part")
"""What pointers of these names lead to; others to what the model computes in."""
HEADS: dict[str, Any] = {"H": 32, "G": 8, "E": 128}
HALF_TURNED: dict[str, Any] = HEADS | {"R": 64}
ALL_TURNED: dict[str, Any] = HEADS | {"R": 128}
PACKED: dict[str, Any] = {"Q": attention.QUERIES, "K": attention.KEYS}
KEPT: dict[str, Any] = {"Q": cached_attention.QUERIES, "K": cached_attention.KEYS}
FEW: dict[str, Any] = {"BM": 32, "BN": few.COLUMNS, "STAGES": few.STAGES}
TILES = {"x_desc": "tensordesc<bf16[32, 128]>", "weight_desc": "tensordesc<bf16[64, 128]>"}
WIDE: dict[str, Any] = {"BLOCK": 4096, "PARTS": 2, "SCALED": False}


class Kernel(NamedTuple):
    """A kernel with what it is compiled for.

    Attributes:
        function: The kernel.
        constants: Its constants.
        warps: Its warps.
        types: The types of parameters whose names don't tell them.
        since: The oldest compute capability that it is used on.
    """

    function: Any
    constants: dict[str, Any]
    warps: int = 4
    types: dict[str, str] = {}  # noqa: RUF012 (never changed)
    since: int = 80


FLOAT8 = {"key_ptr": "*fp8e4nv", "value_ptr": "*fp8e4nv"}
KERNELS = {
    "attention": Kernel(attention._attention, ALL_TURNED | PACKED | {"BLOCK": 0}),
    "block-causal attention": Kernel(attention._attention, HALF_TURNED | PACKED | {"BLOCK": 4}),
    "keep": Kernel(cached_attention._keep, ALL_TURNED | {"Q": cached_attention.QUERIES}),
    "attend": Kernel(cached_attention._attend, ALL_TURNED | KEPT | {"SPLITS": 4, "KEEP": True, "BLOCK": 0}),
    "block-causal attend": Kernel(
        cached_attention._attend, HALF_TURNED | KEPT | {"SPLITS": 1, "KEEP": False, "BLOCK": 4}
    ),
    "attend in FP8": Kernel(
        cached_attention._attend, ALL_TURNED | KEPT | {"SPLITS": 4, "KEEP": True, "BLOCK": 0}, types=FLOAT8, since=89
    ),
    "join": Kernel(cached_attention._join, {"H": 32, "E": 128, "SPLITS": 4}, warps=1),
    "gather": Kernel(embedding._gather, {"BLOCK": embedding.COLUMNS}),
    "norm": Kernel(pointwise._add_norm, WIDE | {"FLOAT8": False}, warps=8),
    "norms of heads": Kernel(pointwise._norm_heads, {"H": 32, "E": 128}, warps=1),
    "activation": Kernel(pointwise._swiglu, WIDE | {"SPAN": 2048, "BLOCK": 2048, "FLOAT8": False}, warps=8),
    "few rows": Kernel(few._few_matmul, FEW | {"BK": 128, "PARTS": 4, "SCALES": 0}, types=TILES, since=90),
    "few rows, gated": Kernel(few._few_matmul_gated, FEW | {"BK": 128}, types=TILES, since=90),
    "rounding to FP8": Kernel(pointwise._quantize, {"BLOCK": 4096}, warps=8, types={"out_ptr": "*fp8e4nv"}, since=89),
}


def type_of(name: str) -> str:
    """Return the type of a parameter of this name."""
    if not name.endswith("_ptr"):
        return "fp32" if name in ("scale", "eps") else "i32"
    what = name.removesuffix("_ptr")
    if what in INTEGERS:
        return "*i32"
    return "*fp32" if what in FLOATS or "scale" in what else "*bf16"


def shared_memory(kernel: Kernel, capability: int) -> int:
    """Compile a kernel, and return the bytes of shared memory that a program takes.

    Args:
        kernel: The kernel.
        capability: The card's compute capability, ten times.
    """
    names = [parameter.name for parameter in kernel.function.params]
    types = {name: kernel.types.get(name, type_of(name)) for name in names}
    signature = types | dict.fromkeys(kernel.constants, "constexpr")
    constants = {(names.index(name),): value for name, value in kernel.constants.items()}
    source = ASTSource(kernel.function, signature, constexprs=constants)
    compiled: Any = triton.compile(
        source, target=GPUTarget("cuda", capability, 32), options={"num_warps": kernel.warps}
    )
    return int(compiled.metadata.shared)


if __name__ == "__main__":
    found = {
        card: {name: shared_memory(kernel, card) for name, kernel in KERNELS.items() if kernel.since <= card}
        for card in map(int, sys.argv[1:])
    }
    print(json.dumps(found))
