"""The exercises that are new with tiny/v2: right answers pass, wrong ones that look right don't, the split holds."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from dlmlab.task.base import score_answer
from dlmlab.task.tiny.dependent import Agreement, ChangedLine, Edit, ReversedLine, ShuffledLine, SortedWords
from dlmlab.task.tiny.exercise import draw_held_out, draw_training
from dlmlab.task.tiny.kinds import NEW_IN_V2, V1_KINDS, V2_KINDS
from dlmlab.task.tiny.open_base import OpenPrompt
from dlmlab.task.tiny.programs import Program, Stage
from dlmlab.task.tiny.puzzles import CountdownSteps, SudokuGrid, solutions
from dlmlab.task.tiny.worked import SHOTS, Event, Story, StoryShots, WorkedChoice, WorkedLookup

ROOT = Path(__file__).resolve().parents[2]
OPEN = [kind for kind in (*NEW_IN_V2, WorkedLookup) if issubclass(kind, OpenPrompt)]


@pytest.mark.parametrize("kind", OPEN)
def test_its_own_answers_are_right(kind):
    rng = Random(7)
    for exercise in (kind.draw(rng) for _ in range(200)):
        assert exercise.check(exercise.answer(rng))
        assert not exercise.check("")
        assert not exercise.check(exercise.prompt)


@pytest.mark.parametrize("kind", NEW_IN_V2)
def test_a_seed_says_what_is_drawn_and_240_are_held_out(kind):
    assert [kind.draw(Random(3)) for _ in range(2)] == [kind.draw(Random(3)) for _ in range(2)]
    assert len({exercise.prompt for exercise in draw_held_out([kind], 240, seed=0)}) == 240


@pytest.mark.parametrize("kind", NEW_IN_V2)
def test_nothing_held_out_is_trained_on(kind):
    held = {exercise.content for exercise in draw_held_out([kind], 100, seed=1)}
    rng = Random(5)
    assert held.isdisjoint(draw_training(kind, rng).content for _ in range(1000))


def test_shots_are_of_the_training_side():
    shown = Random(11)
    for _ in range(20):
        exercise = StoryShots.draw(shown)
        assert len(exercise.shots) == SHOTS
        assert exercise.held_out == exercise.story.held_out
    trained = {draw_training(Story, Random(seed)).prompt for seed in range(50)}
    assert not any(story.prompt in trained for story in draw_held_out([Story], 240, seed=0))


def test_programs_do_what_their_docstrings_say():
    rng = Random(2)
    for _ in range(200):
        program = Program.draw(rng)
        namespace: dict = {}
        source = f"{program.prompt}\n{program.answer(rng)}\n{program.test}"
        exec(source, namespace)  # our own reference, not a model's output
        namespace["check"](namespace[program.name])
        assert 6 <= source.partition("def check")[0].count("\n") <= 27


def test_a_stage_drops_keeps_or_branches():
    assert Stage("even", 2, None, None).does([1, 2, 3, 4]) == [1, 3]
    assert Stage("above", 2, ("add", 5), None).does([1, 2, 3, 4]) == [8, 9]
    assert Stage("above", 2, ("add", 5), ("negate", 0)).does([1, 2, 3, 4]) == [-1, -2, 8, 9]


STORY = Story("Ann", "pens", 9, (Event("She gets 3 more.", "9 + 3 = 12", 12), Event("She loses 2.", "12 - 2 = 10", 10)))
LINE = ("Ann", "Bob", "Eva", "Mia")
WORN = Agreement(("at noon", "at night"), ("Ann", "Bob"))
WRONG = [
    (STORY, "9 + 3 = 12\n12 - 2 = 10\n#### 12"),
    (STORY, "9 + 3 = 12\n12 - 2 = 10"),
    (STORY, "#### 10\n#### 12"),
    (STORY, "#### 100"),
    (WorkedChoice((10, 5), ("+",), (14, 15, 16, 17)), "10 + 5 = 15\nAnswer: C"),
    (WorkedChoice((10, 5), ("+",), (14, 15, 16, 17)), "Answer: A or Answer: B"),
    (WorkedChoice((10, 5), ("+",), (14, 15, 16, 17)), "10 + 5 = 15\nAnswer: C. 15"),
    (WorkedChoice((10, 5), ("+",), (14, 15, 16, 17)), "B"),
    (ReversedLine(LINE), "Mia, Eva, Ann, Bob."),
    (ShuffledLine(LINE), "Ann, Bob, Eva, Mia."),
    (ShuffledLine(LINE), "Mia, Bob, Eva, Bob."),
    (ShuffledLine(LINE), "Mia, Bob, Eva."),
    (ShuffledLine(LINE), "Mia, Bob, Eva, Ann, Zoe."),
    (SortedWords(("kite", "hat", "bird")), "bird, kite, hat."),
    (SortedWords(("kite", "hat", "bird")), "bird, hat, hat, kite."),
    (WORN, "Ann wears a red hat at noon.\nAnn wears a red coat at night."),
    (WORN, "Ann wears a red hat at noon.\nBob wears a red hat at night."),
    (WORN, "Zoe wears a red hat at noon.\nZoe wears a red hat at night."),
    (WORN, "Ann wears a red hat at night.\nAnn wears a red hat at noon."),
    (WORN, "Ann wears a red hat at noon."),
    (Edit(("a", "b", "a"), "a", "c", True), "c b c"),
    (Edit(("a", "b", "a"), "a", "c", True), "c c b c"),
    (CountdownSteps((15, 44, 79), "44-15=29,79-29=50", 50), "79-15=64,64-44=20"),
    (CountdownSteps((15, 44, 79), "44-15=29,79-29=50", 50), "44-15=28,79-29=50"),
    (CountdownSteps((15, 44, 79), "44-15=29,79-29=50", 50), "79-29=50"),
    (CountdownSteps((15, 44, 79), "44-15=29,79-29=50", 50), "44+6=50"),
]


@pytest.mark.parametrize(("exercise", "text"), WRONG)
def test_an_answer_that_looks_right_is_not(exercise, text):
    assert not exercise.check(text)


@pytest.mark.parametrize(
    ("exercise", "text"),
    [
        (ShuffledLine(LINE), "Mia, Eva, Bob, Ann"),
        (WorkedChoice((10, 5), ("+",), (14, 15, 16, 17)), "10 + 5 = 15\nAnswer: B"),
        (WORN, "Bob wears a blue vest at noon.\nBob wears a blue vest at night."),
        (CountdownSteps((15, 44, 79), "44-15=29,79-29=50", 50), "79 - 44 = 35, 35 + 15 = 50"),
    ],
)
def test_any_right_answer_is_right(exercise, text):
    assert exercise.check(text)


def test_a_worked_choice_names_the_letter_with_its_option():
    assert WorkedChoice((10, 5), ("+",), (14, 15, 16, 17)).answer(Random(0)) == "10 + 5 = 15\nAnswer: B. 15"
    assert WorkedLookup((15,), (), (14, 15, 16, 17)).answer(Random(0)) == "Answer: B. 15"


def test_a_changed_line_follows_its_changes():
    for seed in range(100):
        exercise = ChangedLine(LINE, seed)
        line = list(LINE)
        for told in exercise.wish.removesuffix(" Name them in order.").removesuffix(".").split(". "):
            who, *rest = told.split(" ")
            if rest == ["leaves"]:
                line.remove(who)
            elif rest[:2] == ["comes", "after"]:
                line.insert(line.index(rest[2]) + 1, who)
            else:
                first, second = line.index(who), line.index(rest[1])
                line[first], line[second] = line[second], line[first]
        assert exercise.answer(Random(0)) == ", ".join(line) + "."


def test_a_sudoku_has_one_solution_and_no_other_grid_passes():
    assert len(set(solutions())) == 288
    rng = Random(4)
    for _ in range(50):
        grid = SudokuGrid.draw(rng)
        fits = [
            each for each in solutions() if all(clue in ("0", own) for clue, own in zip(grid.puzzle, each, strict=True))
        ]
        assert fits == [grid.solution]
        other = next(each for each in solutions() if each != grid.solution)
        assert not grid.check(SudokuGrid(grid.puzzle, other).answer(rng))


def test_v1_stays_as_it_was():
    assert list(V1_KINDS) == list(V2_KINDS)[: len(V1_KINDS)]


TASKS = sorted(path.stem for path in (ROOT / "conf" / "task").glob("tiny_*.yaml") if "_tiny" in path.read_text())


@pytest.mark.parametrize("name", TASKS)
def test_a_task_scores_right_answers_one_and_empty_ones_zero(name):
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("config", [f"task={name}", "task.limit=3", "sandbox=rlimit"])
    task = instantiate(cfg.task)
    items = task.items()
    assert len(items) == 3
    assert [score_answer(task, item, item.answer).value for item in items] == [1.0] * 3
    assert [score_answer(task, item, "").value for item in items] == [0.0] * 3
