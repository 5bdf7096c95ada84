"""What attention sees: what hides padding and later blocks from it, and its maps for rules that ask for them.

Shape suffixes as in `dlmlab.model.llada`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dlmlab.model.config import LLaDAConfig

MASKED_SCORE = torch.finfo(torch.float16).min
"""Added to the score of a padded key. Finite in every dtype, so that a row without any real token is no NaN."""


def blocks_of(config: LLaDAConfig, block_length: int | None) -> int:
    """Return how many positions a block has, where none sees a later block; 0 where attention sees both directions.

    Args:
        config: The network's, which says whether attention is block-causal, and how it was trained.
        block_length: What a caller says instead of that; None where it says nothing.
    """
    return (block_length or config.block_size) if config.block_size else 0


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


class AttentionMaps:
    """Averages the attention of a network's last layers between some positions of each row, (B, K, K), as they pass."""

    def __init__(self, position_BK: Tensor, length: int, layers: int) -> None:
        """Begin with none.

        Args:
            position_BK: K positions of each of the first B rows, as indices into rows × L, on the network's device.
            length: L, the positions of a row.
            layers: How many layers will be added.
        """
        self.position_BK, self.layers = position_BK % length, layers
        self.mean_BKK = torch.zeros(*position_BK.shape, position_BK.shape[1], device=position_BK.device)

    def add(self, q_BLHE: Tensor, k_BLHE: Tensor, bias: Tensor | None) -> None:
        """Add a layer.

        Args:
            q_BLHE: Rotated queries of all heads.
            k_BLHE: Rotated keys, of as many heads or, under grouped-query attention, fewer.
            bias: See `attention_bias`.
        """
        position_BK = self.position_BK
        row_B1 = torch.arange(len(position_BK), device=position_BK.device)[:, None]
        q_BHKE = q_BLHE[row_B1, position_BK].transpose(1, 2).float()
        k_BHLE = k_BLHE[: len(position_BK)].transpose(1, 2).float()
        k_BHLE = k_BHLE.repeat_interleave(q_BHKE.shape[1] // k_BHLE.shape[1], dim=1)
        scores_BHKL = q_BHKE @ k_BHLE.transpose(2, 3) * q_BHKE.shape[-1] ** -0.5
        if bias is not None:
            bias_BLL = bias[:, 0].float().expand(len(q_BLHE), -1, -1)
            scores_BHKL = scores_BHKL + bias_BLL[row_B1, position_BK if bias_BLL.shape[1] > 1 else 0][:, None]
        attention_BKL = scores_BHKL.softmax(-1).mean(1)
        among_BKK = position_BK[:, None].expand(-1, position_BK.shape[1], -1)
        self.mean_BKK += attention_BKL.gather(-1, among_BKK) / self.layers
