"""The small models that ship: each loads by name, answers, has a card, and all of them are small."""

from __future__ import annotations

from pathlib import Path

import pytest

import dlmlab
from dlmlab.decoder.baseline import Baseline
from dlmlab.decoder.threshold import Threshold
from dlmlab.task.sudoku9.content import draw
from dlmlab.task.sudoku9.grid import CELLS, solved_by
from dlmlab.task.sudoku9.task import prompt

SHIPPED = Path(dlmlab.__file__).parent / "model" / "tiny"
CARDS = ("v2", "dream", "sdar", "sudoku")
QUESTIONS = {
    "v2": ("Sort these words: hat, nest, mirror, table, island, fish.", "fish, hat, island, mirror, nest, table."),
    "dream": ("Count up from 15 to 31 in steps of 2.", "15, 17, 19, 21, 23, 25, 27, 29, 31."),
}


@pytest.mark.parametrize("name", CARDS)
def test_every_model_that_ships_has_a_card_that_says_how_it_was_made(name: str) -> None:
    card = (SHIPPED / name / "README.md").read_text(encoding="utf-8")
    for part in (
        "experiment=train model=",
        "**Data.**",
        "**Recipe.**",
        "**What it took.**",
        "**Results.**",
        "**Limits.**",
    ):
        assert part in card
    assert (SHIPPED / name / "model.safetensors").stat().st_size <= (8e6 if name in ("dream", "sdar") else 16e6)


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_family_in_small_answers_as_it_was_trained_to(name: str) -> None:
    model = dlmlab.load(f"tiny/{name}", device="cpu")
    question, answer = QUESTIONS[name]
    for rule in (Baseline(), Threshold(0.9)):
        [output] = dlmlab.generate(model, [question], rule, gen_length=32, block_length=32, steps=32)
        assert output.text == answer


def test_the_sudoku_model_solves_easy_puzzles_that_it_has_not_seen() -> None:
    model = dlmlab.load("tiny/sudoku", device="cpu")
    puzzles = ["".join(map(str, each)) for each in draw(2, (45, 50), True, "shipped")[0]]
    outputs = dlmlab.generate(model, [prompt(each) for each in puzzles], Threshold(0.9), gen_length=CELLS, steps=CELLS)
    assert all(
        solved_by(each, (output.text or "").replace(" ", "")) for each, output in zip(puzzles, outputs, strict=True)
    )
