"""Rows that follow each other without padding, as the kernels of the fast pass read them."""

from __future__ import annotations

from operator import is_
from typing import NamedTuple

import numpy as np
import torch
import triton
from torch import Tensor

from dlmlab.denoiser import Query
from dlmlab.kernel import attention, cached_attention
from dlmlab.kernel.cached_attention import KeptRows
from dlmlab.model.arena import Slot

PROGRAMS = 128
"""Programs that keep a GPU busy; where fewer would attend, they share a row's keys."""
MOST_SPLITS = 16


class Shape(NamedTuple):
    """What a pass is recorded for, each number rounded up.

    Attributes:
        positions: Positions of all rows together.
        rows: Rows.
        tiles: Tiles of the longest row.
        block_length: Positions of a block, where none sees a later one; 0 where all of a row is seen.
    """

    positions: int
    rows: int
    tiles: int
    block_length: int


class PackedRows(NamedTuple):
    """Rows that follow each other without padding, as the kernels read them.

    Attributes:
        shape: T positions and B rows, among others.
        told: The T token ids, then the T positions, then where each of the B rows begins and the last one ends, int32.
    """

    shape: Shape
    told: Tensor

    def ids(self) -> Tensor:
        """Return the T token ids."""
        return self.told[: self.shape.positions]

    def rows(self) -> tuple[Tensor, Tensor]:
        """position_T, begin_B."""
        positions = self.shape.positions
        return self.told[positions : 2 * positions], self.told[2 * positions :]


class KeptShape(NamedTuple):
    """What a pass over kept rows is recorded for.

    Attributes:
        positions: New tokens of all rows together, rounded up.
        rows: Rows, rounded up.
        tiles: Tiles of the row with the most new tokens, rounded up.
        block_length: Positions of a block, where none sees a later one; 0 where all of a row is seen.
        splits: Shares that a row's keys are cut into.
        generation: The arena's generation.
    """

    positions: int
    rows: int
    tiles: int
    block_length: int
    splits: int
    generation: int


class PackedKept(NamedTuple):
    """New tokens of rows that follow each other without padding, as the kernels read them.

    Attributes:
        shape: T tokens and B rows, among others.
        told: The T token ids, then the fields of `KeptRows`, int32.
    """

    shape: KeptShape
    told: Tensor

    def ids(self) -> Tensor:
        """Return the T token ids."""
        return self.told[: self.shape.positions]

    def rows(self) -> KeptRows:
        """Return where the tokens belong."""
        tokens, rows = self.shape[:2]
        return KeptRows(*self.told[tokens:].split([tokens, tokens, rows + 1, rows, rows]))


class Layout:
    """Where the tokens of a pass lie without padding, for all passes that compute the same positions of the same rows.

    Between two such passes the device waits for the host, which then has nothing to say but that the next one begins.

    Args:
        query: One of these passes.
        real_BL: bool, on the host: True at its positions that count; None where all do.
        packed: Its tokens without padding, all 0, on the host, rounded up to a shape that comes often.

    Attributes:
        packed: See the arguments.
    """

    def __init__(self, query: Query, real_BL: np.ndarray | None, packed: PackedRows | PackedKept) -> None:
        self.packed = packed
        self._passes = same_passes(query)
        self._own_T = None if real_BL is None else torch.from_numpy(np.flatnonzero(real_BL))
        self._place_L = None if real_BL is None else np.maximum(np.cumsum(real_BL) - 1, 0)

    def fits(self, query: Query) -> bool:
        """Return whether a pass computes the same positions of the same rows, which lie where they lay."""
        return all(map(is_, self._passes, same_passes(query))) and (
            query.reuse is None or query.reuse.stores[0].arena.generation == self.packed.shape[-1]
        )

    def write(self, tokens_BL: Tensor, packed: PackedRows | PackedKept, known: bool) -> None:
        """Write a pass's tokens, without padding, to where its kernels read them.

        Args:
            tokens_BL: The tokens, with padding.
            packed: What is written to.
            known: Whether all but the tokens is there already.
        """
        tokens_T = tokens_BL.flatten()
        if self._own_T is not None:
            self._own_T = self._own_T.to(tokens_T.device, non_blocking=True)
            tokens_T = tokens_T[self._own_T]
        on_host = tokens_T.device.type == "cpu"
        if on_host:  # they travel with the rest
            self.packed.ids()[: len(tokens_T)] = tokens_T
        if on_host or not known:
            packed.told.copy_(self.packed.told, non_blocking=True)
        if not on_host:
            packed.ids()[: len(tokens_T)] = tokens_T

    def where(self, wanted_N: Tensor) -> np.ndarray:
        """Return where positions lie, indices into rows × L, as indices into the packed tokens."""
        where_N = wanted_N.numpy(force=True)
        return where_N if self._place_L is None else self._place_L[where_N]


