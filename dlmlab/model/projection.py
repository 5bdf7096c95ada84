"""Projections of a block as the fast pass multiplies them: several side by side in one matrix, in their own precision.

The modules that they come from stay as they are, and look into the same memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dlmlab.kernel import few, nf4
from dlmlab.kernel.nf4 import Packed
from dlmlab.kernel.pointwise import Float8, Product, swiglu
from dlmlab.model.quantize import Float8Linear, scaled_matmul

Projection = Callable[[Any], Product]
"""Of (M, K), or the same in `dlmlab.kernel.pointwise.Float8` for an FP8 matrix."""

FEW_ROWS = 128
"""Up to so many, a product to few columns is faster in two parts, which more of the device takes part in.

In FP8 a product is faster where cuBLAS needn't scale it by row and column; to many columns of many rows that is lost
again by whoever reads it.
"""

MOST_ROWS = 2048
"""Largest number of rows that go through an MLP together: more would not keep a GPU busier, and its inside is wide."""

NF4_PRODUCTS: dict[str, Callable[[Tensor, Packed], Tensor]] = {"auto": nf4.matmul, "fused": nf4.matmul_few}
PACKED_SCALES = 256
"""Scales that share a scale of their own."""


def side_by_side(modules: Sequence[nn.Module], nf4_kernel: str, whole: bool = False) -> Projection:
    """Return one projection to all that these project to, in their order.

    Args:
        modules: Projections of one kind that see the same input; where weights are joined, theirs look into the joined
            memory afterwards.
        nf4_kernel: What multiplies NF4 weights; see `dlmlab.model.loader.load`.
        whole: Whether the product comes in one part, with nothing left to be multiplied by.
    """
    first = modules[0]
    if isinstance(first, Float8Linear):
        return _biased(_float8(modules, whole), modules)
    if type(first) is nn.Linear:
        return _biased(dense(_stacked(modules), whole), modules)
    if nf4_kernel in NF4_PRODUCTS and all(map(_packable, modules)):
        multiply, packed = NF4_PRODUCTS[nf4_kernel], packed_weights(modules)
        return _biased(lambda x: Product(multiply(x, packed)[None]), modules)
    return lambda x: Product(torch.cat([module(x) for module in modules], -1)[None])


def mlp_of(gate: Any, up: Any, out: Any, nf4_kernel: str) -> Projection:
    """Return what an MLP makes of rows.

    Args:
        gate: The projection that is activated.
        up: The one beside it.
        out: The last projection.
        nf4_kernel: What multiplies NF4 weights; see `dlmlab.model.loader.load`.
    """
    widened, back = gated(gate, up, out, nf4_kernel), side_by_side([out], nf4_kernel)
    if type(out) is not nn.Linear and not isinstance(out, Float8Linear):
        return lambda x: back(widened(x))  # NF4's matrices would be unpacked anew for each part
    return lambda x: in_parts(lambda part: back(widened(part)), x)


def in_parts(work: Projection, x: Any) -> Product:
    """Return what is made of rows, of at most MOST_ROWS at a time: what lies between takes less memory then.

    Args:
        work: Several projections after each other.
        x: Rows, (M, K), or the same in `dlmlab.kernel.pointwise.Float8`.
    """
    columns = x if isinstance(x, Float8) else (x,)
    rows = len(columns[0])
    if rows <= MOST_ROWS:
        return work(x)
    size = -(-rows // -(-rows // MOST_ROWS) // 16) * 16  # parts of one size but for the last, in whole tiles
    parts = zip(*(column.split(size) for column in columns), strict=True)
    made = [work(Float8(*part) if isinstance(x, Float8) else part[0]) for part in parts]
    scales = [product.scale_M1 for product in made if product.scale_M1 is not None]
    joined = torch.cat([product.parts_SMN for product in made], dim=1)
    return Product(joined, torch.cat(scales) if scales else None, made[0].scale_N1)


def gated(gate: Any, up: Any, out: Any, nf4_kernel: str) -> Callable[[Any], Any]:
    """Return an MLP but for its last projection: silu(gate(x)) × up(x) (arXiv:2002.05202), as that projection takes it.

    Args:
        gate: The projection that is activated.
        up: The one beside it.
        out: The last projection, which is told of its matrix alone.
        nf4_kernel: What multiplies NF4 weights; see `dlmlab.model.loader.load`.
    """
    if type(gate) is nn.Linear and gate.bias is None and few.parts_of(gate.weight, whole=True):
        both_NK = _stacked([gate, up])
        multiply = dense(both_NK, whole=False)
        return lambda x: few.gated_few(x, both_NK) if len(x) <= few.MOST_ROWS else swiglu(multiply(x), False)
    project = side_by_side([gate, up], nf4_kernel)
    if not isinstance(out, Float8Linear):
        return lambda x: swiglu(project(x), False)
    parts = few.parts_of(out.weight)
    return lambda x: swiglu(project(x), True, parts if parts and len(x.values) <= few.MOST_ROWS else 1)


def _biased(multiply: Projection, modules: Sequence[Any]) -> Projection:
    """Return the projection with the modules' biases, where they have any."""
    if all(module.bias is None for module in modules):
        return multiply
    bias_N = torch.cat([module.bias.detach() for module in modules])
    return lambda x: Product(multiply(x).parts_SMN + bias_N)


