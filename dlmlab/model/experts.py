"""Mixtures of experts (LLaDA-MoE, arXiv:2509.24389; LLaDA2.0, arXiv:2512.15745): a router, and small MLPs side by side.

Shape suffixes as in `dlmlab.types`; X experts, A of them for a token, I their width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlmlab.model.config import ACTIVATIONS, ROUTERS, NetworkConfig


class Router(nn.Module):
    """Chooses which experts see a token, and how much each counts; in float32, whatever the model's dtype."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.empty(config.n_experts, config.d_model))
        self.bias = nn.Parameter(torch.zeros(config.n_experts)) if config.router_bias else None

    def forward(self, x_ND: Tensor) -> tuple[Tensor, Tensor]:
        """(N, D) to the chosen experts' numbers and weights, each (N, A)."""
        config = self.config
        score_NX = ROUTERS[config.router](F.linear(x_ND.float(), self.weight.float()))
        biased_NX = score_NX if self.bias is None else score_NX + self.bias
        weight_NA, expert_NA = self._in_best_groups(biased_NX).topk(config.experts_per_token, -1)
        if config.bias_only_selects:
            weight_NA = score_NX.gather(-1, expert_NA)
        if config.normalize_weights:
            weight_NA = weight_NA / (weight_NA.sum(-1, keepdim=True) + 1e-20)
        return expert_NA, weight_NA * config.routed_scale

    def _in_best_groups(self, score_NX: Tensor) -> Tensor:
        """Return the scores, -inf outside the groups whose two best experts score most together."""
        config = self.config
        if config.groups == 1:
            return score_NX
        score_NGx = score_NX.unflatten(-1, (config.groups, -1))
        best_Ng = score_NGx.topk(2, -1).values.sum(-1).topk(config.groups_per_token, -1).indices
        chosen_NG = torch.zeros_like(score_NGx[..., 0], dtype=torch.bool).scatter_(-1, best_Ng, True)
        return torch.where(chosen_NG[..., None], score_NGx, -torch.inf).flatten(1)


class Experts(nn.Module):
    """Gated MLPs, their weights stacked: gate and up projection one below the other, (X, 2I, D); down, (X, D, I)."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.act = ACTIVATIONS[config.activation_type]
        self.n_experts = config.n_experts
        self.gate_up = nn.Parameter(torch.empty(config.n_experts, 2 * config.expert_width, config.d_model))
        self.down = nn.Parameter(torch.empty(config.n_experts, config.d_model, config.expert_width))

    def forward(self, x_ND: Tensor, expert_NA: Tensor, weight_NA: Tensor) -> Tensor:
        """Return what the chosen experts make of each token, weighted and summed up, (N, D), in x's dtype.

        Args:
            x_ND: The hidden states of N tokens, behind the norm.
            expert_NA: int64: the numbers of the experts that see a token.
            weight_NA: float32: how much each of them counts.
        """
        order = expert_NA.flatten().argsort(stable=True)
        token = order // expert_NA.shape[-1]
        ones = torch.ones_like(order)  # counted without bincount, for which the host waits
        count_X = order.new_zeros(self.n_experts).scatter_add_(0, expert_NA.flatten(), ones)
        mixed = self._mlps(x_ND[token], count_X)
        y_NAD = torch.empty_like(mixed).index_copy_(0, order, mixed).view(*expert_NA.shape, -1)
        y_ND: Tensor = (y_NAD.float() * weight_NA[..., None]).sum(1)
        return y_ND.to(x_ND.dtype)

    def _mlps(self, x: Tensor, count_X: Tensor) -> Tensor:
        """Rows sorted by expert, so many for each, through their experts' MLPs."""
        multiply = grouped if x.is_cuda and x.dtype == torch.bfloat16 else one_by_one
        gate, up = multiply(x, stacked(self.gate_up, x.dtype), count_X).chunk(2, -1)
        return multiply(self.act(gate) * up, stacked(self.down, x.dtype), count_X)


def stacked(weight: nn.Parameter | nn.Module, dtype: torch.dtype) -> Tensor:
    """Return the experts' matrices, (X, N, K); those that are quantised are unpacked, all of them at a time.

    Args:
        weight: The matrices as a parameter, which is returned as it is, or as a module that unpacks them.
        dtype: The dtype of matrices that are unpacked.
    """
    return weight if isinstance(weight, Tensor) else weight().to(dtype)


def one_by_one(x: Tensor, weight_XNK: Tensor, count_X: Tensor) -> Tensor:
    """Multiply rows with their experts' matrices.

    Args:
        x: The rows, (M, K), sorted by expert.
        weight_XNK: The experts' matrices.
        count_X: int64: how many of the rows belong to each expert; the host waits for these numbers.

    Returns:
        The products, (M, N), in the rows' order.
    """
    parts = x.split(count_X.tolist())
    return torch.cat([F.linear(part, weight_XNK[expert]) for expert, part in enumerate(parts) if len(part)])


def grouped(x: Tensor, weight_XNK: Tensor, count_X: Tensor) -> Tensor:
    """Do what `one_by_one` does in one product that doesn't wait for the counts, in bfloat16.

    Args:
        x: The rows, (M, K), sorted by expert, in bfloat16 on a GPU.
        weight_XNK: The experts' matrices, in bfloat16.
        count_X: int64: how many of the rows belong to each expert.

    Returns:
        The products, (M, N), in the rows' order.
    """
    return F.grouped_mm(x, weight_XNK.transpose(1, 2), offs=count_X.cumsum(0).to(torch.int32))
