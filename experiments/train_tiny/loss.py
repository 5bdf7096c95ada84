"""The loss of masked diffusion on answers (LLaDA, arXiv:2502.09992, equation 5), weighted for short answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from dlmlab.denoiser import Query
from dlmlab.model.llada import LLaDAModelLM
from experiments.train_tiny.data import Layout

LEAST_T = 0.02
"""Least share of masked positions; with fewer a row teaches next to nothing and weighs 1 / t."""


def make_loss(model: LLaDAModelLM, layout: Layout, short_answer: int, padding_weight: float) -> Callable[..., Tensor]:
    """Return the loss as a function of what `batches` yields.

    short_answer: answers of fewer tokens weigh as much as one of this length. padding_weight: of the end tokens behind
    the first.
    """
    mask_id, cuda = model.config.mask_token_id, model.device.type == "cuda"
    position_L = torch.arange(layout.prompt + layout.canvas, device=model.device)

    def loss_of(
        ids_BL: Tensor, prompt_B: Tensor, answer_B: Tensor, canvas_B: Tensor, t_B: Tensor, uniform_BK: Tensor
    ) -> Tensor:
        real_BL = (position_L >= layout.prompt - prompt_B[:, None]) & (position_L < layout.prompt + canvas_B[:, None])
        prompt_BP, answer_BK = ids_BL.long().split((layout.prompt, layout.canvas), dim=1)
        real_BK = real_BL[:, layout.prompt :]
        masked_BK = (uniform_BK < t_B[:, None]) & real_BK
        inside_BK = position_L[: layout.canvas] < answer_B[:, None]
        answer_weight_B1 = (short_answer / answer_B).clamp(min=1.0)[:, None]
        weight_BK = torch.where(inside_BK, answer_weight_B1, padding_weight) * real_BK
        with torch.autocast("cuda", torch.bfloat16, enabled=cuda):
            seen_BL = torch.cat((prompt_BP, answer_BK.masked_fill(masked_BK, mask_id)), dim=1)
            logits_BKV = model.head(model.hidden(Query(seen_BL, real_BL))[:, layout.prompt :])
        entropy_BK = F.cross_entropy(logits_BKV.float().transpose(1, 2), answer_BK, reduction="none")
        return (entropy_BK * masked_BK * weight_BK / t_B[:, None]).sum() / weight_BK.sum()

    return loss_of


def batches(columns: list[Tensor], canvas: int, batch_size: int, generator: torch.Generator) -> Iterator[list[Tensor]]:
    """Rows in a random order, over and over, with each row's t, stratified, and its positions' uniform numbers."""
    device, rows = generator.device, len(columns[0])
    stratum_B = torch.arange(batch_size, device=device)
    while True:
        order = torch.randperm(rows, generator=generator, device=device)
        for index_B in order[: rows - rows % batch_size].split(batch_size):
            share_B = (stratum_B + torch.rand(batch_size, generator=generator, device=device)) / batch_size
            uniform_BK = torch.rand(batch_size, canvas, generator=generator, device=device)
            yield [*(column[index_B] for column in columns), LEAST_T + (1 - LEAST_T) * share_B, uniform_BK]
