"""Sudoku of 9 × 9 cells: one solution each, a split that no symmetry crosses, and a judge that knows the rules."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from dlmlab.errors import UserError
from dlmlab.task.sudoku9.content import draw, held_out, signature
from dlmlab.task.sudoku9.grid import CELLS, COUNT, UNITS, as_sets, propagate, solutions, solved_by, varied
from dlmlab.task.sudoku9.task import Sudoku9, grade

Rows = tuple[np.ndarray, np.ndarray]


@cache
def drawn() -> Rows:
    return draw(40, (24, 34), False, "test")


def text(cells: np.ndarray) -> str:
    return "".join(map(str, cells))


def all_solutions(sets_C: np.ndarray, most: int) -> list[str]:
    """Every solution of a grid of sets, up to `most`, by guessing where propagation ends."""
    [[left_C], [broken]] = propagate(sets_C[None])
    if broken:
        return []
    open_C = np.flatnonzero(COUNT[left_C] > 1)
    if not len(open_C):
        return [text(np.log2(left_C).astype(int) + 1)]
    found: list[str] = []
    cell = open_C[COUNT[left_C[open_C]].argmin()]
    for digit in range(9):
        if left_C[cell] >> digit & 1 and len(found) < most:
            guess_C = left_C.copy()
            guess_C[cell] = 1 << digit
            found += all_solutions(guess_C, most - len(found))
    return found


def test_random_grids_follow_the_rules_and_differ() -> None:
    full = solutions(30, np.random.default_rng(0))
    assert all(solved_by("0" * CELLS, text(each)) for each in full)
    assert len({signature(each) for each in full}) > 25


def test_every_puzzle_has_its_solution_and_no_other() -> None:
    for puzzle, solution in zip(*drawn(), strict=True):
        assert all_solutions(as_sets(puzzle), most=2) == [text(solution)]
        assert 24 <= (puzzle > 0).sum() <= 36


def test_the_search_of_this_test_finds_a_second_solution_where_there_is_one() -> None:
    puzzle = drawn()[0][0].copy()
    puzzle[:] = 0
    assert len(all_solutions(as_sets(puzzle), most=2)) == 2


def test_symmetric_forms_keep_solution_clues_and_side() -> None:
    puzzle_NC, solution_NC = drawn()
    puzzle2_NC, solution2_NC = varied(puzzle_NC, solution_NC, np.random.default_rng(1))
    for before, after, full, full2 in zip(puzzle_NC, puzzle2_NC, solution_NC, solution2_NC, strict=True):
        assert solved_by(text(after), text(full2))
        assert (before > 0).sum() == (after > 0).sum()
        assert signature(full) == signature(full2)
        assert text(full) != text(full2)


def test_the_split_holds_out_an_eighth_and_draws_each_side_from_its_own() -> None:
    full = solutions(400, np.random.default_rng(2))
    assert 0.07 < np.mean([held_out(each) for each in full]) < 0.2
    assert not any(held_out(each) for each in drawn()[1])
    assert all(held_out(each) for each in draw(5, (30, 40), True, "test")[1])


def test_the_same_seed_draws_the_same() -> None:
    assert np.array_equal(drawn()[0], draw(40, (24, 34), False, "test")[0])
    assert not np.array_equal(drawn()[0], draw(40, (24, 34), False, "other")[0])


def task(**changes: Any) -> Sudoku9:
    settings = {"puzzles": 4, "fewest": 26, "most": 38, "seed": 0, "gen_length": 81, "block_length": 81, "steps": 81}
    return Sudoku9(name="sudoku9", version="1", **{**settings, **changes})


def test_the_judge_takes_the_solution_alone() -> None:
    sudoku = task()
    for item in sudoku.items():
        assert sudoku.score(item, item.answer).value == 1
        assert item.id.startswith(grade(item.meta["puzzle"]))
        assert sudoku.score(item, item.answer[:-2]).reason == "no answer"
        digits = item.answer.split()
        for name, wrong in {
            "two cells of a row swapped": [digits[1], digits[0], *digits[2:]],
            "two digits renamed, which leaves a grid that follows the rules": [
                {"1": "2", "2": "1"}.get(digit, digit) for digit in digits
            ],
        }.items():
            score = sudoku.score(item, " ".join(wrong))
            assert (score.value, score.reason) == (0, "wrong answer"), name
            assert 0 < score.variants["cells"] < 1, name


def test_a_right_grid_of_another_puzzle_is_wrong() -> None:
    sudoku = task()
    one, two = sudoku.items()[:2]
    assert solved_by("0" * CELLS, two.answer.replace(" ", ""))
    assert sudoku.score(one, two.answer).value == 0


def test_units_are_27_of_nine_cells() -> None:
    assert UNITS.shape == (27, 9)
    assert np.array_equal(np.bincount(UNITS.ravel()), np.full(CELLS, 3))


@pytest.mark.parametrize("changes", [{"fewest": 16}, {"fewest": 40, "most": 30}, {"most": 81}])
def test_bounds_that_leave_nothing_are_refused(changes: dict[str, int]) -> None:
    with pytest.raises(UserError, match="are no bounds of clues from 17 to 80"):
        task(**changes)
