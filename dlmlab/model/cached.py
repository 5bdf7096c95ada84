"""A forward pass over some positions of each row, which takes the keys and values of the others from a store.

Positions of all rows follow each other without padding: a row that computes everything costs its neighbours nothing.
Only attention looks at a row by itself, T of its positions over the keys of L.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dlmlab.denoiser import Query
from dlmlab.model.attention import blocks_of
from dlmlab.policy import AttentionProbe, KeyChoice

if TYPE_CHECKING:
    from dlmlab.model.block import Block
    from dlmlab.model.config import LLaDAConfig
    from dlmlab.model.llada import LLaDAModel

FLOAT8 = torch.float8_e4m3fn


class KeyValueStore:
    """A row's keys, rotated, and values, (layers, 2, H, L, E), and the keys that each layer sees; None for all."""

    def __init__(
        self, config: LLaDAConfig, positions: int, like: Tensor, kv_cache_dtype: torch.dtype | None = None
    ) -> None:
        shape = config.n_layers, 2, config.kv_heads, positions, config.head_width
        self.kept = like.new_zeros(shape, dtype=kv_cache_dtype)
        self.seen: list[Tensor | None] = [None] * config.n_layers

    @property
    def nbytes(self) -> int:
        """See `dlmlab.denoiser.Store`."""
        return self.kept.nbytes


class Part(NamedTuple):
    """A row's part of a pass.

    Attributes:
        share: Where the row is among the pass's positions.
        position_T: The positions of the row that are computed.
        bias_TL: What is added to the scores so that no block sees a later one; None where attention isn't block-causal.
        visible_L: The positions of the row that are seen, bool; None for all.
        store: What is kept of the row.
        hook: The plan's, which the pass calls; None without one.
    """

    share: slice
    position_T: Tensor
    bias_TL: Tensor | None
    visible_L: Tensor | None
    store: Any
    hook: Any

    @property
    def whole(self) -> bool:
        """Return whether the pass computes all of the row."""
        return len(self.position_T) == int(self.store.kept.shape[3])


class Packed(NamedTuple):
    """A query without padding.

    Attributes:
        ids_T: Its tokens, of all rows.
        position_T: Their positions in their rows.
        wanted_N: Where hidden states are wanted, as indices into T.
        parts: Its rows.
    """

    ids_T: Tensor
    position_T: Tensor
    wanted_N: Tensor
    parts: list[Part]


def pack(query: Query, model: LLaDAModel) -> Packed:
    """Leave out the padding of a query with a cache, on the model's device.

    Args:
        query: It says what the pass reuses; its tensors may lie on the host.
        model: The network that is asked; its config says whether attention is block-causal.

    Returns:
        The query's rows, one behind the other. Where it names no positions, all that are computed are wanted.
    """
    assert query.reuse is not None
    positions_BL, *told = query.reuse
    like, causal = model.like, blocks_of(model.config, query.block_length)
    device = like.device
    real = np.ones(query.tokens_BL.shape, dtype=bool) if query.real_BL is None else query.real_BL.numpy(force=True)
    real_BL = torch.from_numpy(real)
    index_BL = (real_BL.flatten().cumsum(0) - 1).to(device)
    all_T = positions_BL[real_BL].to(device)
    ends = real.sum(-1).cumsum().tolist()
    parts = []
    for begin, end, visible, store, hook in zip([0, *ends[:-1]], ends, *told, strict=True):
        position_T = all_T[begin:end]
        bias_TL = block_causal(position_T, store.kept.shape[3], causal, like) if causal else None
        visible_L = None if visible is None else torch.from_numpy(visible).to(device)
        parts.append(Part(slice(begin, end), position_T, bias_TL, visible_L, store, hook))
    wanted_N = torch.arange(ends[-1], device=device) if query.wanted_N is None else index_BL[query.wanted_N.to(device)]
    return Packed(query.tokens_BL[real_BL].to(device), all_T, wanted_N, parts)


