"""Rows round after round: which they are, and when they are drawn."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest

from experiments.train.data import CHUNK, Rows, drawing
from experiments.train.rounds import Rounds
from tests.experiments.test_train import LAYOUT, WEIGHTS, rows, tokenizer


def test_rows_do_not_depend_on_how_many_processes_draw_them() -> None:
    [again] = Rounds(drawing(tokenizer(), WEIGHTS, [LAYOUT], seed=0), rows=300, workers=2)(0)
    for one, two in zip(rows(), again, strict=True):
        assert np.array_equal(one, two)
    [other] = Rounds(drawing(tokenizer(), WEIGHTS, [LAYOUT], seed=1), rows=300, workers=1)(0)
    assert not np.array_equal(rows().ids_NL, other.ids_NL)


@pytest.mark.parametrize("workers", [1, 2])
def test_rounds_go_on_where_the_last_one_ended(workers: int) -> None:
    before = spawned()
    with Rounds(numbered, rows=2 * CHUNK, workers=workers, ahead=True) as rounds:
        found = [rounds(number) for number in (0, 1, 3)]
    assert [each.ids_NL.reshape(2, CHUNK)[:, 0].tolist() for [each] in found] == [[0, 1], [2, 3], [6, 7]]
    assert spawned() == before


def spawned() -> list[psutil.Process]:
    return [each for each in psutil.Process().children() if "spawn_main" in " ".join(each.cmdline())]


def test_the_next_round_is_drawn_before_it_is_asked_for(tmp_path: Path) -> None:
    with Rounds(partial(noted, tmp_path), rows=CHUNK, workers=2, ahead=True) as rounds:
        rounds(0)
        while not (tmp_path / "1").exists():
            time.sleep(0.1)
        rounds(1)
    assert not (tmp_path / "3").exists()


def noted(folder: Path, chunk: int) -> list[Rows]:
    (folder / str(chunk)).touch()
    return numbered(chunk)


def numbered(chunk: int) -> list[Rows]:
    return [Rows(*(np.full((CHUNK, *more), chunk, dtype=np.int16) for more in ((1,), (), (), ())))]
