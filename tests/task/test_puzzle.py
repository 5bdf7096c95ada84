"""Puzzles are checked by their rules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dlmlab.errors import UserError
from dlmlab.task.puzzle import Countdown, Sudoku
from tests.task import benchmark_data as data

CANVAS: dict[str, Any] = {"name": "x", "version": "1", "gen_length": 8, "block_length": 8, "steps": 8}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return data.write(tmp_path_factory.mktemp("benchmarks"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("3*4=12,12-2=10", ""),
        ("We take 2*4=8.\nThen 8 + 3 = 11.", "not the target"),
        ("3*4=13,13-3=10", "a wrong step"),
        ("3+4=7,7+3=10", "a number that is not left"),
        ("4+4=8,8+2=10", "a number that is not left"),
        ("3*4=12", "not the target"),
        ("4/0=4", "a number that is not left"),
        ("10", "no answer"),
        ("", "no answer"),
    ],
)
def test_steps_of_countdown(folder: Path, text: str, reason: str) -> None:
    own = Countdown(path=str(folder / "countdown" / "countdown.jsonl"), prompt="{target} of {numbers}", **CANVAS)
    [item] = own.items()
    assert item.prompt == "10 of 2, 3, 4"
    assert (own.score(item, text).reason, own.score(item, text).value) == (reason, float(not reason))
    assert own.score(item, item.answer).value == 1.0


@pytest.mark.parametrize(
    ("text", "cells", "reason"),
    [
        ("1234\n3412\n2143\n4321", 1.0, ""),
        ("| 1 2 3 4 | 3 4 1 2 | 2 1 4 3 | 4 3 2 1", 1.0, ""),
        ("First 1111111111111111, no: 1234341221434321.", 1.0, ""),
        ("2234341221434321", 0.0, "wrong answer"),
        ("1234", 0.0, "no answer"),
        ("", 0.0, "no answer"),
    ],
)
def test_grids_of_sudoku(folder: Path, text: str, cells: float, reason: str) -> None:
    own = Sudoku(path=str(folder / "sudoku" / "sudoku.csv"), prompt="Solve\n{puzzle}", **CANVAS)
    [item] = own.items()
    assert item.prompt == "Solve\n0234\n3412\n2143\n4321"
    score = own.score(item, text)
    assert (score.reason, score.variants["cells"]) == (reason, cells)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("Puzzle,Answer\n1,2\n", "no field 'Solution'"),
        ("Puzzle,Solution\n12,12\n", "row 1: not 16 digits"),
        ("Puzzle,Solution\n", "has no row"),
        ("a,b\n1\n", "row 2: 1 cells under a header of 2"),
    ],
)
def test_a_bad_file_is_one_line(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "bad.csv").write_text(content)
    with pytest.raises(UserError, match=message):
        Sudoku(path=str(tmp_path / "bad.csv"), prompt="{puzzle}", **CANVAS).items()
