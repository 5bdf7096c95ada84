"""The rows of a batch as one forward pass sees them, on the host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import torch

from dlmlab.policy import Plan
from dlmlab.types import Query, Reuse


class Window(NamedTuple):
    """A row: the tokens that the pass sees (L,), where its active block begins, its source of randomness if it has one.

    plan, store: with a cache, what the pass computes, and what is kept of the rest.
    """

    tokens: np.ndarray
    start: int
    generator: torch.Generator | None = None
    plan: Plan | None = None
    store: Any = None


class Kept(NamedTuple):
    """With a cache: see `dlmlab.types.Reuse`. computed_BK: true at the active blocks' positions that are computed."""

    position_BL: np.ndarray
    visible: Sequence[np.ndarray | None]
    stores: Sequence[Any]
    hooks: Sequence[Any]
    computed_BK: np.ndarray


@dataclass
class Canvases:
    """B rows of any lengths, padded on the right to L positions; with a cache, L of those that are computed.

    real_BL: true at positions that count; None where all do. position_BK: each active block's positions, as indices
    into B × L. masked_BK: true where a token is still missing, and computed. end_B: where each row ends, as such an
    index. mask_token: stands for a missing token. kept: with a cache, what the pass takes over.
    """

    tokens_BL: np.ndarray
    real_BL: np.ndarray | None
    position_BK: np.ndarray
    masked_BK: np.ndarray
    end_B: np.ndarray
    generators: Sequence[torch.Generator | None]
    mask_token: int
    kept: Kept | None = None

    @classmethod
    def of(cls, windows: Sequence[Window], block_length: int, config: Any) -> Self:
        """The canvases of some rows, all with a cache or all without. config: a model's."""
        if windows[0].plan is not None:
            return cls._of_computed(windows, block_length, config)
        tokens_BL, real_BL = pad([window.tokens for window in windows], config.pad_token_id)
        row_B = np.arange(len(windows)) * tokens_BL.shape[1]
        position_BK = (row_B + [window.start for window in windows])[:, None] + np.arange(block_length)
        end_B = row_B + [len(window.tokens) for window in windows]
        seen_BK = position_BK < end_B[:, None]
        position_BK = np.where(seen_BK, position_BK, row_B[:, None])
        masked_BK = seen_BK & (tokens_BL.ravel()[position_BK] == config.mask_token_id)
        generators = [window.generator for window in windows]
        return cls(tokens_BL, real_BL, position_BK, masked_BK, end_B, generators, config.mask_token_id)

    @classmethod
    def _of_computed(cls, windows: Sequence[Window], block_length: int, config: Any) -> Self:
        plans = [window.plan for window in windows if window.plan is not None]
        own = [np.flatnonzero(plan.computed) for plan in plans]
        tokens = [window.tokens[own_L] for window, own_L in zip(windows, own, strict=True)]
        tokens_BL, real_BL = pad(tokens, config.pad_token_id)
        row_B = np.arange(len(windows)) * tokens_BL.shape[1]
        block_BK = np.array([window.start for window in windows])[:, None] + np.arange(block_length)
        computed_BK = np.stack([plan.computed[block_K] for plan, block_K in zip(plans, block_BK, strict=True)])
        index_BK = np.stack([np.searchsorted(own_L, block_K) for own_L, block_K in zip(own, block_BK, strict=True)])
        position_BK = row_B[:, None] + np.where(computed_BK, index_BK, 0)
        masked_BK = computed_BK & (tokens_BL.ravel()[position_BK] == config.mask_token_id)
        stores = [window.store for window in windows]
        hooks = [plan.hook for plan in plans]
        kept = Kept(pad(own, 0)[0], [plan.visible for plan in plans], stores, hooks, computed_BK)
        end_B = row_B + [len(own_L) for own_L in own]
        generators = [window.generator for window in windows]
        return cls(tokens_BL, real_BL, position_BK, masked_BK, end_B, generators, config.mask_token_id, kept)

    def query(self, slot: np.ndarray) -> Query:
        """The forward pass over the canvases. slot: the active blocks' positions that it is asked for, in B × K."""
        reuse = None
        if self.kept is not None:
            position_BL, *others = self.kept[:-1]
            reuse = Reuse(torch.from_numpy(position_BL), *others)
        return Query(
            torch.from_numpy(self.tokens_BL),
            None if self.real_BL is None else torch.from_numpy(self.real_BL),
            torch.from_numpy(np.take(self.position_BK, slot)),
            reuse,
        )

    def slots(self, everywhere: bool) -> np.ndarray:
        """The masked positions of the active blocks, as indices into B × K; everywhere: the committed ones as well."""
        if not everywhere:
            return np.flatnonzero(self.masked_BK)
        return np.arange(self.position_BK.size) if self.kept is None else np.flatnonzero(self.kept.computed_BK)

    def at(self, position: np.ndarray) -> np.ndarray:
        """The tokens at these indices into B × L."""
        return np.take(self.tokens_BL, position)

    def change(self, change_BK: np.ndarray, may_end: bool = False) -> bool:
        """Write the active blocks' new tokens; -1 where nothing changes. Rows whose block is full go to their next one;
        with a cache these canvases have nothing of it.

        Answers whether all have a position left to fill; where not, they are of no more use. may_end: whether a full
        block may be a row's last, wherever it lies.
        """
        changed_BK = change_BK >= 0
        np.put(self.tokens_BL, self.position_BK[changed_BK], change_BK[changed_BK])
        full_B = (self.at(self.position_BK) != self.mask_token).all(-1)
        if (may_end or self.kept is not None) and full_B.any():
            return False
        self.position_BK = self.position_BK + full_B[:, None] * self.position_BK.shape[1]
        if (self.position_BK[:, -1] >= self.end_B).any():
            return False
        self.masked_BK = self.at(self.position_BK) == self.mask_token
        return True


def pad(rows: Sequence[np.ndarray], pad_token: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Rows as one (B, L) array, padded on the right, and True at the positions that count; None where all do.

    On the right, so that every row's positions count from 0 whatever its neighbours' lengths are.
    """
    lengths = [len(row) for row in rows]
    if len(set(lengths)) == 1:
        return np.array(rows), None
    tokens_BL = np.full((len(rows), max(lengths)), pad_token, dtype=np.int64)
    for tokens_L, row in zip(tokens_BL, rows, strict=True):
        tokens_L[: len(row)] = row
    return tokens_BL, np.arange(max(lengths)) < np.array(lengths)[:, None]
