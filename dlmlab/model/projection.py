"""Projections of a block as the fast pass multiplies them: several side by side in one matrix, in their own precision.

The modules that they come from stay as they are, and look into the same memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dlmlab.kernel.nf4 import Packed, matmul, matmul_few
from dlmlab.model.quantize import Float8Linear, scaled_matmul

Projection = Callable[[Any], Tensor]
"""(M, K), or the same in `dlmlab.kernel.pointwise.Float8` for an FP8 matrix, to (M, N)."""

NF4_KERNELS: dict[str, Callable[[Tensor, Packed], Tensor]] = {"auto": matmul, "fused": matmul_few}
PACKED_SCALES = 256
"""Scales that share a scale of their own."""


def side_by_side(modules: Sequence[nn.Module], nf4_kernel: str) -> Projection:
    """One projection to all that these project to, in their order.

    nf4_kernel: see `dlmlab.model.loader.load`; bnb, and a matrix that the kernels can't take, goes through the modules.
    """
    first = modules[0]
    if isinstance(first, Float8Linear):
        return _float8(modules)
    if type(first) is nn.Linear:
        return _dense(modules)
    if nf4_kernel in NF4_KERNELS and all(map(_packable, modules)):
        return _nf4(modules, NF4_KERNELS[nf4_kernel])
    return lambda x: torch.cat([module(x) for module in modules], -1)


def _dense(modules: Sequence[Any]) -> Projection:
    weight_NK = _joined([module.weight for module in modules])
    _look_into(modules, weight_NK)
    return lambda x: torch.mm(x, weight_NK.T)


def _float8(modules: Sequence[Any]) -> Projection:
    weight_NK = _joined([module.weight for module in modules])
    scale_N = _joined([module.scale for module in modules])
    _look_into(modules, weight_NK)
    for module, scale in zip(modules, scale_N.split([len(module.scale) for module in modules]), strict=True):
        module.scale = scale
    return lambda x: scaled_matmul(x.values, x.scale, weight_NK, scale_N)


def _nf4(modules: Sequence[Any], multiply: Callable[[Tensor, Packed], Tensor]) -> Projection:
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
    packed = Packed(codes, scales, states[0].state2.code, scale_scales, offset, states[0].code)
    return lambda x: multiply(x, packed)


def _packable(module: Any) -> bool:
    """Whether a bitsandbytes layer is in the form that the kernels know, and can stand beside others."""
    state = getattr(module.weight, "quant_state", None)
    return (
        state is not None
        and (state.quant_type, state.blocksize, state.nested) == ("nf4", 64, True)
        and state.state2.blocksize == PACKED_SCALES
        and module.in_features % 64 == 0
        and len(state.absmax) % PACKED_SCALES == 0
    )


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0].detach() if len(parts) == 1 else torch.cat([part.detach() for part in parts])


def _look_into(modules: Sequence[Any], weight_NK: Tensor) -> None:
    """Let each module's weight be its rows of the joined one."""
    for module, part in zip(modules, weight_NK.split([len(module.weight) for module in modules]), strict=True):
        module.weight = nn.Parameter(part, requires_grad=False)
