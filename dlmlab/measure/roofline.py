"""Estimate the least that a step can cost (Williams et al., doi:10.1145/1498765.1498785).

What it must compute and read is counted from the model's config; how fast the machine does either is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import psutil
import torch

from dlmlab.measure.timing import clock
from dlmlab.model.quantize import STACK_QUANTIZERS

ATTENTION, MLP, HEAD = "attention", "MLP", "LM head and confidence"

BYTES = {"float32": 4.0, "bfloat16": 2.0, "fp8": 1.0, "int8": 1.0, "nf4": 0.5 + 1 / 64 + 4 / (64 * 256)}
"""Bytes of a stored weight. NF4: 4 bits, 8 for the scale of 64 weights, and 32 for the scale of 256 such scales."""
ROW_SCALE = {"fp8": 4.0, "int8": 4.0}
"""Bytes of each output row's scale."""
ARITHMETIC = {"nf4": "bfloat16"}
"""Type in which the products of stored weights are computed, where it is another than theirs."""

SIDE = {"cuda": 8192, "cpu": 1024}
"""Rows and columns of the square matrices whose product is timed."""
COPY_BYTES = {"cuda": 2**31, "cpu": 2**28}
TIMED = 10


class Work(NamedTuple):
    """The work that one part of a step can't do without.

    Attributes:
        products: FLOPs with stored weights.
        others: FLOPs in the model's own type: between activations, by a router, with experts that aren't quantised.
        arithmetic: The type in which the products are computed.
        weight_bytes: Bytes of weights, and of kept keys and values, that are read once.
    """

    products: float
    others: float
    arithmetic: str
    weight_bytes: float

    @property
    def flops(self) -> float:
        """Return all FLOPs."""
        return self.products + self.others


class KeptRow(NamedTuple):
    """What a pass with a cache takes over of a row: the positions that it attends to, and the bytes of its store."""

    positions: int
    nbytes: int


class Ceilings(NamedTuple):
    """The highest rates that the machine reaches.

    Attributes:
        bytes_per_second: Bytes read and written a second.
        flops_per_second: FLOPs a second, by arithmetic.
    """

    bytes_per_second: float
    flops_per_second: Mapping[str, float]


class Floor(NamedTuple):
    """The least seconds in which the counted work can be done: by computing and by reading."""

    compute: float
    memory: float

    @property
    def seconds(self) -> float:
        """Return the larger of both."""
        return max(self.compute, self.memory)


def countable(config: Any) -> bool:
    """Return whether a model's config says what `count` needs: that it is a LLaDA's."""
    return all(hasattr(config, key) for key in ("d_model", "n_layers", "mlp_width", "kv_heads", "head_width"))


def count(
    config: Any, storage: str, dtype: str, rows: int, length: int, positions: float, kept: KeptRow | None = None
) -> dict[str, Work]:
    """Count the work of one step, by part.

    Only matrix products count, and weights that they read: norms, rotations, softmax and activations could be fused
    into
    them.

    Args:
        config: A LLaDAConfig.
        storage: The type of the blocks' projections; `none` for dtype.
        dtype: The type in which the head is stored.
        rows: B, the rows of the batch.
        length: L, the positions of a row that are computed.
        positions: Masked positions of the active blocks, over all rows; the head, and in the last block the MLP and the
            projection before it, see no others.
        kept: With a cache, what the pass takes over of each row, which is read once; None where it attends to what it
            computes.
    """
    attended, kept_bytes = kept or (length, 0)
    storage = dtype if storage == "none" else storage
    width, blocks, everywhere = config.d_model, config.n_layers, rows * length
    heads = config.n_heads * config.head_width
    qkv = heads + 2 * config.kv_heads * config.head_width
    deep = (blocks - 1) * everywhere + positions
    qkv_bias = qkv * (config.include_bias or config.include_qkv_bias) + width * config.include_bias
    layers = [
        mlp(config, layer, storage, dtype, everywhere if layer < blocks - 1 else positions) for layer in range(blocks)
    ]
    arithmetic = ARITHMETIC.get(storage, storage)
    return {
        ATTENTION: Work(
            products=2.0 * blocks * everywhere * width * qkv + 2.0 * deep * width * heads,
            others=4.0 * blocks * everywhere * attended * heads,
            arithmetic=arithmetic,
            weight_bytes=blocks
            * (stored(qkv, width, storage) + stored(width, heads, storage) + qkv_bias * BYTES[dtype])
            + rows * kept_bytes,
        ),
        MLP: Work(
            products=sum(layer.products for layer in layers),
            others=sum(layer.others for layer in layers),
            arithmetic=arithmetic,
            weight_bytes=sum(layer.weight_bytes for layer in layers),
        ),
        HEAD: Work(
            products=2.0 * positions * width * config.padded_vocab_size,
            others=0.0,
            arithmetic=dtype,
            weight_bytes=stored(config.padded_vocab_size, width, dtype),
        ),
    }


