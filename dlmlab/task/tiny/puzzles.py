"""Countdown and 4 × 4 Sudoku as exercises, in the form of conf/task/countdown.yaml and sudoku.yaml."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import permutations, product
from random import Random
from typing import Self

from dlmlab.task.puzzle import SIDE, true_steps
from dlmlab.task.tiny.open_base import OpenPrompt

_GRID = re.compile(r"(?:[1-4] ){3}[1-4](?:\n(?:[1-4] ){3}[1-4]){3}")


@dataclass(frozen=True)
class CountdownSteps(OpenPrompt):
    """Make a number out of three others, each used once, a step at a time: `44-15=29,79-29=50`."""

    numbers: tuple[int, int, int]
    steps: str
    target: int

    @classmethod
    def draw(cls, rng: Random) -> Self:
        while True:
            numbers = [rng.randint(1, 40) for _ in range(3)]
            first, second, third = rng.sample(numbers, 3)
            between = rng.choice(_results(first, second))
            steps = [between]
            found = _results(int(between.rpartition("=")[2]), third)
            steps.append(rng.choice(found))
            target = int(steps[-1].rpartition("=")[2])
            if 1 <= target <= 99:
                return cls((numbers[0], numbers[1], numbers[2]), ",".join(steps), target)

    @property
    def prompt(self) -> str:
        return f"Make {self.target} out of the numbers {', '.join(map(str, self.numbers))}."

    @property
    def content(self) -> str:
        """Return numbers and target, in whatever order the numbers are named."""
        return f"{sorted(self.numbers)} {self.target}"

    def answer(self, rng: Random) -> str:
        return self.steps

    def check(self, text: str) -> bool:
        return true_steps(text, self.numbers, self.target) == ""


def _results(first: int, second: int) -> list[str]:
    """Return the steps that two numbers allow, to whole numbers of at most two digits."""
    high, low = max(first, second), min(first, second)
    found = [f"{high}-{low}={high - low}"]
    found += [f"{first}+{second}={first + second}"] if first + second <= 99 else []
    found += [f"{first}*{second}={first * second}"] if first * second <= 99 and low > 1 else []
    return found + ([f"{high}/{low}={high // low}"] if low > 1 and high % low == 0 else [])


@dataclass(frozen=True)
class SudokuGrid(OpenPrompt):
    """A grid of 4 × 4 cells with one solution: each row, column and 2 × 2 box has 1 to 4."""

    puzzle: str
    solution: str

    @classmethod
    def draw(cls, rng: Random) -> Self:
        solution = rng.choice(solutions())
        clues, wanted = list(range(SIDE * SIDE)), rng.randint(4, 8)
        for cell in rng.sample(clues, SIDE * SIDE):
            fewer = [each for each in clues if each != cell]
            if len(clues) > wanted and is_single(fewer, solution):
                clues = fewer
        return cls("".join(digit if cell in clues else "0" for cell, digit in enumerate(solution)), solution)

    @property
    def prompt(self) -> str:
        return f"Solve this Sudoku.\n{rows(self.puzzle)}"

    def answer(self, rng: Random) -> str:
        return rows(self.solution)

    def check(self, text: str) -> bool:
        grids: list[str] = _GRID.findall(text)
        return [re.sub(r"\s", "", grid) for grid in grids] == [self.solution]


def rows(cells: str) -> str:
    """Return a grid's 16 digits as four lines."""
    return "\n".join(" ".join(cells[start : start + SIDE]) for start in range(0, SIDE * SIDE, SIDE))


def is_single(clues: Sequence[int], solution: str) -> bool:
    """Return whether a solution is the only one that has its digits in these cells.

    Args:
        clues: Numbers of the cells that are given.
        solution: The digits of all cells.
    """
    left = (1 << len(solutions())) - 1
    for cell in clues:
        left &= having()[cell, solution[cell]]
    return left & (left - 1) == 0


@cache
def having() -> dict[tuple[int, str], int]:
    """Return, for each cell and digit, which solutions have it there, a bit each."""
    return {
        (cell, digit): sum(1 << number for number, grid in enumerate(solutions()) if grid[cell] == digit)
        for cell in range(SIDE * SIDE)
        for digit in "1234"
    }


@cache
def solutions() -> tuple[str, ...]:
    """Return all 288 grids of 4 × 4 cells."""
    lines = ["".join(each) for each in permutations("1234")]
    pairs = [(one, two) for one, two in product(lines, lines) if set(one[:2]).isdisjoint(two[:2])]
    grids = ("".join((*upper, *lower)) for upper, lower in product(pairs, pairs))
    return tuple(grid for grid in grids if all(len(set(grid[column::SIDE])) == SIDE for column in range(SIDE)))


PUZZLES: tuple[type[OpenPrompt], ...] = (CountdownSteps, SudokuGrid)
