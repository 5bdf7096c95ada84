"""Held-out Sudoku of 9 × 9 cells as a task: every cell is asked by its name, and answered by its digit.

python run.py experiment=evaluate model=sudoku task=sudoku9 decoder=margin
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from dlmlab.errors import UserError
from dlmlab.settings import PositiveInt, Seed
from dlmlab.task.base import BaseTask, Item, Score
from dlmlab.task.sudoku9.content import draw
from dlmlab.task.sudoku9.grid import CELLS, SIDE, solved_by

LETTERS = "ABCDEFGHI"
LEAST_CLUES = 17
"""No puzzle with fewer has one solution (arXiv:1201.0749)."""
GRADES = ((36, "easy"), (30, "medium"), (0, "hard"))
"""By the fewest clues of each."""


@dataclass(frozen=True, kw_only=True)
class Sudoku9(BaseTask):
    """Fill a grid of 9 × 9 cells, of which each puzzle has one solution.

    An answer is right that keeps the clues and has each digit once in every row, column and box. The variant `cells` is
    the share of the empty cells that are right. An item's id begins with its grade, `easy`, `medium` or `hard`.

    Attributes:
        puzzles: How many are drawn.
        fewest: The fewest clues that are asked of a puzzle; their numbers are evenly drawn.
        most: The most; a puzzle that can't be dug as far as asked has more.
        seed: What the puzzles are drawn with.

    Raises:
        UserError: The bounds leave nothing.
    """

    puzzles: PositiveInt
    fewest: PositiveInt
    most: PositiveInt
    seed: Seed

    def __post_init__(self) -> None:
        if not LEAST_CLUES <= self.fewest <= self.most < CELLS:
            raise UserError(
                f"fewest={self.fewest} and most={self.most} are no bounds of clues from {LEAST_CLUES} to {CELLS - 1}"
            )

    def load(self) -> list[Item]:
        """Draw the puzzles."""
        puzzles, solutions = draw(self.puzzles, (self.fewest, self.most), True, f"task/{self.seed}")
        texts = [
            ("".join(map(str, each)), "".join(map(str, full))) for each, full in zip(puzzles, solutions, strict=True)
        ]
        return [
            Item(f"{grade(puzzle)}/{number}", prompt(puzzle), answer(solution), {"puzzle": puzzle})
            for number, (puzzle, solution) in enumerate(texts)
        ]

    def solution(self, item: Item) -> dict[int, str]:
        """Return the digits of the empty cells, by position: no others are right."""
        digits = item.answer.split()
        return {cell: digits[cell] for cell, clue in enumerate(item.meta["puzzle"]) if clue == "0"}

    def score(self, item: Item, text: str) -> Score:
        """Check the 81 digits of the text against the rules and the clues."""
        puzzle, grid = item.meta["puzzle"], "".join(re.findall(r"[1-9]", text))
        right = re.sub(r"\D", "", item.answer)
        empty = [cell for cell in range(CELLS) if puzzle[cell] == "0"]
        solved = float(solved_by(puzzle, grid))
        cells = sum(grid[cell] == right[cell] for cell in empty) / len(empty) if len(grid) == CELLS else 0.0
        reason = "" if solved else "wrong answer" if len(grid) == CELLS else "no answer"
        return Score(solved, reason, {"solved": solved, "cells": cells})


def prompt(puzzle: str) -> str:
    """Return the question: nine lines of cells, `A1=5` or, where it is empty, `A1=0`."""
    cells = [f"{LETTERS[cell // SIDE]}{cell % SIDE + 1}={digit}" for cell, digit in enumerate(puzzle)]
    return "\n".join(" ".join(cells[line : line + SIDE]) for line in range(0, CELLS, SIDE))


def answer(solution: str) -> str:
    """Return the 81 digits as the model writes them, one token each."""
    return " ".join(solution)


def grade(puzzle: str) -> str:
    """Return how hard a puzzle is by its number of clues."""
    clues = CELLS - puzzle.count("0")
    return next(name for least, name in GRADES if clues >= least)
