"""Arrange the rows of a batch for one forward pass, on the host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, Self

import numpy as np
import torch

from dlmlab.denoiser import Layout, Query, Reuse
from dlmlab.policy import Plan


class Window(NamedTuple):
    """One row as a pass sees it.

    Attributes:
        tokens: The tokens that the pass sees, (L,).
        start: The active block's first position.
        generator: The row's source of randomness, if it has one.
        plan: With a cache, what the pass computes.
        store: With a cache, what is kept of the other positions.
        answer: The answer's first position.
    """

    tokens: np.ndarray
    start: int
    generator: torch.Generator | None = None
    plan: Plan | None = None
    store: Any = None
    answer: int = 0


class Kept(NamedTuple):
    """What a pass takes over with a cache: the fields of `dlmlab.denoiser.Reuse`, and computed_BK.

    Attributes:
        position_BL: See `dlmlab.denoiser.Reuse`, as for the next three. It is one object for all passes over these
            canvases, so that a model knows that they compute the same positions.
        visible: Positions of each row that can be attended to.
        stores: The rows' stores.
        hooks: The policies' hooks.
        computed_BK: bool: the active blocks' positions that are computed.
    """

    position_BL: torch.Tensor
    visible: Sequence[np.ndarray | None]
    stores: Sequence[Any]
    hooks: Sequence[Any]
    computed_BK: np.ndarray


class Shadows(NamedTuple):
    """Mask tokens beside each row, at its active block's positions.

    Attributes:
        index_BK: The shadow of each of the block's positions, as indices into B × L.
        position_BL: See `dlmlab.denoiser.Layout`, as for the next.
        seen_BLL: What each token attends to.
    """

    index_BK: np.ndarray
    position_BL: np.ndarray
    seen_BLL: np.ndarray

    @classmethod
    def of(cls, starts: Sequence[int], lengths: Sequence[int], block_length: int) -> Self:
        """Return the shadows of rows.

        Args:
            starts: Each active block's first position.
            lengths: Each row's length, without its shadows, which follow it.
            block_length: K, the positions of an active block.
        """
        widest = max(lengths) + block_length
        position_BL = np.zeros((len(lengths), widest), dtype=np.int64)
        seen_BLL = np.broadcast_to(np.eye(widest, dtype=bool), (len(lengths), widest, widest)).copy()
        offset_K = np.arange(block_length)
        for start, length, position_L, seen_LL in zip(starts, lengths, position_BL, seen_BLL, strict=True):
            whole = slice(length + block_length)
            position_L[whole] = [*range(length), *(start + offset_K)]
            seen_LL[whole, :length] = True
            seen_LL[length : length + block_length, length : length + block_length] = True
            seen_LL[length + offset_K, start + offset_K] = False
        index_BK = (np.arange(len(lengths)) * widest + lengths)[:, None] + offset_K
        return cls(index_BK, position_BL, seen_BLL)


@dataclass
class Canvases:
    """B rows of any lengths, padded on the right to L positions; with a cache, L counts those that are computed.

    Attributes:
        tokens_BL: The token ids.
        real_BL: True at positions that count; None where all do.
        position_BK: Each active block's positions, as indices into B × L.
        masked_BK: True where a token is still missing, and computed.
        answer_B: The index of each answer's first position, into B × L.
        end_B: The index after each row's last position, into B × L.
        generators: The rows' sources of randomness.
        mask_token: The token id that stands for a missing token.
        kept: With a cache, what the pass takes over.
        shadows: The tokens beside the rows, for a rule that has such.
        guided: Whether B more rows follow, which are the same but for their prompts, which are masked.
    """

    tokens_BL: np.ndarray
    real_BL: np.ndarray | None
    position_BK: np.ndarray
    masked_BK: np.ndarray
    answer_B: np.ndarray
    end_B: np.ndarray
    generators: Sequence[torch.Generator | None]
    mask_token: int
    kept: Kept | None = None
    shadows: Shadows | None = None
    guided: bool = False
    _on_device: tuple[torch.Tensor, Query] | None = field(default=None, init=False)
    """The tokens on the device, row by row and one more, and the pass over them, once something was `written`."""

    @classmethod
    def of(
        cls,
        windows: Sequence[Window],
        block_length: int,
        config: Any,
        shadowed: bool = False,
        guided: bool = False,
    ) -> Self:
        """Return the canvases of some rows.

        Args:
            windows: The rows, all with a cache or all without.
            block_length: K, the positions of an active block.
            config: A model's config.
            shadowed: Whether each row is followed by shadows of its active block, see `dlmlab.rule.Rule`.
            guided: Whether the pass is for classifier-free guidance, see `dlmlab.types.Generation`.
        """
        if windows[0].plan is not None:
            return cls._of_computed(windows, block_length, config)
        rows, starts, shadows = [window.tokens for window in windows], [window.start for window in windows], None
        if shadowed:
            shadows = Shadows.of(starts, list(map(len, rows)), block_length)
            rows = [np.append(tokens, [config.mask_token_id] * block_length) for tokens in rows]
        if guided:
            blind = [np.full(window.answer, config.mask_token_id) for window in windows]
            rows += [np.append(masks, w.tokens[w.answer :]) for masks, w in zip(blind, windows, strict=True)]
        tokens_BL, real_BL = pad(rows, config.pad_token_id)
        row_B = np.arange(len(windows)) * tokens_BL.shape[1]
        position_BK = (row_B + starts)[:, None] + np.arange(block_length)
        answer_B = row_B + [window.answer for window in windows]
        end_B = row_B + [len(window.tokens) for window in windows]
        if any(window.start + block_length > len(window.tokens) for window in windows):
            seen_BK = position_BK < end_B[:, None]  # a block may reach beyond what is seen of its canvas
            position_BK = np.where(seen_BK, position_BK, row_B[:, None])
            masked_BK = seen_BK & (tokens_BL.ravel()[position_BK] == config.mask_token_id)
        else:
            masked_BK = tokens_BL.ravel()[position_BK] == config.mask_token_id
        generators = [window.generator for window in windows]
        mask_token = config.mask_token_id
        told = (tokens_BL, real_BL, position_BK, masked_BK, answer_B, end_B, generators, mask_token)
        return cls(*told, shadows=shadows, guided=guided)

    @classmethod
    def _of_computed(cls, windows: Sequence[Window], block_length: int, config: Any) -> Self:
        plans = [window.plan for window in windows if window.plan is not None]
        own = [np.flatnonzero(plan.computed) for plan in plans]
        tokens = [window.tokens[own_L] for window, own_L in zip(windows, own, strict=True)]
        tokens_BL, real_BL = pad(tokens, config.pad_token_id)
        row_B = np.arange(len(windows)) * tokens_BL.shape[1]
        block_BK = np.array([window.start for window in windows])[:, None] + np.arange(block_length)
        inside_BK = block_BK < np.array([len(window.tokens) for window in windows])[:, None]
        block_BK = np.where(inside_BK, block_BK, 0)
        computed_BK = np.stack([plan.computed[block_K] for plan, block_K in zip(plans, block_BK, strict=True)])
        computed_BK &= inside_BK
        index_BK = np.stack([np.searchsorted(own_L, block_K) for own_L, block_K in zip(own, block_BK, strict=True)])
        position_BK = row_B[:, None] + np.where(computed_BK, index_BK, 0)
        masked_BK = computed_BK & (tokens_BL.ravel()[position_BK] == config.mask_token_id)
        stores = [window.store for window in windows]
        hooks = [plan.hook for plan in plans]
        kept = Kept(torch.from_numpy(pad(own, 0)[0]), [plan.visible for plan in plans], stores, hooks, computed_BK)
        answer_B = row_B + [np.searchsorted(own_L, w.answer) for own_L, w in zip(own, windows, strict=True)]
        end_B = row_B + [len(own_L) for own_L in own]
        generators = [window.generator for window in windows]
        return cls(tokens_BL, real_BL, position_BK, masked_BK, answer_B, end_B, generators, config.mask_token_id, kept)

    def query(self, slot: np.ndarray) -> Query:
        """Return the forward pass over the canvases, which wants what `wanted` says."""
        return self._query._replace(wanted_N=self.wanted(slot))

    def wanted(self, slot: np.ndarray) -> torch.Tensor:
        """Return the positions that a pass is asked for, as indices into its rows × L.

        Args:
            slot: The active blocks' positions that it is asked for, as indices into B × K; in guided canvases
                they are asked for a second time, where prompts are masked.
        """
        asked_BK = self.position_BK
        if self.shadows is not None:
            asked_BK = np.where(self.masked_BK, asked_BK, self.shadows.index_BK)
        wanted_N = np.take(asked_BK, slot)
        if self.guided:
            wanted_N = np.append(wanted_N, wanted_N + self.tokens_BL.size // 2)
        return torch.from_numpy(wanted_N)

    @cached_property
    def _query(self) -> Query:
        """The pass but for the positions that it wants; its tensors look into the arrays."""
        return Query(
            torch.from_numpy(self.tokens_BL),
            None if self.real_BL is None else torch.from_numpy(self.real_BL),
            reuse=None if self.kept is None else Reuse(*self.kept[:-1]),
            block_length=self.position_BK.shape[1],
            layout=None if self.shadows is None else Layout(*map(torch.from_numpy, self.shadows[1:])),
        )

    def written(self, change_BK: torch.Tensor) -> Query:
        """Return the forward pass after a change that the device knows first; `change` is to follow.

        Args:
            change_BK: The new tokens, on the device; -1 where nothing changes.
        """
        nowhere = self.tokens_BL.size
        if self._on_device is None:  # behind the tokens is one that is written to where nothing changes
            tokens = torch.from_numpy(np.append(self.tokens_BL, 0)).to(change_BK.device, non_blocking=True)
            self._on_device = tokens, self._query._replace(tokens_BL=tokens[:-1].view(self.tokens_BL.shape))
        tokens, query = self._on_device
        place_BK = torch.from_numpy(self.position_BK).to(change_BK.device, non_blocking=True)
        for offset in (0, nowhere // 2) if self.guided else (0,):
            into_BK = torch.where(change_BK < 0, nowhere, place_BK + offset)
            tokens.scatter_(0, into_BK.flatten(), change_BK.flatten())
        return query

    def goes_on(self, change_BK: np.ndarray, may_end: bool = False) -> bool:
        """Return whether all rows have a position left to fill after a change, if need be in their next block.

        With a cache a row's next block needs another plan, so that these canvases cannot go on to it.

        Args:
            change_BK: The new tokens; -1 where nothing changes.
            may_end: Whether a full block may be a row's last, wherever it lies.
        """
        full_B = ~np.where(change_BK < 0, self.masked_BK, change_BK == self.mask_token).any(-1)
        if not full_B.any():
            return True
        if may_end or self.kept is not None:
            return False
        last_B = self.position_BK[:, -1] + full_B * self.position_BK.shape[1]
        return not (last_B >= self.end_B).any()

    def slots(self, everywhere: bool) -> np.ndarray:
        """Return the positions of the active blocks that a pass is asked for, as indices into B × K.

        Args:
            everywhere: Whether the committed positions are asked for too, and not the masked ones alone.
        """
        if not everywhere:
            return np.flatnonzero(self.masked_BK)
        return np.arange(self.position_BK.size) if self.kept is None else np.flatnonzero(self.kept.computed_BK)

    @property
    def committed_BK(self) -> np.ndarray:
        """True at the active blocks' positions that hold a token of the answer, and are computed."""
        committed_BK = ~self.masked_BK & (self.position_BK >= self.answer_B[:, None])
        return committed_BK if self.kept is None else committed_BK & self.kept.computed_BK

    def at(self, position: np.ndarray) -> np.ndarray:
        """Return the tokens at these indices into B × L."""
        return np.take(self.tokens_BL, position)

    def change(self, change_BK: np.ndarray) -> None:
        """Write the active blocks' new tokens. Rows whose block is full go to their next one, in canvases that go on.

        Args:
            change_BK: The new tokens; -1 where nothing changes.
        """
        changed_BK = change_BK >= 0
        position = self.position_BK[changed_BK]
        np.put(self.tokens_BL, position, change_BK[changed_BK])
        if self.guided:
            np.put(self.tokens_BL, position + self.tokens_BL.size // 2, change_BK[changed_BK])
        self.masked_BK = self.at(self.position_BK) == self.mask_token
        full_B = np.count_nonzero(self.masked_BK, axis=-1) == 0
        if full_B.any():
            self.position_BK = self.position_BK + full_B[:, None] * self.position_BK.shape[1]
            self.masked_BK = self.at(self.position_BK) == self.mask_token


def pad(rows: Sequence[np.ndarray], pad_token: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Pad rows on the right to one (B, L) array, so that every row's positions count from 0 whatever its neighbours'
    lengths.

    Args:
        rows: Each row's tokens, or other integers, of any lengths.
        pad_token: What stands behind a row that is shorter.

    Returns:
        The array, and True at the positions that count; None where all do.
    """
    lengths = [len(row) for row in rows]
    if len(set(lengths)) == 1:
        return np.array(rows), None
    tokens_BL = np.full((len(rows), max(lengths)), pad_token, dtype=np.int64)
    for tokens_L, row in zip(tokens_BL, rows, strict=True):
        tokens_L[: len(row)] = row
    return tokens_BL, np.arange(max(lengths)) < np.array(lengths)[:, None]
