"""Rotary positions (arXiv:2104.09864). Shape suffixes as in `dlmlab.model.llada`."""

from __future__ import annotations

import torch
from torch import Tensor

from dlmlab.model.config import LLaDAConfig


def rotary_tables(config: LLaDAConfig, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return what `LLaDAModel.rotary` keeps.

    Args:
        config: The network's, which gives the context, and the width and base of the angles.
        device: The device on which the tables are built, and stay.
    """
    width = config.rotary_width or config.head_width
    exponents = torch.arange(0, width, 2, dtype=torch.float32, device=device) / width
    positions = torch.arange(config.max_sequence_length, dtype=torch.float32, device=device)
    angles = torch.outer(positions, 1.0 / config.rope_theta**exponents)[:, None]
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)


def rotate(x_BLHE: Tensor, cos_L1E: Tensor, sin_L1E: Tensor) -> Tensor:
    """Rotary positions (arXiv:2104.09864) with the halves of a head paired; the tables' dtype is the precision.

    Where the tables are narrower than a head, what is behind them stays as it is.

    Args:
        x_BLHE: Queries or keys of the heads.
        cos_L1E: Cosines of the positions' angles.
        sin_L1E: Their sines, those of the first half negated.
    """
    width = cos_L1E.shape[-1]
    if width < x_BLHE.shape[-1]:
        return torch.cat((rotate(x_BLHE[..., :width], cos_L1E, sin_L1E), x_BLHE[..., width:]), dim=-1)
    swapped = x_BLHE.roll(width // 2, dims=-1)
    return torch.addcmul(x_BLHE * cos_L1E, swapped, sin_L1E).to(x_BLHE.dtype)
