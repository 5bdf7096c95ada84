"""Rows that follow each other without padding, as the kernels of the fast pass read them."""

from __future__ import annotations

import weakref
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


def pack_rows(
    ids_BL: np.ndarray, real_BL: np.ndarray | None, where_N: np.ndarray, block_length: int = 0
) -> tuple[PackedRows, np.ndarray]:
    """Return the rows without their padding, on the host, and where the positions `where_N` are then.

    Args:
        ids_BL: Token ids of B rows, padded to L.
        real_BL: bool: True at positions that count; None where all do.
        where_N: Positions that are asked for, as indices into B × L.
        block_length: Positions of a block, where none sees a later one; 0 where all of a row is seen.

    Returns:
        The packed rows, rounded up to a shape that comes often, and N indices into their tokens.
    """
    rows, length = ids_BL.shape
    if real_BL is None:
        ids_T, position_T = ids_BL.ravel(), np.tile(np.arange(length), rows)
        length_B = np.full(rows, length)
    else:
        ids_T, position_T = ids_BL[real_BL], np.nonzero(real_BL)[1]
        length_B = real_BL.sum(-1)
        where_N = np.maximum(np.cumsum(real_BL) - 1, 0)[where_N]
    count = len(ids_T)
    tiles = power_up(triton.cdiv(int(length_B.max()), attention.QUERIES))
    shape = Shape(rounded_up(count), power_up(rows), tiles, block_length)
    told = np.zeros(2 * shape.positions + shape.rows + 1, dtype=np.int32)
    told[:count] = ids_T
    told[shape.positions : shape.positions + count] = position_T
    begin_B = told[2 * shape.positions :]
    begin_B[1 : rows + 1] = np.cumsum(length_B)
    begin_B[rows + 1 :] = count  # rows that aren't there are empty
    return PackedRows(shape, torch.from_numpy(told)), where_N


class KeptLayout:
    """Where the new tokens of kept rows lie without padding, for all passes that compute the same positions of them.

    Between two such passes the device waits for the host, which then has the tokens alone to write.

    Args:
        query: It names the positions that it wants, and reuses rows which all have a slot in one arena.
        heads: Heads of the queries; where these and the tokens are few, more programs share a row's keys.
        block_length: Positions of a block, where none sees a later one; 0 where all of a row is seen.
    """

    def __init__(self, query: Query, heads: int, block_length: int = 0) -> None:
        assert query.reuse is not None
        self._position_BL = weakref.ref(query.reuse.position_BL)
        self._arena = query.reuse.stores[0].arena
        slots: list[Slot] = list(query.reuse.stores)
        self._arena.filled.update(slot.number for slot in slots)
        real_BL = None if query.real_BL is None else query.real_BL.numpy(force=True)
        self._own = slice(None) if real_BL is None else real_BL
        position_T = query.reuse.position_BL.numpy(force=True)[self._own].ravel()
        count_B = np.full(len(slots), query.tokens_BL.shape[1]) if real_BL is None else real_BL.sum(-1)
        self._place_L = None if real_BL is None else np.maximum(np.cumsum(real_BL) - 1, 0)
        count, rows = len(position_T), len(slots)
        tokens, most = rounded_up(count), power_up(rows)
        tiles = power_up(triton.cdiv(int(count_B.max()), cached_attention.QUERIES))
        splits = min(MOST_SPLITS, power_up(triton.cdiv(PROGRAMS, heads * tiles * most)))
        shape = KeptShape(tokens, most, tiles, block_length, splits, self._arena.generation)
        base_B = np.array([slot.base for slot in slots])
        told = np.zeros(3 * tokens + 3 * most + 1, dtype=np.int32)
        ids, position, into, begin, base, keys = np.split(told, np.cumsum([tokens, tokens, tokens, most + 1, most]))
        position[:count] = position_T
        into[:], into[:count] = -1, position_T + np.repeat(base_B, count_B)
        begin[1 : rows + 1], begin[rows + 1 :] = np.cumsum(count_B), count  # rows that aren't there are empty
        base[:rows], keys[:rows] = base_B, [slot.positions for slot in slots]
        self._ids, self._packed = ids[:count], PackedKept(shape, torch.from_numpy(told))

    def fits(self, query: Query) -> bool:
        """Return whether a pass computes the same positions of the same rows, which lie where they lay."""
        assert query.reuse is not None
        same = self._position_BL() is query.reuse.position_BL
        return same and self._arena.generation == self._packed.shape.generation

    def pack(self, query: Query) -> tuple[PackedKept, np.ndarray]:
        """Return the tokens without padding, on the host, and where the wanted ones are then.

        Args:
            query: A pass that fits.

        Returns:
            The packed tokens, rounded up to a shape that comes often, until the next call; and an index into them for
            each wanted position.
        """
        assert query.wanted_N is not None
        self._ids[:] = query.tokens_BL.numpy(force=True)[self._own].ravel()
        where_N = query.wanted_N.numpy(force=True)
        return self._packed, where_N if self._place_L is None else self._place_L[where_N]


def power_up(number: int) -> int:
    """Return the next power of two."""
    return 1 << (number - 1).bit_length()


def rounded_up(positions: int) -> int:
    """The next multiple of 16, or of a sixteenth of the next power of two: few shapes come, and little is added."""
    step = max(16, power_up(positions) // 16)
    return -(-positions // step) * step
