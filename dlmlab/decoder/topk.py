"""The scheduled top-k that most rules share."""

from __future__ import annotations

import torch
from torch import Tensor


def top_k(score_BK: Tensor, quota: Tensor | int) -> Tensor:
    """Return the positions of each row with the highest scores, as a (B, K) mask.

    Equal scores go to the leftmost position, on every device and batch size (torch.topk leaves that open).

    Args:
        score_BK: A number for each position; -inf where it can't be chosen.
        quota: How many of each row, (B, 1) or one number; where fewer positions have a score above -inf, all of them.
    """
    return (rank(descending(score_BK)) < quota) & (score_BK > -torch.inf)


def descending(score_BK: Tensor) -> Tensor:
    """Return the positions of each row from the highest score to the lowest, (B, K) indices."""
    return score_BK.argsort(dim=-1, descending=True, stable=True)


def rank(order_BK: Tensor) -> Tensor:
    """Return where each position stands in an order of the row's positions, (B, K), counted from 0."""
    position_BK = torch.arange(order_BK.shape[-1], device=order_BK.device).expand_as(order_BK)
    return torch.empty_like(order_BK).scatter_(-1, order_BK, position_BK)


def longest_prefix(score_BK: Tensor, holds_BK: Tensor) -> Tensor:
    """Return the n positions of each row with the highest scores, as a (B, K) mask, n the largest that is allowed.

    Args:
        score_BK: A number for each position; one of -inf is never chosen. Of equals the leftmost go first.
        holds_BK: bool: whether n may be 1, 2, … K; where none is allowed, n is 1.
    """
    order_BK = descending(score_BK)
    count_K = torch.arange(1, order_BK.shape[-1] + 1, device=order_BK.device)
    most_B1 = (holds_BK * count_K).amax(-1, keepdim=True).clamp(min=1)
    return (rank(order_BK) < most_B1) & (score_BK > -torch.inf)
