"""Puzzles with one solution, many at a time: what propagation can't refute is not taken away.

A cell is a set of digits, a bit each. `propagate` removes what rows, columns and boxes exclude, by naked and hidden
singles, until nothing changes. A clue may go where assuming any other digit in its place ends in a contradiction: then
the puzzle has one solution still.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SIDE, CELLS, ANY = 9, 81, 0b111111111
Grids = NDArray[np.int16]

_CELL = np.arange(CELLS).reshape(SIDE, SIDE)
UNITS = np.array(
    [*_CELL, *_CELL.T, *(_CELL[r : r + 3, c : c + 3].ravel() for r in (0, 3, 6) for c in (0, 3, 6))], dtype=np.intp
)
"""The cells of each row, column and box, (27, 9)."""
UNITS_OF = np.array([[unit for unit in range(27) if cell in UNITS[unit]] for cell in range(CELLS)], dtype=np.intp)
"""The three units of each cell, (81, 3)."""
COUNT = np.array([bin(bits).count("1") for bits in range(512)], dtype=np.int16)
DIGIT = np.array([bits.bit_length() if bits.bit_count() == 1 else 0 for bits in range(512)], dtype=np.int16)
"""The digit of a set of one; 0 of all others."""
MOST_ROUNDS = 60


def propagate(sets_NC: Grids) -> tuple[Grids, NDArray[np.bool_]]:
    """Return what is left of cells' sets of digits, (N, 81), and where that is a contradiction, (N,)."""
    sets_NC = sets_NC.copy()
    broken_N = np.zeros(len(sets_NC), dtype=bool)
    moving = np.arange(len(sets_NC))
    for _ in range(MOST_ROUNDS):
        if not len(moving):
            break
        old_MC = sets_NC[moving]
        new_MC, broken_M = one_round(old_MC)
        sets_NC[moving], broken_N[moving] = new_MC, broken_M
        moving = moving[(new_MC != old_MC).any(1) & ~broken_M]
    return sets_NC, broken_N


def one_round(sets_MC: Grids) -> tuple[Grids, NDArray[np.bool_]]:
    """Return the sets after naked singles, then hidden ones, and where they contradict each other."""
    single_MC = np.where(DIGIT[sets_MC] > 0, sets_MC, 0).astype(np.int16)
    members_MUK = single_MC[:, UNITS]
    solved_MU = np.bitwise_or.reduce(members_MUK, axis=2)
    twice_M = COUNT[solved_MU] != (members_MUK > 0).sum(2)
    excluded_MC = np.bitwise_or.reduce(solved_MU[:, UNITS_OF], axis=2)
    left_MC = np.where(single_MC > 0, sets_MC, sets_MC & ~excluded_MC).astype(np.int16)
    members_MUK = left_MC[:, UNITS]
    once_MU, more_MU = np.zeros_like(solved_MU), np.zeros_like(solved_MU)
    for member in range(SIDE):
        each_MU = members_MUK[:, :, member]
        more_MU |= once_MU & each_MU
        once_MU |= each_MU
    missing_M = once_MU != ANY
    hidden_MC = np.bitwise_or.reduce((once_MU & ~more_MU)[:, UNITS_OF], axis=2)
    found_MC = left_MC & hidden_MC
    new_MC = np.where(found_MC > 0, found_MC, left_MC).astype(np.int16)
    several = (COUNT[found_MC] > 1).any(1)  # one cell would have to hold two digits
    return new_MC, twice_M.any(1) | missing_M.any(1) | (left_MC == 0).any(1) | several


def solutions(count: int, rng: np.random.Generator) -> Grids:
    """Return random full grids, (count, 81), digits 1 to 9: cells are guessed, and a grid that breaks begins anew.

    Args:
        count: How many.
        rng: The source of randomness.
    """
    sets_NC = np.full((count, CELLS), ANY, dtype=np.int16)
    while True:
        open_N = np.flatnonzero((COUNT[sets_NC] > 1).any(1))
        if not len(open_N):
            return DIGIT[sets_NC]
        sets_MC = sets_NC[open_N]
        # the cell with the fewest digits left, and one of those, both at random among equals
        order_MC = np.where(COUNT[sets_MC] > 1, COUNT[sets_MC] + rng.random(sets_MC.shape), np.inf)
        cell_M, row_M = order_MC.argmin(1), np.arange(len(open_N))
        bits_MD = (sets_MC[row_M, cell_M][:, None] >> np.arange(SIDE)) & 1
        digit_M = (bits_MD * (1 + rng.random(bits_MD.shape))).argmax(1)
        sets_MC[row_M, cell_M] = 1 << digit_M
        sets_MC, broken_M = propagate(sets_MC)
        sets_MC[broken_M] = ANY
        sets_NC[open_N] = sets_MC


