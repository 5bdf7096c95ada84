"""The keys and values of all rows in one memory, which recorded passes can read: an arena of slots, one for a row.

A recorded pass reads from where the memory lay when it was recorded. So the arena grows seldom, by doubling, and each
time has a new generation, of which no older pass is replayed. While it holds nothing it gives its memory back before
it grows: both at once may be more than a card has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from dlmlab.model.config import LLaDAConfig

ROUNDING = 64
"""Slots have a multiple of so many positions."""


class Slot:
    """A row's positions in an arena. It is free again as soon as nothing refers to it."""

    def __init__(self, arena: Arena, number: int, positions: int) -> None:
        self.arena, self.number, self.positions = arena, number, positions

    def __del__(self) -> None:
        self.arena.filled.discard(self.number)
        self.arena.free.append(self.number)

    @property
    def base(self) -> int:
        """Return the first of its positions among all that the arena keeps."""
        return self.number * self.arena.capacity

    @property
    def kept(self) -> Tensor:
        """Keys, rotated, and values as the plain pass reads and writes them: (layers, 2, G, L, E), a view."""
        self.arena.filled.add(self.number)
        return self.arena.memory[:, :, self.base : self.base + self.positions].transpose(2, 3)

    @property
    def nbytes(self) -> int:
        """See `dlmlab.denoiser.Store`."""
        return self.positions * self.arena.memory[:, :, 0].nbytes


class Arena:
    """Slots of `capacity` positions each: `memory` is (layers, 2, slots × capacity, G, E), keys first, then values.

    Attributes:
        free: The numbers of slots that no row has.
        filled: The numbers of those that a pass has written to, and that move when the arena grows.
    """

    def __init__(self, config: LLaDAConfig, like: Tensor, kv_cache_dtype: torch.dtype | None) -> None:
        shape = config.n_layers, 2, 0, config.kv_heads, config.head_width
        self.memory = like.new_empty(shape, dtype=kv_cache_dtype)
        self.slots = self.capacity = self.generation = 0
        self.free: list[int] = []
        self.filled: set[int] = set()

    def take(self, positions: int) -> Slot:
        """Return a slot for a row. Raises torch.OutOfMemoryError where it needs more memory than there is."""
        any_taken = len(self.free) < self.slots
        wanted = max(-(-positions // ROUNDING) * ROUNDING, self.capacity if any_taken else 0)
        there = self.memory.shape[2] == self.slots * self.capacity  # or it couldn't grow, with nothing to hold
        if not there or not wanted <= self.capacity <= 2 * wanted:
            self._resize(self.slots if any_taken else 1, wanted)
        if not self.free:
            self._resize(2 * self.slots, self.capacity)
        return Slot(self, self.free.pop(), positions)

    def _resize(self, slots: int, capacity: int) -> None:
        """Move to another memory; what passes have written goes along."""
        layers, two, _, groups, width = self.memory.shape
        taken = {number for number in range(self.slots) if number not in self.free}
        if not self.filled:
            self.memory = self.memory[:, :, :0].clone()
        memory = self.memory.new_empty(layers, two, slots * capacity, groups, width)
        for number in self.filled:
            old = self.memory[:, :, number * self.capacity :][:, :, : self.capacity]
            memory[:, :, number * capacity :][:, :, : self.capacity] = old
        self.memory, self.slots, self.capacity = memory, slots, capacity
        self.free = [number for number in reversed(range(slots)) if number not in taken]
        self.generation += 1
