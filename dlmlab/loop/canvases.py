"""The rows of a batch as one forward pass sees them, on the host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import torch


class Window(NamedTuple):
    """A row: its tokens (L,), where its active block begins, and its source of randomness if it has one."""

    tokens: np.ndarray
    start: int
    generator: torch.Generator | None = None


@dataclass
class Canvases:
    """B rows of any lengths, padded on the right to L positions.

    real_BL: true at positions that count; None where all do. position_BK: each active block's positions, as indices
    into B × L. masked_BK: true where a token is still missing. end_B: where each row ends, as such an index.
    mask_token: stands for a missing token.
    """

    tokens_BL: np.ndarray
    real_BL: np.ndarray | None
    position_BK: np.ndarray
    masked_BK: np.ndarray
    end_B: np.ndarray
    generators: Sequence[torch.Generator | None]
    mask_token: int

    @classmethod
    def of(cls, windows: Sequence[Window], block_length: int, config: Any) -> Self:
        """The canvases of some rows. config: a model's."""
        tokens_BL, real_BL = pad([window.tokens for window in windows], config.pad_token_id)
        row_B = np.arange(len(windows)) * tokens_BL.shape[1]
        position_BK = (row_B + [window.start for window in windows])[:, None] + np.arange(block_length)
        end_B = row_B + [len(window.tokens) for window in windows]
        masked_BK = tokens_BL.ravel()[position_BK] == config.mask_token_id
        generators = [window.generator for window in windows]
        return cls(tokens_BL, real_BL, position_BK, masked_BK, end_B, generators, config.mask_token_id)

    def at(self, position: np.ndarray) -> np.ndarray:
        """The tokens at these indices into B × L."""
        return np.take(self.tokens_BL, position)

    def change(self, change_BK: np.ndarray) -> bool:
        """Write the active blocks' new tokens; -1 where nothing changes. Rows whose block is full go to their next one.

        Answers whether all have a position left to fill; where not, they are of no more use.
        """
        changed_BK = change_BK >= 0
        np.put(self.tokens_BL, self.position_BK[changed_BK], change_BK[changed_BK])
        full_B = (self.at(self.position_BK) != self.mask_token).all(-1)
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