def puzzles(solution_NC: Grids, clues_N: NDArray[np.int64], rng: np.random.Generator) -> Grids:
    """Return puzzles, (N, 81), 0 where a cell is empty, whose one solution is given.

    Args:
        solution_NC: Full grids.
        clues_N: How many cells are left at least; more stay where none can go.
        rng: The source of randomness.
    """
    puzzle_NC = solution_NC.copy()
    left_N = np.full(len(puzzle_NC), CELLS)
    order_NC = rng.random(puzzle_NC.shape).argsort(1)
    for turn in range(CELLS):
        open_N = np.flatnonzero(left_N > clues_N)
        cell_M = order_NC[open_N, turn]
        sets_MC = as_sets(puzzle_NC[open_N])
        row_M = np.arange(len(open_N))
        sets_MC[row_M, cell_M] = ANY & ~sets_MC[row_M, cell_M]
        _, refuted_M = propagate(sets_MC)
        going = open_N[refuted_M]
        puzzle_NC[going, cell_M[refuted_M]] = 0
        left_N[going] -= 1
    return puzzle_NC


def as_sets(puzzle_NC: Grids) -> Grids:
    """Return cells as sets of digits: an empty one's may be any."""
    return np.where(puzzle_NC > 0, 1 << np.maximum(puzzle_NC - 1, 0), ANY).astype(np.int16)


def varied(puzzle_NC: Grids, solution_NC: Grids, rng: np.random.Generator) -> tuple[Grids, Grids]:
    """Return the same puzzles and solutions with digits renamed, rows, columns, bands and stacks in another order.

    These are all the symmetries of Sudoku with reflection at the diagonal, each drawn evenly.

    Args:
        puzzle_NC: Puzzles, 0 where a cell is empty.
        solution_NC: Their solutions.
        rng: The source of randomness.
    """
    rows = len(puzzle_NC)
    row_NR, column_NR = shuffled_lines(rows, rng), shuffled_lines(rows, rng)
    cell_NRR = row_NR[:, :, None] * SIDE + column_NR[:, None, :]
    turned_N = rng.random(rows) < 0.5
    cell_NRR[turned_N] = cell_NRR[turned_N].transpose(0, 2, 1)
    cell_NC = cell_NRR.reshape(rows, CELLS)
    name_ND = np.zeros((rows, SIDE + 1), dtype=np.int16)
    name_ND[:, 1:] = rng.random((rows, SIDE)).argsort(1) + 1
    puzzle, solution = (
        np.take_along_axis(name_ND, np.take_along_axis(each, cell_NC, 1).astype(np.intp), 1)
        for each in (puzzle_NC, solution_NC)
    )
    return puzzle, solution


def shuffled_lines(rows: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return orders of nine lines, (rows, 9), in which those of a band stay together.

    Args:
        rows: How many orders.
        rng: The source of randomness.
    """
    band_N3 = rng.random((rows, 3)).argsort(1)
    inner_N33 = rng.random((rows, 3, 3)).argsort(2)
    order: NDArray[np.int64] = (band_N3[:, :, None] * 3 + inner_N33).reshape(rows, SIDE)
    return order


def solved_by(puzzle: str, grid: str) -> bool:
    """Return whether 81 digits keep a puzzle's clues and have every digit once in each row, column and box.

    Args:
        puzzle: 81 digits, 0 where a cell is empty.
        grid: 81 digits.
    """
    if len(grid) != CELLS or any(clue not in ("0", digit) for clue, digit in zip(puzzle, grid, strict=True)):
        return False
    return all({grid[cell] for cell in unit} == set("123456789") for unit in UNITS)
