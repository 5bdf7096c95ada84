"""What hides positions from attention: padding, later blocks. Shape suffixes as in `dlmlab.model.llada`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

MASKED_SCORE = torch.finfo(torch.float16).min
"""Added to the score of a padded key. Finite in every dtype, so that a row without any real token is no NaN."""


def attention_bias(attention_mask_BL: Tensor | None, length: int, block_length: int, like: Tensor) -> Tensor | None:
    """Return what hides padding and later blocks in attention scores; None where everything is seen; see `bias_of`.

    Args:
        attention_mask_BL: 0 at padding; None where there is none.
        length: L, the positions of a row.
        block_length: Positions of a block; 0 where attention sees both directions.
        like: Gives dtype and device.
    """
    if attention_mask_BL is None and not block_length:
        return None
    hidden = torch.zeros(1, 1, length, dtype=torch.bool, device=like.device)
    if attention_mask_BL is not None:
        hidden = hidden | (attention_mask_BL == 0)[:, None]
    if block_length:
        block_L = torch.arange(length, device=like.device) // block_length
        hidden = hidden | (block_L > block_L[:, None])
    return bias_of(hidden, like)


def bias_of(hidden_BLL: Tensor, like: Tensor) -> Tensor:
    """Return what is added to attention scores, (B or 1, 1, L or 1, L), so that what is hidden isn't seen.

    Args:
        hidden_BLL: bool: whether a token doesn't attend to another one, (B or 1, L or 1, L).
        like: Gives dtype and device.
    """
    # Rows start at multiples of 16: fused CUDA attention copies a bias that is aligned otherwise at each layer.
    length = hidden_BLL.shape[-1]
    hidden_BLL = F.pad(hidden_BLL, (0, -length % 16))
    bias = torch.zeros(hidden_BLL.shape, dtype=like.dtype, device=like.device).masked_fill_(hidden_BLL, MASKED_SCORE)
    return bias[:, None, :, :length]
