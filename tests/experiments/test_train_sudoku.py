"""Training on Sudoku: rows are what the model is asked, none is of the held-out side, and a checkpoint decodes."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch

import dlmlab
from dlmlab.generation import encode
from dlmlab.task.sudoku9.content import held_out
from dlmlab.task.sudoku9.grid import CELLS, solved_by
from dlmlab.task.sudoku9.task import answer, prompt
from experiments.train import sudoku
from experiments.train.data import Rows
from experiments.train.network import save_checkpoint, start
from experiments.train.rounds import Rounds
from experiments.train.train import train
from tests.experiments.test_train import recipe

PUZZLES = {"fewest": 26, "most": 40, "forms": 200}
SMALL = {
    "data": {"rows": 16, "workers": 1, "puzzles": PUZZLES},
    "architecture": {"d_model": 16, "n_layers": 1, "n_heads": 2, "mlp_hidden_size": 16},
    "training": {"steps": 2, "seconds": None, "batch_size": 8, "measure_at": [0.5]},
    "progress": {"per_kind": 1, "batch_size": 1},
}


@cache
def rows() -> Rows:
    [made] = Rounds(lambda _: sudoku.drawing(sudoku.make_tokenizer(), PUZZLES, seed=0), rows=60, workers=1)(0)
    return made


def test_a_row_is_what_the_model_is_asked_and_answers(tmp_path: Path) -> None:
    parts = recipe("sudoku", SMALL)
    torch.manual_seed(0)
    network = start(parts["tokenizer"], parts["architecture"], None, seed=0)
    save_checkpoint(network, tmp_path)
    model = dlmlab.load(str(tmp_path), device="cpu")
    words = sudoku.make_tokenizer()
    for ids in rows().ids_NL[:5]:
        cells = [words.convert_ids_to_tokens(int(token)) for token in ids[1 : CELLS + 1]]
        puzzle = "".join(cell[-1] for cell in cells)
        solution = words.decode(ids[CELLS + sudoku.FRAME :])
        assert encode(model, prompt(puzzle), CELLS, "row") == tuple(ids[: CELLS + sudoku.FRAME])
        assert solved_by(puzzle, solution.replace(" ", ""))
        assert solution == answer(solution.replace(" ", ""))


def test_no_training_row_is_of_the_held_out_side() -> None:
    first = sudoku.make_tokenizer().convert_tokens_to_ids("1")
    for ids in rows().ids_NL:
        assert not held_out(ids[CELLS + sudoku.FRAME :] - first + 1)


def test_forms_of_one_puzzle_differ_and_rows_do_not_depend_on_how_many_draw() -> None:
    assert len({ids.tobytes() for ids in rows().ids_NL}) == 60
    [again] = Rounds(lambda _: sudoku.drawing(sudoku.make_tokenizer(), PUZZLES, seed=0), rows=60, workers=2)(0)
    assert np.array_equal(rows().ids_NL, again.ids_NL)


def test_training_makes_a_checkpoint_and_says_how_many_puzzles_each_order_solves(tmp_path: Path) -> None:
    results = train(tmp_path / "checkpoint", **recipe("sudoku", SMALL), seed=0, device="cpu")
    assert set(results["accuracy"][0]["right"]) == {"baseline", "margin"}
    assert [each["decoding_steps"] for each in results["accuracy"]] == [CELLS, CELLS]
    assert dlmlab.load(str(tmp_path / "checkpoint"), device="cpu").config.d_model == 16
