"""Puzzles whose answers are checked by rule: Countdown's arithmetic, and Sudoku on 4 × 4 cells.

python run.py experiment=evaluate task=countdown task.path=countdown.jsonl
python run.py experiment=evaluate task=sudoku task.path=sudoku.csv
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from dlmlab.errors import UserError
from dlmlab.task.base import BaseTask, Item, Score
from dlmlab.task.local_data import read_rows

SIDE = 4
_STEP = re.compile(r"(\d+)\s*([-+*/×÷])\s*(\d+)\s*=\s*(\d+)")
_GRID = re.compile(r"(?<!\d)(?:[1-4][\s|,]*){15}[1-4](?!\d)")


@dataclass(frozen=True, kw_only=True)
class Countdown(BaseTask):
    """Make a number out of others, a step at a time: `44-15=29,79-29=50` makes 50 of 15, 44 and 79.

    An answer is right where its steps are true, use every number once, and end in the target.

    Attributes:
        path: A file of lines {"input": "15,44,79,50", "output": …}, the number to make being the last.
        prompt: The prompt, in which `{numbers}` and `{target}` are filled in.

    Raises:
        UserError: When the items are first needed: the file is missing or malformed.
    """

    path: str
    prompt: str

    def load(self) -> list[Item]:
        """Read the file."""
        return [self._item(number, row) for number, row in enumerate(_rows(self.path, ("input", "output")), 1)]

    def score(self, item: Item, text: str) -> Score:
        """Check the steps."""
        reason = true_steps(text, item.meta["numbers"], item.meta["target"])
        return Score(0.0, reason) if reason else Score(1.0)

    def _item(self, number: int, row: Mapping[str, Any]) -> Item:
        try:
            *numbers, target = map(int, str(row["input"]).split(","))
        except ValueError as error:
            raise UserError(
                f"task.path={self.path}, row {number}: input={row['input']!r} is no list of numbers"
            ) from error
        prompt = self.prompt.replace("{numbers}", ", ".join(map(str, numbers))).replace("{target}", str(target))
        return Item(f"countdown/{number}", prompt, str(row["output"]), {"numbers": numbers, "target": target})


@dataclass(frozen=True, kw_only=True)
class Sudoku(BaseTask):
    """Fill a grid of 4 × 4 cells: each row, column and 2 × 2 box has 1 to 4, which one solution does.

    The variant `cells` is the share of the empty cells that are right.

    Attributes:
        path: A CSV file with the columns Puzzle and Solution, 16 digits each, 0 where a cell is empty.
        prompt: The prompt, in which `{puzzle}` is filled in, a row a line.

    Raises:
        UserError: When the items are first needed: the file is missing or malformed.
    """

    path: str
    prompt: str

    def load(self) -> list[Item]:
        """Read the file."""
        return [self._item(number, row) for number, row in enumerate(_rows(self.path, ("Puzzle", "Solution")), 1)]

    def score(self, item: Item, text: str) -> Score:
        """Compare the last grid of the text with the solution."""
        grids = _GRID.findall(text)
        grid = re.sub(r"\D", "", grids[-1]) if grids else ""
        empty = [cell for cell, digit in enumerate(item.meta["puzzle"]) if digit == "0"]
        right = sum(grid[cell] == item.answer[cell] for cell in empty) if grid else 0
        solved = float(grid == item.answer)
        reason = "" if solved else "wrong answer" if grid else "no answer"
        return Score(solved, reason, {"solved": solved, "cells": right / len(empty) if empty else solved})

    def _item(self, number: int, row: Mapping[str, Any]) -> Item:
        puzzle, solution = str(row["Puzzle"]), str(row["Solution"])
        if not (re.fullmatch("[0-4]{16}", puzzle) and re.fullmatch("[1-4]{16}", solution)):
            raise UserError(f"task.path={self.path}, row {number}: not 16 digits and their solution: mend it")
        lines = "\n".join(puzzle[start : start + SIDE] for start in range(0, len(puzzle), SIDE))
        return Item(f"sudoku/{number}", self.prompt.replace("{puzzle}", lines), solution, {"puzzle": puzzle})


def true_steps(text: str, numbers: Sequence[int], target: int) -> str:
    """Return what is wrong with a Countdown answer's steps; empty where they make the target.

    Args:
        text: The answer, in which steps such as `44-15=29` are looked for.
        numbers: Those to use, each once.
        target: The number that has to be left in the end.
    """
    left = Counter(map(int, numbers))
    steps = _STEP.findall(text)
    if not steps:
        return "no answer"
    for first, sign, second, result in steps:
        for used in (int(first), int(second)):
            if not left[used]:
                return "a number that is not left"
            left[used] -= 1
        if not _holds(int(first), sign, int(second), int(result)):
            return "a wrong step"
        left[int(result)] += 1
    return "" if +left == Counter([target]) else "not the target"


def _rows(path: str, fields: tuple[str, ...]) -> list[dict[str, Any]]:
    rows = read_rows(Path(path).expanduser())
    if not rows:
        raise UserError(f"task.path={path} has no row")
    if missing := [field for field in fields if field not in rows[0]]:
        raise UserError(f"task.path={path}: no field {missing[0]!r}: a row has {' and '.join(fields)}")
    return rows


def _holds(first: int, sign: str, second: int, result: int) -> bool:
    """Return whether a step of arithmetic is true."""
    if sign in "/÷":
        return second != 0 and Fraction(first, second) == result
    return {"+": first + second, "-": first - second}.get(sign, first * second) == result
