"""Random weights of a configured shape, to measure speed where the weights are not."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dlmlab.model import family
from dlmlab.model.config import LLaDAConfig

SEED = 0
STD = 0.02
POOL = 2**24
"""Numbers that are drawn; larger tensors repeat them, since drawing eight thousand million takes a CPU minutes."""


class DummyWeights:
    """Tensors for any shape, the same ones each time, made where they are used."""

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        generator = torch.Generator(device).manual_seed(SEED)
        bound = STD * 3**0.5
        self._pool = torch.empty(POOL, dtype=dtype, device=device).uniform_(-bound, bound, generator=generator)

    def make(self, shape: torch.Size) -> Tensor:
        """Ones for a vector (a norm's weight or a bias), else numbers around zero."""
        if len(shape) == 1:
            return self._pool.new_ones(shape)
        tensor = self._pool.new_empty(shape)
        for part in tensor.view(-1).split(POOL):
            part.copy_(self._pool[: len(part)])
        return tensor


def fingerprint(config: LLaDAConfig) -> str:
    """Return a stand-in for the weights' hash: the seed, and a hash of the shape."""
    shape = hashlib.sha256(config.to_json_string().encode()).hexdigest()
    return f"dummy weights, seed {SEED}, config {shape}"


def network_config(config: Mapping[str, Any]) -> LLaDAConfig:
    """The network of a config in place of a config.json; LLaDA's, whose defaults are the published model's, where it
    names no architecture.
    """
    return family.network_config(config, "model.config") if config.get("architectures") else LLaDAConfig(**config)