def mlp(config: Any, layer: int, storage: str, dtype: str, positions: float) -> Work:
    """Count the work of one layer's MLP at so many positions: of a dense one, or of a router, experts and a shared MLP.

    Experts are taken to be chosen evenly and independently, so that few positions read few of them. They are stored in
    NF4 or in dtype.

    Args:
        config: A LLaDAConfig.
        layer: The layer's index, by which the config tells dense ones.
        storage: The type in which its projections are stored, a key of BYTES.
        dtype: The type of the router, of biases and of experts that aren't quantised.
        positions: Positions that go through it, over all rows.
    """
    sparse = config.n_experts and layer not in config.dense_layers
    width, hidden = config.d_model, config.shared_width if sparse else config.mlp_width
    products, others = 6.0 * positions * width * hidden, 0.0
    bytes_read = 2 * stored(hidden, width, storage) + stored(width, hidden, storage) if hidden else 0.0
    bytes_read += (2 * hidden + width) * config.include_bias * BYTES[dtype]
    if sparse:
        chosen, experts = config.experts_per_token, config.n_experts
        kind = storage if storage in STACK_QUANTIZERS else dtype
        flops = 6.0 * positions * chosen * width * config.expert_width
        products, others = (products + flops, others) if kind == storage else (products, flops)
        others += 2.0 * positions * width * experts
        read = experts * (1 - (1 - chosen / experts) ** positions)
        bytes_read += stored(experts, width, dtype) + 3 * read * stored(config.expert_width, width, kind)
    return Work(products, others, ARITHMETIC.get(storage, storage), bytes_read)


def stored(outputs: int, inputs: int, kind: str) -> float:
    """Return the bytes of a matrix of so many outputs and inputs, with its scales.

    Args:
        outputs: Its rows; each may have a scale of its own.
        inputs: Its columns.
        kind: The type in which it is stored, a key of BYTES.
    """
    return outputs * inputs * BYTES[kind] + outputs * ROW_SCALE.get(kind, 0.0)


def floor(parts: Iterable[Work], ceilings: Ceilings, dtype: str) -> Floor:
    """Compute the floor under some parts together.

    Args:
        parts: The work of each part.
        ceilings: The machine's rates.
        dtype: The type in which products between activations are computed.
    """
    parts, speed = list(parts), ceilings.flops_per_second
    compute = sum(part.products / speed[part.arithmetic] + part.others / speed[dtype] for part in parts)
    return Floor(compute, sum(part.weight_bytes for part in parts) / ceilings.bytes_per_second)


def measure_ceilings(device: torch.device, arithmetics: Iterable[str]) -> Ceilings:
    """Measure the machine's rates: of a large copy, and of a large matrix product in each arithmetic; medians.

    Args:
        device: The device that is measured.
        arithmetics: Types of products, such as `bfloat16`, `fp8` or `int8`; one that comes twice is measured once.
    """
    return Ceilings(copy_rate(device), {each: product_rate(device, each) for each in dict.fromkeys(arithmetics)})


def copy_rate(device: torch.device) -> float:
    """Measure the bytes a second of a large copy, those read and those written."""
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    size = min(COPY_BYTES[device.type], free // 4)
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / typical_seconds(device, lambda: target.copy_(source))


def product_rate(device: torch.device, arithmetic: str) -> float:
    """Measure the FLOPs a second of a large matrix product.

    Args:
        device: The device that is measured.
        arithmetic: The type of the product: `fp8`, `int8`, or a floating-point type by torch's name.
    """
    side = SIDE[device.type]
    a, b = (torch.randn(side, side, device=device) for _ in range(2))
    work: Callable[[], Any]
    if arithmetic == "fp8":
        one = torch.ones((), device=device)
        a8, b8 = a.to(torch.float8_e4m3fn), b.to(torch.float8_e4m3fn).t()
        work = lambda: torch._scaled_mm(a8, b8, one, one, out_dtype=torch.bfloat16)  # noqa: E731
    elif arithmetic == "int8":
        a8, b8 = (each.mul(40).clamp(-127, 127).to(torch.int8) for each in (a, b))
        work = lambda: torch._int_mm(a8, b8)  # noqa: E731
    else:
        a, b = (each.to(getattr(torch, arithmetic)) for each in (a, b))
        work = lambda: a @ b  # noqa: E731
    return 2 * side**3 / typical_seconds(device, work)


@torch.inference_mode()
def typical_seconds(device: torch.device, work: Callable[[], Any]) -> float:
    """Measure the median time of a piece of work, in seconds, after two runs that don't count.

    Args:
        device: The device that does it, which is waited for before and after each run.
        work: Does it once.
    """
    seconds = []
    for _ in range(2 + TIMED):
        begun = clock(device)
        work()
        seconds.append(clock(device) - begun)
    return float(np.median(seconds[2:]))