def block_causal(position_T: Tensor, length: int, block_length: int, like: Tensor) -> Tensor:
    """Return what keeps each position from seeing a later block.

    Args:
        position_T: The positions that look, of the row's.
        length: L, the positions of the row.
        block_length: Positions of a block; the first block begins with the row.
        like: A tensor with the dtype and device that the result is to have.

    Returns:
        What is added to attention scores, (T, L): -inf where the block is a later one, else 0.
    """
    block_L = torch.arange(length, device=like.device) // block_length
    later_TL = block_L > (position_T // block_length)[:, None]
    return torch.zeros(later_TL.shape, dtype=like.dtype, device=like.device).masked_fill_(later_TL, -torch.inf)


def cached_pass(model: LLaDAModel, query: Query, head: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the final norm's output, (N, D), at the positions that are wanted; all that are computed where none are
    named.

    Args:
        model: The network under its head.
        query: It says what the pass reuses; the rows' stores take the new keys and values, the hooks are called.
        head: Turns the final norm's output into logits, (…, V); only called for a hook that asks for confidences.
    """
    packed = pack(query, model)
    x_TD = model.embed(packed.ids_T)
    cos_T1E, sin_T1E = model.angles(x_TD, packed.position_T)
    wanted_N = packed.wanted_N
    everywhere = any(isinstance(part.hook, AttentionProbe) and part.hook.scored is not None for part in packed.parts)
    blocks: list[Any] = list(model.transformer["blocks"].children())
    for layer, block in enumerate(blocks):
        mixed_TD = attend(block, layer, packed.parts, block.heads(x_TD, cos_T1E, sin_T1E))
        if block is blocks[-1] and not everywhere:
            x_TD, mixed_TD = x_TD.index_select(0, wanted_N), mixed_TD.index_select(0, wanted_N)
        x_TD = block.finish(x_TD, mixed_TD)
    hidden_TD: Tensor = model.transformer["ln_f"](x_TD)
    if not everywhere:
        return hidden_TD
    for part in packed.parts:
        tell_confidences(part, hidden_TD[part.share], head)
    return hidden_TD.index_select(0, wanted_N)


def attend(block: Block, layer: int, parts: list[Part], heads: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Write the new keys and values into the rows' stores, and gather with each row's queries what is visible there.

    Args:
        block: The layer's block, which mixes.
        layer: The layer, counted from 0.
        parts: The rows, one behind the other; their hooks are shown the layer's keys or attention.
        heads: Queries, keys and values of all rows' positions, each (positions, heads, E); the first two are rotated.

    Returns:
        What the heads of all rows' positions have gathered, (positions, H × E).
    """
    mixed = []
    for part in parts:
        q_THE, k_THE, v_THE = (each[part.share] for each in heads)
        store, q_HTE, bias_TL = part.store, q_THE.transpose(0, 1), part.bias_TL
        write(store.kept[layer], part.position_T, k_THE, v_THE)
        visible_L = visible_keys(layer, part)
        k_HLE, v_HLE = store.kept[layer].to(q_HTE.dtype)
        if visible_L is not None:
            k_HLE, v_HLE = k_HLE[:, visible_L], v_HLE[:, visible_L]
            bias_TL = None if bias_TL is None else bias_TL[:, visible_L]
        if isinstance(part.hook, KeyChoice):
            store.seen[layer] = part.hook.choose(q_HTE, spread(k_HLE, q_HTE))
        elif isinstance(part.hook, AttentionProbe):
            scores_HTL = q_HTE @ spread(k_HLE, q_HTE).transpose(1, 2) * q_HTE.shape[-1] ** -0.5
            scores_HTL = scores_HTL if bias_TL is None else scores_HTL + bias_TL
            part.hook.attend(layer, part.position_T, scores_HTL.softmax(-1).mean(0))
        mixed.append(block.mix(q_HTE[None], k_HLE[None], v_HLE[None], bias_TL)[0])
    return torch.cat(mixed)


def write(kept_2HLE: Tensor, position_T: Tensor, k_THE: Tensor, v_THE: Tensor) -> None:
    """Keep a layer's keys and values of these positions.

    Args:
        kept_2HLE: What a row's store has of the layer, keys first; written in place.
        position_T: The row's positions that are written.
        k_THE: Their keys, rotated.
        v_THE: Their values.
    """
    new_2HTE = torch.stack((k_THE, v_THE)).transpose(1, 2)
    if kept_2HLE.dtype == FLOAT8:  # its bytes, since torch can't index what they stand for
        kept_2HLE, new_2HTE = (each.view(torch.uint8) for each in (kept_2HLE, in_float8(new_2HTE)))
    kept_2HLE.index_copy_(2, position_T, new_2HTE)


def in_float8(x: Tensor) -> Tensor:
    """Round to FP8; what is beyond its largest number becomes that."""
    largest = torch.finfo(FLOAT8).max
    return x.clamp(-largest, largest).to(FLOAT8)


def visible_keys(layer: int, part: Part) -> Tensor | None:
    """Return the keys that a row sees in a layer, bool (L,): those that were chosen, else the plan's; None for all.

    Args:
        layer: The layer, counted from 0.
        part: The row's share of the pass; where it computes the whole row, the layer's choice is forgotten first.
    """
    chosen = part.store.seen if isinstance(part.store, KeyValueStore) else None
    if chosen is not None and part.whole:
        chosen[layer] = None
    return part.visible_L if chosen is None or chosen[layer] is None else chosen[layer]


def spread(k_HLE: Tensor, q_HTE: Tensor) -> Tensor:
    """Return keys of as many heads as there are of queries; under grouped-query attention several share one.

    Args:
        k_HLE: Keys, of fewer heads or as many.
        q_HTE: Queries, whose first axis says how many heads there are to be.
    """
    return k_HLE.repeat_interleave(len(q_HTE) // len(k_HLE), dim=0)


def tell_confidences(part: Part, hidden_TD: Tensor, head: Callable[[Tensor], Tensor]) -> None:
    """Tell a row's hook, if it asks, how sure the model is where it asks.

    Args:
        part: The row's share of the pass, with its hook.
        hidden_TD: The final norm's output at the positions of the row that the pass computes.
        head: Turns the final norm's output into logits, (…, V).
    """
    if isinstance(part.hook, AttentionProbe) and part.hook.scored is not None:
        scored_T = torch.from_numpy(part.hook.scored).to(hidden_TD.device)[part.position_T]
        part.hook.score(head(hidden_TD[scored_T]).double().softmax(-1).amax(-1))
