"""A forward pass over some positions of each row, which takes the keys and values of the others from a store.

Positions of all rows follow each other without padding: a row that computes everything costs its neighbours nothing.
Only attention looks at a row by itself, T' of its positions over the keys of L.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dlmlab.types import Query

if TYPE_CHECKING:
    from dlmlab.model.config import LLaDAConfig
    from dlmlab.model.llada import Block, LLaDAModel


class KeyValueStore:
    """A row's keys, rotated, and values: (layers, 2, H, L, E)."""

    def __init__(self, config: LLaDAConfig, positions: int, like: Tensor) -> None:
        self.kept = like.new_zeros(config.n_layers, 2, config.kv_heads, positions, config.head_width)

    @property
    def nbytes(self) -> int:
        """See `dlmlab.types.Store`."""
        return self.kept.nbytes


class Part(NamedTuple):
    """A row's share of the T positions of a pass: where it is, the positions of the row, and those that are seen."""

    share: slice
    position: Tensor
    visible: Tensor | None
    store: KeyValueStore


def cached_pass(model: LLaDAModel, query: Query) -> Tensor:
    """The final norm's output, (N, D) at the positions that are wanted, all that are computed where none are named."""
    assert query.reuse is not None
    device: Any = model.transformer["wte"].weight.device
    real = np.ones(query.tokens_BL.shape, dtype=bool) if query.real_BL is None else query.real_BL.numpy(force=True)
    real_BL = torch.from_numpy(real)
    position_T = query.reuse.position_BL[real_BL].to(device)
    x_TD = model.embed(query.tokens_BL[real_BL].to(device))
    cos_T1E, sin_T1E = model.angles(x_TD, position_T)
    parts = parts_of(query, real.sum(-1), position_T)
    wanted_N: Tensor | None = None
    if query.wanted_N is not None:
        wanted_N = (real_BL.flatten().cumsum(0) - 1)[query.wanted_N].to(device)
    blocks: list[Any] = list(model.transformer["blocks"].children())
    for layer, block in enumerate(blocks):
        mixed_TD = attend(block, layer, parts, block.heads(x_TD, cos_T1E, sin_T1E))
        if block is blocks[-1] and wanted_N is not None:
            x_TD, mixed_TD = x_TD.index_select(0, wanted_N), mixed_TD.index_select(0, wanted_N)
        x_TD = block.finish(x_TD, mixed_TD)
    return model.transformer["ln_f"](x_TD)  # type: ignore[no-any-return]


def parts_of(query: Query, count_B: np.ndarray, position_T: Tensor) -> list[Part]:
    """Each row's share of the T positions."""
    assert query.reuse is not None
    ends = np.cumsum(count_B)
    shares = [slice(int(end - count), int(end)) for end, count in zip(ends, count_B, strict=True)]
    return [
        Part(
            share,
            position_T[share],
            None if visible is None else torch.from_numpy(visible).to(position_T.device),
            store,
        )
        for share, visible, store in zip(shares, query.reuse.visible, query.reuse.stores, strict=True)
    ]


def attend(block: Block, layer: int, parts: list[Part], heads: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Write the new keys and values into the rows' stores, and gather with each row's queries what is visible there."""
    mixed = []
    for part in parts:
        q_HTE, k_HTE, v_HTE = (each[part.share].transpose(0, 1) for each in heads)
        kept_2HLE = part.store.kept[layer]
        kept_2HLE.index_copy_(2, part.position, torch.stack((k_HTE, v_HTE)))
        k_HLE, v_HLE = kept_2HLE if part.visible is None else kept_2HLE[:, :, part.visible]
        mixed.append(block.mix(q_HTE[None], k_HLE[None], v_HLE[None])[0])
    return torch.cat(mixed)
