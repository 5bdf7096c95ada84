"""A forward pass in which all positions go through all blocks, but many take what a block's halves added before.

Of each row the store keeps, beside keys and values, what attention and MLP add to the residual stream, in each layer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dlmlab.denoiser import Query
from dlmlab.model.cached import KeyValueStore, Part, pack, write

if TYPE_CHECKING:
    from dlmlab.model.block import Block
    from dlmlab.model.config import LLaDAConfig
    from dlmlab.model.llada import LLaDAModel


class FeatureStore(KeyValueStore):
    """Beside keys and values, what attention and MLP have added: (layers, 2, L, D)."""

    def __init__(self, config: LLaDAConfig, positions: int, like: Tensor) -> None:
        super().__init__(config, positions, like)
        self.added = like.new_zeros(config.n_layers, 2, positions, config.d_model)

    @property
    def nbytes(self) -> int:
        """See `dlmlab.denoiser.Store`."""
        return super().nbytes + self.added.nbytes


def feature_pass(model: LLaDAModel, query: Query) -> Tensor:
    """Return the final norm's output, (N, D), at the positions that are wanted; all where none are named.

    Args:
        model: The network under its head.
        query: A pass over all positions of its rows; each has a `FeatureStore` and a hook of the kind `FeatureReuse`.
    """
    packed = pack(query, model)
    x_TD = model.embed(packed.ids_T)
    blocks: list[Any] = list(model.transformer["blocks"].children())
    hidden = []
    for part in packed.parts:
        x_LD = x_TD[part.share]
        for layer, block in enumerate(blocks):
            x_LD = pass_block(model, block, layer, part, x_LD)
        hidden.append(x_LD)
    return model.transformer["ln_f"](torch.cat(hidden).index_select(0, packed.wanted_N))  # type: ignore[no-any-return]


def pass_block(model: LLaDAModel, block: Block, layer: int, part: Part, x_LD: Tensor) -> Tensor:
    """Pass one row through a block, computed only where the row's hook says.

    Args:
        model: The network under its head, which has the angles of positions.
        block: The block, whose halves are computed.
        layer: The block's number, counted from 0; the first computes everything.
        part: The row's share of the pass; its store takes what is computed, and gives the rest.
        x_LD: The residual stream before the block, at all positions of the row.

    Returns:
        The residual stream behind the block, (L, D).
    """
    store: FeatureStore = part.store
    own_T = computed_positions(block, layer, part, x_LD)
    attended_LD, fed_LD = store.added[layer]
    if len(own_T):
        cos_T1E, sin_T1E = model.angles(x_LD, own_T)
        q_THE, k_THE, v_THE = block.heads(x_LD[own_T], cos_T1E, sin_T1E)
        write(store.kept[layer], own_T, k_THE, v_THE)
        k_HLE, v_HLE = store.kept[layer]
        bias_TL = None if part.bias_TL is None else part.bias_TL[own_T]
        [mixed_TD] = block.mix(q_THE.transpose(0, 1)[None], k_HLE[None], v_HLE[None], bias_TL)
        attended_LD[own_T] = block.attn_out(mixed_TD)
    x_LD = x_LD + attended_LD
    if len(own_T):
        fed_LD[own_T] = block.feed(x_LD[own_T])
    out_LD: Tensor = x_LD + fed_LD
    return out_LD


def computed_positions(block: Block, layer: int, part: Part, x_LD: Tensor) -> Tensor:
    """Return the positions that a layer computes, in order. Watched ones get their new values, among these or not.

    Args:
        block: The layer's block, which computes values.
        layer: The layer, counted from 0; the first computes everything.
        part: The row's share of the pass; its store's values of watched positions are compared, then written.
        x_LD: The residual stream before the block, at all positions of the row.
    """
    if layer == 0:
        return part.position_T
    hook, store, device = part.hook, part.store, x_LD.device
    computed_L = torch.tensor(hook.computed, device=device)  # a copy, to which this layer adds
    if hook.watched is not None:
        [watched_N] = torch.from_numpy(hook.watched).to(device).nonzero(as_tuple=True)
        values_HLE = store.kept[layer][1]
        new_ND = block.v_proj(block.attn_norm(x_LD[watched_N]))
        old_ND = values_HLE[:, watched_N].transpose(0, 1).flatten(1)
        computed_L[watched_N[hook.stale(new_ND, old_ND)]] = True
        values_HLE[:, watched_N] = new_ND.unflatten(-1, (-1, values_HLE.shape[-1])).transpose(0, 1)
    return computed_L.nonzero(as_tuple=True)[0]
