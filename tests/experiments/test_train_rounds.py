"""Rows round after round: which they are, and when they are drawn."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from experiments.train.data import CHUNK, Layout, Rows, drawing
from experiments.train.network import Network
from experiments.train.optimize import Source
from experiments.train.rounds import Rounds
from experiments.train.state import Progress
from experiments.train.train import rounds_of
from tests.experiments.test_train import LAYOUT, WEIGHTS, rows, tokenizer


def test_rows_do_not_depend_on_how_many_processes_draw_them() -> None:
    [again] = Rounds(lambda _: drawing(tokenizer(), WEIGHTS, [LAYOUT], seed=0), rows=300, workers=2)(0)
    for one, two in zip(rows(), again, strict=True):
        assert np.array_equal(one, two)
    [other] = Rounds(lambda _: drawing(tokenizer(), WEIGHTS, [LAYOUT], seed=1), rows=300, workers=1)(0)
    assert not np.array_equal(rows().ids_NL, other.ids_NL)


@pytest.mark.parametrize("workers", [1, 2])
def test_rounds_go_on_where_the_last_one_ended(workers: int) -> None:
    before = spawned()
    with closing(Rounds(lambda _: numbered, rows=2 * CHUNK, workers=workers, ahead=True)) as rounds:
        found = [rounds(number) for number in (0, 1, 3)]
    assert [each.ids_NL.reshape(2, CHUNK)[:, 0].tolist() for [each] in found] == [[0, 1], [2, 3], [6, 7]]
    assert spawned() == before


def spawned() -> list[psutil.Process]:
    return [each for each in psutil.Process().children() if "spawn_main" in " ".join(each.cmdline())]


def test_the_next_round_is_drawn_before_it_is_asked_for(tmp_path: Path) -> None:
    with closing(Rounds(lambda _: partial(noted, tmp_path), rows=CHUNK, workers=2, ahead=True)) as rounds:
        rounds(0)
        while not (tmp_path / "1").exists():
            time.sleep(0.1)
        rounds(1)
    assert not (tmp_path / "3").exists()


def noted(folder: Path, chunk: int) -> list[Rows]:
    (folder / str(chunk)).touch()
    return numbered(chunk)


def test_a_round_has_an_order_of_its_own_and_the_sizes_that_a_training_began_with() -> None:
    same = [Rows(np.arange(6)[:, None], *(np.full(6, 1, dtype=np.int16) for _ in range(3)))]
    source = Source([Layout(1, 1)], lambda number: same, passes=1, seed=0)
    so_far = Progress([], sizes=[2])
    found: list[list[int]] = []
    for step, [batch] in zip(range(9), source.drawn(source.round(0), torch.Generator(), so_far), strict=False):
        so_far.step = step
        found.append(batch.ids_BL.flatten().tolist())
    rounds = np.array(found).reshape(3, 6)
    assert np.sort(rounds).tolist() == [[0, 1, 2, 3, 4, 5]] * 3
    assert len(set(map(tuple, rounds.tolist()))) == 3
    assert (so_far.round, so_far.round_began) == (2, 6)


def test_what_was_wrong_is_drawn_more_often_from_the_first_round_that_is_not_begun() -> None:
    recipe = {"rows": CHUNK, "workers": 1, "passes": 1, "puzzles": None, "weights": WEIGHTS, "emphasis": 3}
    so_far = Progress([], accuracy=[{"right": {"Branch": 0.5}, "round": -1}, {"right": {"Branch": 0.0}, "round": 0}])
    words = Network(None, tokenizer(), {})  # type: ignore[arg-type]
    rounds = rounds_of(words, {**recipe, "layouts": [asdict(LAYOUT)]}, 0, so_far)
    for number, factor in enumerate((1, 2.5, 4)):
        [expected] = drawing(tokenizer(), WEIGHTS | {"Branch": factor * WEIGHTS["Branch"]}, [LAYOUT], seed=0)(number)
        [found] = rounds(number)
        assert np.array_equal(found.ids_NL, expected.ids_NL)


def numbered(chunk: int) -> list[Rows]:
    return [Rows(*(np.full((CHUNK, *more), chunk, dtype=np.int16) for more in ((1,), (), (), ())))]
