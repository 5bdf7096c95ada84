"""Muon: momentum whose update is made orthogonal, for the matrices of a transformer's blocks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5


class Muon(torch.optim.Optimizer):
    """Keller Jordan, "Muon: an optimizer for hidden layers" (2024), with Nesterov momentum and decoupled decay.

    Matrices of one shape are orthogonalised as one stack, since those of a small model keep a GPU waiting one by one.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, momentum: float, weight_decay: float) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                by_shape[parameter.shape].append(parameter)
            for matrices in by_shape.values():
                self._update(matrices, group["lr"], group["momentum"], group["weight_decay"])

    def _update(self, matrices: list[Tensor], lr: float | Tensor, momentum: float, weight_decay: float) -> None:
        gradient = torch.stack([matrix.grad for matrix in matrices if matrix.grad is not None])
        state = self.state[matrices[0]]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(gradient)
        state["momentum"].lerp_(gradient, 1 - momentum)
        update = orthogonalize(gradient.lerp(state["momentum"], momentum))
        rows, columns = update.shape[-2:]
        torch._foreach_mul_(matrices, 1 - lr * weight_decay)
        torch._foreach_sub_(matrices, list((update * (lr * max(1.0, rows / columns) ** 0.5)).unbind()))


def orthogonalize(stack: Tensor) -> Tensor:
    """About the nearest orthogonal matrix to each of a stack (N, rows, columns), by a Newton-Schulz iteration."""
    a, b, c = NEWTON_SCHULZ
    x = stack.bfloat16()
    if wide := x.shape[-2] > x.shape[-1]:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    orthogonal: Tensor = x.mT if wide else x
    return orthogonal.to(stack.dtype)
