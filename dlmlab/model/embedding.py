"""An embedding that stays on the host, where a GPU reads the rows of the tokens that it is given: a few of 126,000."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dlmlab.errors import UserError
from dlmlab.kernel.embedding import gather
from dlmlab.model.llada import LLaDAModelLM


class HostEmbedding(nn.Module):
    """Stands for `nn.Embedding`.

    Args:
        weight_VD: The matrix, in memory of the host that a GPU can read, which is pinned.
    """

    def __init__(self, weight_VD: Tensor) -> None:
        super().__init__()
        self.weight = weight_VD  # no parameter, which would be taken to be on the model's device

    def forward(self, ids: Tensor) -> Tensor:
        """Return the rows of token ids of any shape, (…, D), on the ids' device."""
        rows_TD = torch.empty(ids.numel(), self.weight.shape[1], dtype=self.weight.dtype, device=ids.device)
        gather(self.weight, ids.flatten(), rows_TD)
        return rows_TD.view(*ids.shape, -1)


def keep_on_host(model: LLaDAModelLM) -> None:
    """Move a model's embedding from a GPU to the host.

    Args:
        model: The model, on a GPU.

    Raises:
        UserError: The model's head is the same matrix.
    """
    if model.config.weight_tying:
        raise UserError(
            "embedding_device=cpu is not for a model whose head is its embedding: set embedding_device=auto"
        )
    transformer: Any = model.model.transformer
    transformer["wte"] = HostEmbedding(transformer["wte"].weight.detach().cpu().pin_memory())