def dense(weight_NK: Tensor, whole: bool) -> Projection:
    """Return the projection by a matrix as it is.

    Args:
        weight_NK: The matrix.
        whole: Whether the product comes in one part.
    """
    columns, inner = weight_NK.shape
    parts = few.parts_of(weight_NK, whole)
    whole = whole or columns > inner or inner % 2 > 0

    def multiply(x_MK: Tensor) -> Product:
        if parts and len(x_MK) <= few.MOST_ROWS:
            return Product(few.matmul_few(x_MK, weight_NK, parts))
        if whole or len(x_MK) > FEW_ROWS:
            return Product(torch.mm(x_MK, weight_NK.T)[None])
        x_SMk = x_MK.view(len(x_MK), 2, -1).transpose(0, 1)
        return Product(torch.bmm(x_SMk, weight_NK.view(columns, 2, -1).permute(1, 2, 0)))

    return multiply


def _float8(modules: Sequence[Any], whole: bool) -> Projection:
    weight_NK, scale_N1 = _stacked(modules), _joined([module.scale for module in modules])
    for module, scale in zip(modules, scale_N1.split([len(module.scale) for module in modules]), strict=True):
        module.scale = scale
    columns, inner = weight_NK.shape
    one, parts = scale_N1.new_ones(1, 1), few.parts_of(weight_NK, whole)

    def multiply(x: Float8) -> Product:
        if parts and len(x.values) <= few.MOST_ROWS:
            return Product(few.matmul_few(x.values, weight_NK, parts, (x.scale, scale_N1)))
        if whole or (columns > inner and len(x.values) > FEW_ROWS):
            return Product(scaled_matmul(x.values, x.scale, weight_NK, scale_N1)[None])
        return Product(scaled_matmul(x.values, one, weight_NK, one)[None], x.scale, scale_N1)

    return multiply


def packed_weights(modules: Sequence[Any]) -> Packed:
    """The weights of bitsandbytes' layers as the kernels read them; the layers look into the same memory then."""
    states = [module.weight.quant_state for module in modules]
    inner = modules[0].in_features
    codes = _joined([module.weight.data.view(-1, inner // 2) for module in modules])
    scales = _joined([state.absmax for state in states])
    scale_scales = _joined([state.state2.absmax for state in states])
    offset = torch.cat([s.offset.float().expand(m.out_features) for s, m in zip(states, modules, strict=True)])
    rows = scale_rows = scale_scale_rows = 0
    for module, state in zip(modules, states, strict=True):
        shape = module.weight.data.shape
        module.weight.data = codes[rows : (rows := rows + module.out_features)].view(shape)
        state.absmax = scales[scale_rows : (scale_rows := scale_rows + len(state.absmax))]
        size = len(state.state2.absmax)
        state.state2.absmax = scale_scales[scale_scale_rows : (scale_scale_rows := scale_scale_rows + size)]
    return Packed(codes, scales, states[0].state2.code, scale_scales, offset, states[0].code)


def _packable(module: Any) -> bool:
    """Return whether a bitsandbytes layer is in the form that the kernels know, and can stand beside others."""
    state = getattr(module.weight, "quant_state", None)
    return (
        state is not None
        and (state.quant_type, state.blocksize, state.nested) == ("nf4", 64, True)
        and state.state2.blocksize == PACKED_SCALES
        and module.in_features % 64 == 0
        and len(state.absmax) % PACKED_SCALES == 0
    )


def _stacked(modules: Sequence[Any]) -> Tensor:
    """The modules' weights one below the other, into which theirs look afterwards."""
    weight_NK = _joined([module.weight for module in modules])
    _look_into(modules, weight_NK)
    return weight_NK


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0].detach() if len(parts) == 1 else torch.cat([part.detach() for part in parts])


def _look_into(modules: Sequence[Any], weight_NK: Tensor) -> None:
    """Let each module's weight be its rows of the joined one."""
    for module, part in zip(modules, weight_NK.split([len(module.weight) for module in modules]), strict=True):
        module.weight = nn.Parameter(part, requires_grad=False)
