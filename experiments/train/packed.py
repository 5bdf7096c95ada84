"""Rows without their padding, one behind the other, so that a network is trained on all of a batch at once.

Attention is told where rows end, so that nothing is computed for padding, and rows of any lengths go together. How many
positions there are is fixed, so that a step can be recorded; what is left of them is rows of nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn

from dlmlab.model.block import Block
from dlmlab.model.llada import LLaDAModelLM


class Masked(NamedTuple):
    """B rows of one layout, of L positions, with their masks."""

    ids_BL: Tensor
    """Token ids, some of them masked."""
    token_BL: Tensor
    """The right tokens' ids."""
    real_BL: Tensor
    """Whether a position is no padding."""
    weight_BL: Tensor
    """What a position weighs in the mean of the loss; 0 outside the canvas."""
    scale_BL: Tensor
    """What its cross-entropy is multiplied with; 0 where it isn't masked."""


class Packed(NamedTuple):
    """N positions of rows of all layouts, see `Masked`."""

    ids_N: Tensor
    token_N: Tensor
    weight_N: Tensor
    scale_N: Tensor
    position_N: Tensor
    """Positions, counted from a row's first."""
    ends_R: Tensor
    """int32: 0, and where each row ends; the last is N."""


def pack(rows: Sequence[Masked], room: int, longest: int) -> Packed:
    """Put rows one behind the other; those that no longer fit are left out.

    Args:
        rows: The rows of each layout.
        room: N, the positions that there are.
        longest: The most positions of a row.
    """
    lengths = [each.real_BL.sum(1) for each in rows]
    length_R = torch.cat(lengths)
    fits_R = length_R.cumsum(0) <= room
    kept = [
        each.real_BL & fits_B[:, None] for each, fits_B in zip(rows, fits_R.split([*map(len, lengths)]), strict=True)
    ]
    kept_P = torch.cat([each.flatten() for each in kept])
    place_P = torch.where(kept_P, kept_P.cumsum(0) - 1, room)  # all that isn't kept goes to one place behind the others
    source_P = torch.arange(len(kept_P), device=kept_P.device)
    source_N = source_P.new_full((room + 1,), len(kept_P)).scatter_(0, place_P, source_P)[:room]

    def taken(columns: Sequence[Tensor]) -> Tensor:
        return torch.cat([*(each.flatten() for each in columns), columns[0].new_zeros(1)])[source_N]

    ids, token, _, weight, scale = (taken(columns) for columns in zip(*rows, strict=True))
    position_N = taken([each.cumsum(1) - 1 for each in kept])
    end_R = (length_R * fits_R).cumsum(0)
    spare_R = end_R[-1] + longest * torch.arange(1, room // longest + 2, device=end_R.device)
    ends_R = torch.cat((end_R.new_zeros(1), end_R, spare_R)).clamp(max=room).int()
    return Packed(ids, token, weight, scale, position_N, ends_R)


def run_block(block: Block, x_ND: Tensor, angles: tuple[Tensor, Tensor], ends_R: Tensor, longest: int) -> Tensor:
    """Return the residual stream behind a block, (N, D), where each row attends to itself, in both directions.

    Args:
        block: The block.
        x_ND: The residual stream before it.
        angles: Cosines and sines of the positions' angles, (N, 1, E).
        ends_R: Where rows end.
        longest: The most positions of a row.
    """
    q_NHE, k_NHE, v_NHE = block.heads(x_ND, *angles)
    if block.groups > 1:
        k_NHE, v_NHE = (each.repeat_interleave(block.groups, dim=1) for each in (k_NHE, v_NHE))
    mixed_NHE = attend(q_NHE.to(v_NHE.dtype), k_NHE.to(v_NHE.dtype), v_NHE, ends_R, longest)
    return block.finish(x_ND, mixed_NHE.flatten(1))


def attend(q_NHE: Tensor, k_NHE: Tensor, v_NHE: Tensor, ends_R: Tensor, longest: int) -> Tensor:
    """Return what queries gather of their own row's keys, (N, H, E).

    Args:
        q_NHE: Queries.
        k_NHE: Keys, of as many heads.
        v_NHE: Their values.
        ends_R: Where rows end.
        longest: The most positions of a row.
    """
    if q_NHE.is_cuda:
        return varlen_attn(q_NHE, k_NHE, v_NHE, ends_R, ends_R, longest, longest)  # type: ignore[return-value]
    lengths = ends_R.diff().tolist()
    rows = zip(*(each.transpose(0, 1).split(lengths, dim=1) for each in (q_NHE, k_NHE, v_NHE)), strict=True)
    return torch.cat([F.scaled_dot_product_attention(*row) for row in rows if row[0].numel()], dim=1).transpose(0, 1)


def through_rows(
    model: LLaDAModelLM, x_ND: Tensor, packed: Packed, longest: int, run: Callable[..., Tensor] = run_block
) -> Tensor:
    """Return embedded tokens after the network's blocks and its final norm, (N, D).

    Args:
        model: The network.
        x_ND: Embedded tokens.
        packed: Says where they are.
        longest: The most positions of a row.
        run: `run_block`, or what it is compiled to.
    """
    angles = model.model.angles(x_ND, packed.position_N)
    for block in model.model.transformer["blocks"]:
        x_ND = run(block, x_ND, angles, packed.ends_R, longest)
    normed: Tensor = model.model.transformer["ln_f"](x_ND)
    return normed