def same_passes(query: Query) -> tuple[object, ...]:
    """Return objects that are the same for all passes that compute the same positions of one batch's canvases."""
    first = query.tokens_BL if query.reuse is None else query.reuse.position_BL
    return first, query.real_BL, query.block_length


def rows_layout(query: Query, block_length: int = 0) -> Layout:
    """Return where the tokens of a pass over whole rows lie.

    Args:
        query: The pass.
        block_length: Positions of a block, where none sees a later one; 0 where all of a row is seen.
    """
    (rows, length), real_BL = query.tokens_BL.shape, real_of(query)
    length_B = np.full(rows, length) if real_BL is None else real_BL.sum(-1)
    position_T = np.tile(np.arange(length), rows) if real_BL is None else np.nonzero(real_BL)[1]
    count = len(position_T)
    tiles = power_up(triton.cdiv(int(length_B.max()), attention.QUERIES))
    shape = Shape(rounded_up(count), power_up(rows), tiles, block_length)
    told = np.zeros(2 * shape.positions + shape.rows + 1, dtype=np.int32)
    told[shape.positions : shape.positions + count] = position_T
    begin_B = told[2 * shape.positions :]
    begin_B[1 : rows + 1] = np.cumsum(length_B)
    begin_B[rows + 1 :] = count  # rows that aren't there are empty
    return Layout(query, real_BL, PackedRows(shape, torch.from_numpy(told)))


def kept_layout(query: Query, heads: int, block_length: int = 0) -> Layout:
    """Return where the new tokens of kept rows lie.

    Args:
        query: The pass, which reuses rows that all have a slot in one arena.
        heads: Heads of the queries; where these and the tokens are few, more programs share a row's keys.
        block_length: Positions of a block, where none sees a later one; 0 where all of a row is seen.
    """
    assert query.reuse is not None
    slots: list[Slot] = list(query.reuse.stores)
    arena = slots[0].arena
    arena.filled.update(slot.number for slot in slots)
    real_BL = real_of(query)
    position_T = query.reuse.position_BL.numpy(force=True)[slice(None) if real_BL is None else real_BL].ravel()
    count_B = np.full(len(slots), query.tokens_BL.shape[1]) if real_BL is None else real_BL.sum(-1)
    count, rows = len(position_T), len(slots)
    tokens, most = rounded_up(count), power_up(rows)
    tiles = power_up(triton.cdiv(int(count_B.max()), cached_attention.QUERIES))
    splits = min(MOST_SPLITS, power_up(triton.cdiv(PROGRAMS, heads * tiles * most)))
    shape = KeptShape(tokens, most, tiles, block_length, splits, arena.generation)
    base_B = np.array([slot.base for slot in slots])
    told = np.zeros(3 * tokens + 3 * most + 1, dtype=np.int32)
    _, position, into, begin, base, keys = np.split(told, np.cumsum([tokens, tokens, tokens, most + 1, most]))
    position[:count] = position_T
    into[:], into[:count] = -1, position_T + np.repeat(base_B, count_B)
    begin[1 : rows + 1], begin[rows + 1 :] = np.cumsum(count_B), count  # rows that aren't there are empty
    base[:rows], keys[:rows] = base_B, [slot.positions for slot in slots]
    return Layout(query, real_BL, PackedKept(shape, torch.from_numpy(told)))


def real_of(query: Query) -> np.ndarray | None:
    """Return which of a pass's positions count, bool (B, L), on the host; None where all do."""
    return None if query.real_BL is None else query.real_BL.numpy(force=True) != 0


def power_up(number: int) -> int:
    """Return the next power of two."""
    return 1 << (number - 1).bit_length()


def rounded_up(positions: int) -> int:
    """The next multiple of 16, or of a sixteenth of the next power of two: few shapes come, and little is added."""
    step = max(16, power_up(positions) // 16)
    return -(-positions // step) * step
