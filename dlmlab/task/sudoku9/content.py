"""Puzzles by a seed, and the side of the split that each is on: whatever symmetry turns one into another keeps it.

So no puzzle of the held-out side is a training puzzle with its digits renamed or its rows in another order.
"""

from __future__ import annotations

import hashlib
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from dlmlab.task.sudoku9.grid import SIDE, Grids, puzzles, solutions
from dlmlab.task.tiny.exercise import HELD_OUT_BYTES

AT_ONCE = 1000
"""Grids that are drawn together."""


def signature(solution: NDArray[np.int16]) -> str:
    """Return what no symmetry changes of a full grid, (81,), as text.

    Two lines of a band turn each digit into another, a permutation of nine. The lengths of its cycles stay when digits
    are renamed and the other lines reordered; those of all pairs, sorted within and over bands, for rows and columns,
    are the signature.
    """
    grid = solution.reshape(SIDE, SIDE)
    return str(sorted(sorted(_band(lines[band : band + 3]) for band in (0, 3, 6)) for lines in (grid, grid.T)))


def _band(lines: NDArray[np.int16]) -> list[list[int]]:
    return sorted(_cycles(dict(zip(a.tolist(), b.tolist(), strict=True))) for a, b in combinations(lines, 2))


def _cycles(onto: dict[int, int]) -> list[int]:
    lengths = []
    while onto:
        digit, length = next(iter(onto)), 0
        while digit in onto:
            digit, length = onto.pop(digit), length + 1
        lengths.append(length)
    return sorted(lengths)


def held_out(solution: NDArray[np.int16]) -> bool:
    """Return which side of the split a grid is on: an eighth of all classes is held out."""
    return hashlib.sha256(signature(solution).encode()).digest()[0] < HELD_OUT_BYTES


def draw(count: int, clues: tuple[int, int], side_held_out: bool, seed: str) -> tuple[Grids, Grids]:
    """Return puzzles of one side and their solutions, (count, 81) each, with so many clues, evenly drawn.

    Args:
        count: How many.
        clues: The fewest and the most clues; puzzles that can't be dug as far have more.
        side_held_out: Whether they are of the held-out side, or of that of training.
        seed: What they are drawn by.
    """
    rng = np.random.default_rng([*seed.encode()])
    found_puzzles, found_solutions, found = [], [], 0
    while found < count:
        at_once = min(AT_ONCE, 2 * (count - found) * (8 if side_held_out else 1))
        full = solutions(at_once, rng)
        full = full[[held_out(each) == side_held_out for each in full]]
        found_puzzles.append(puzzles(full, rng.integers(clues[0], clues[1] + 1, len(full)), rng))
        found_solutions.append(full)
        found += len(full)
    return np.concatenate(found_puzzles)[:count], np.concatenate(found_solutions)[:count]
