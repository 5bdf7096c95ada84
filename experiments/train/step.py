"""A training step: the loss, its gradients, and what the optimisers make of them.

A small model's step is hundreds of kernels, which take a host longer to launch than a GPU to run. So there its two
halves are recorded as CUDA graphs; between them the processes that train together add up what each has found, in one
sum.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from experiments.train.distributed import add_up
from experiments.train.loss import Batch, Objective


class Steps:
    """Takes one step after the other.

    Args:
        objective: The loss of a batch.
        optimizers: The optimisers of all parameters, whose learning rates are tensors.
        recorded: Whether the halves of a step are recorded, which takes a GPU.
    """

    def __init__(self, objective: Objective, optimizers: Sequence[torch.optim.Optimizer], recorded: bool) -> None:
        self._objective, self._optimizers = objective, optimizers
        groups = (group for optimizer in optimizers for group in optimizer.param_groups)
        self._parameters: list[Tensor] = [parameter for group in groups for parameter in group["params"]]
        sizes = [parameter.numel() for parameter in self._parameters]
        self._found = self._parameters[0].new_zeros(sum(sizes) + 2)
        """The gradients, the summed loss, and the weight that it is summed over."""
        parts = self._found[:-2].detach().split(sizes)
        self._gradients = [part.view_as(each) for part, each in zip(parts, self._parameters, strict=True)]
        self._half: Callable[..., None] = self._find
        self._other_half: Callable[..., None] = self._go
        if recorded:
            record = Recorder()
            self._half, self._other_half = Recording(self._find, record), Recording(self._go, record)

    def __call__(self, batch: Sequence[Batch]) -> Tensor:
        """Take a step, and return the loss before it; the next call overwrites it.

        Args:
            batch: The rows of each layout, or this process's part of them.
        """
        self._half(*(column for rows in batch for column in rows))
        add_up(self._found)
        self._other_half()
        return self._found[-2]

    def _find(self, *columns: Tensor) -> None:
        width = len(Batch._fields)
        loss, weight = self._objective(
            [Batch(*columns[first : first + width]) for first in range(0, len(columns), width)]
        )
        loss.backward()
        given = [
            (own, new)
            for own, each in zip(self._gradients, self._parameters, strict=True)
            if (new := each.grad) is not None
        ]
        torch._foreach_copy_([own for own, _ in given], [new for _, new in given])
        for parameter in self._parameters:
            parameter.grad = None
        self._found[-2] = loss.detach()
        self._found[-1] = weight

    def _go(self) -> None:
        self._found[:-1] /= self._found[-1]
        for found, parameter in zip(self._gradients, self._parameters, strict=True):
            parameter.grad = found
        for optimizer in self._optimizers:
            optimizer.step()
            optimizer.zero_grad()


class Recorder:
    """Records work on a GPU. What it records shares its memory, since it runs in turns."""

    def __init__(self) -> None:
        self._pool: Any = None

    def __call__(self, work: Callable[[], None]) -> Callable[[], None]:
        """Return what does the work again, in the same memory; the work is not done yet."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            work()
        self._pool = graph.pool()
        return graph.replay


class Recording:
    """Work that is done as it is the first time, which makes what is made once, and recorded the second.

    Args:
        work: Is given tensors, of the same shapes each time.
        record: Records it.
    """

    def __init__(self, work: Callable[..., None], record: Recorder) -> None:
        self._work, self._record = work, record
        self._begun = False
        self._own: list[Tensor] = []
        self._replay: Callable[[], None] | None = None

    def __call__(self, *given: Tensor) -> None:
        if not self._begun:
            self._begun = True
            self._work(*given)
            return
        if self._replay is None:
            self._own = [each.clone() for each in given]
            self._replay = self._record(partial(self._work, *self._own))
        for own, each in zip(self._own, given, strict=True):
            own.copy_(each)
        self._replay()
