"""The generated exercises: their own answers are right, near misses are wrong, and nothing held out is trained on."""

from __future__ import annotations

import ast
import dataclasses
import re
from dataclasses import dataclass
from random import Random

import pytest

from dlmlab.errors import UserError
from dlmlab.sandbox import Sandbox
from dlmlab.task.extract import answer_letter
from dlmlab.task.problem import Problem, check_problem
from dlmlab.task.tiny.choice import QUESTIONS, Arithmetic, Choice, Lookup
from dlmlab.task.tiny.code import FUNCTIONS, Function, IntChain, Step
from dlmlab.task.tiny.exercise import Exercise, draw_held_out, draw_training
from dlmlab.task.tiny.kinds import DRILLS
from dlmlab.task.tiny.open_base import OpenPrompt
from dlmlab.task.tiny.open_plan import Orders, Share, Shifts
from dlmlab.task.tiny.open_prompt import MANY_ANSWERS, ONE_ANSWER, Derive, Sentence, Sums
from dlmlab.task.tiny.tasks import TinyHumanEval, TinyMMLU, TinyOpen
from dlmlab.task.tiny.world import COUNTRIES, DICTIONARY, Clause, parse_clause

OPEN = (*ONE_ANSWER, *MANY_ANSWERS)
HELD_OUT = (*QUESTIONS, *FUNCTIONS, *OPEN)
GENERATION = {"version": "1", "gen_length": 64, "block_length": 64, "steps": 16, "seed": 0}
MMLU = TinyMMLU(name="tiny_mmlu", per_kind=150, filter=answer_letter, **GENERATION)
HUMANEVAL = TinyHumanEval(name="tiny_humaneval", per_kind=100, sandbox=Sandbox(), **GENERATION)
OPEN_PROMPTS = TinyOpen(name="tiny_open", per_kind=100, **GENERATION)


def drawn(kind: type[Exercise], count: int = 100) -> list[Exercise]:
    rng = Random(f"test/{kind.__name__}")
    return [kind.draw(rng) for _ in range(count)]


def named(kind: type[Exercise]) -> str:
    return kind.__name__


@pytest.mark.parametrize("kind", OPEN, ids=named)
def test_an_answer_passes_its_own_checker_and_hardly_another_ones(kind: type[OpenPrompt]) -> None:
    exercises = drawn(kind)
    answers = [exercise.answer(Random(1)) for exercise in exercises]
    assert all(exercise.check(answer) for exercise, answer in zip(exercises, answers, strict=True))
    assert sum(exercise.check(answer) for exercise, answer in zip(exercises[1:], answers, strict=False)) < 10


@pytest.mark.parametrize("kind", OPEN, ids=named)
def test_a_checker_takes_no_damaged_answer_and_survives_any(kind: type[OpenPrompt]) -> None:
    rng = Random(2)
    for exercise in drawn(kind):
        words = re.findall(r"\s*\S+", exercise.answer(rng))
        without = rng.randrange(len(words))
        assert not exercise.check("".join(words[:without] + words[without + 1 :]))
        assert not exercise.check("".join(words) + words[-1])
        rng.shuffle(words)
        exercise.check("".join(words))
        assert not exercise.check("")


@pytest.mark.parametrize("kind", MANY_ANSWERS, ids=named)
def test_prompts_with_many_answers_have_them(kind: type[OpenPrompt]) -> None:
    exercises = [
        exercise for exercise in drawn(kind, 10) if not (isinstance(exercise, Share) and len(set(exercise.fair)) == 1)
    ]
    assert all(len({exercise.answer(Random(seed)) for seed in range(20)}) > 1 for exercise in exercises)


@pytest.mark.parametrize(
    ("exercise", "wrong"),
    [
        (Derive(20, 30, ("double", "triple")), "I pick 24. Its double is 48. Its triple is 75."),
        (Derive(20, 30, ("double", "triple")), "I pick 31. Its double is 62. Its triple is 93."),
        (Sums(2, 60, 5), "10 + 50 = 60, 10 + 50 = 60."),
        (Sums(2, 60, 5), "10 + 50 = 60, 20 + 41 = 60."),
        (Sums(2, 60, 5), "10 + 50 = 60, 57 + 3 = 60."),
        (Shifts("Ann", 5, 3, 1, "off"), "Saturday: off. Sunday: off. Monday: work."),
        (Shifts("Ann", 5, 3, 1, "off"), "Saturday: off. Monday: work. Tuesday: work."),
        (Orders(("Ann", "Bob"), ("tea", "milk"), False), "Ann: tea. Bob: milk. That is 2 tea and 0 milk."),
        (Share(10, "nuts", ("Ann", "Bob", "Ida")), "Ann gets 5, Bob gets 3 and Ida gets 2."),
    ],
)  # fmt: skip
def test_parts_that_contradict_each_other_are_wrong(exercise: OpenPrompt, wrong: str) -> None:
    assert not exercise.check(wrong)


def test_a_translation_must_be_that_of_the_sentence_written() -> None:
    exercise = next(found for found in drawn(Sentence) if len(found.scenes) == 1)
    english, zoran = exercise.answer(Random(0)).removesuffix(".").split(". In Zoran: ")
    clause = parse_clause(english)
    assert isinstance(clause, Clause)
    assert clause.zoran == zoran
    other = dataclasses.replace(exercise).answer(Random(0)).replace(zoran, clause._replace(object=clause.subject).zoran)
    assert clause.object == clause.subject or not exercise.check(other)


@pytest.mark.parametrize("kind", [*QUESTIONS, Lookup], ids=named)
def test_a_question_has_four_different_options_and_its_letter(kind: type[Choice]) -> None:
    for question in drawn(kind):
        assert len(set(question.options)) == 4
        assert question.prompt.endswith("Answer:")
        assert f"\n{question.answer(Random(0))}\n" in question.prompt
        assert answer_letter(question.answer(Random(0))) == question.letter


def test_arithmetic_marks_the_right_option() -> None:
    checked = 0
    for question in drawn(Arithmetic, 300):
        if found := re.fullmatch(r"What is ([\d +-]+|\d+ times \d+)\?", question.question):
            terms = re.findall(r"(^|[+-]|times) ?(\d+)", found[1])
            value = int(terms[0][1])
            for sign, number in terms[1:]:
                value = {"+": value + int(number), "-": value - int(number), "times": value * int(number)}[sign]
            assert question.options[question.right] == str(value)
            checked += 1
    assert checked > 100


def test_facts_are_a_function_of_what_is_asked() -> None:
    assert len({country.capital for country in COUNTRIES}) == len({country.name for country in COUNTRIES})
    assert len(set(DICTIONARY.values())) == len(DICTIONARY)


@pytest.mark.parametrize("kind", FUNCTIONS, ids=named)
def test_every_way_to_write_a_function_passes_its_tests(kind: type[Function]) -> None:
    """The generator's own code, which is no model's: executed here, since a sandbox for each would take minutes."""
    for seed, function in enumerate(drawn(kind, 60)):
        for variant in range(4):
            program = f"{function.prompt}\n{function.answer(Random(100 * seed + variant))}\n{function.test}"
            scope: dict[str, object] = {}
            exec(compile(program, "<generated>", "exec"), scope)
            exec("check(candidate)", {**scope, "candidate": scope[function.name]})


def test_functions_tell_a_wrong_body() -> None:
    function = IntChain("f", "x", (Step("add", 3, "add {n}"), Step("negate", 2, "negate it")))
    assert function.docstring("x") == "Take x, add 3, then negate it."
    scope: dict[str, object] = {}
    exec(f"{function.prompt}\n    return -x + 3\n{function.test}", scope)
    with pytest.raises(AssertionError):
        exec("check(f)", scope)


@pytest.mark.parametrize("kind", [*HELD_OUT, *DRILLS], ids=named)
def test_training_never_draws_what_is_held_out(kind: type[Exercise]) -> None:
    rng = Random(3)
    training = [draw_training(kind, rng) for _ in range(400)]
    assert not any(exercise.held_out for exercise in training)
    if kind in DRILLS:
        return
    held_out = draw_held_out([kind], 100, seed=0)
    assert all(exercise.held_out for exercise in held_out)
    assert len({exercise.prompt for exercise in held_out}) == 100
    assert not {exercise.content for exercise in training} & {exercise.content for exercise in held_out}


def test_a_function_is_on_one_side_of_the_split_under_every_name_and_wording() -> None:
    steps = (Step("add", 3, "add {n}"), Step("negate", 2, "negate it"))
    reworded = (Step("add", 3, "increase it by {n}"), Step("negate", 7, "flip its sign"))
    assert IntChain("f", "x", steps).content == IntChain("solve", "n", reworded).content


def test_a_question_is_on_one_side_of_the_split_in_every_order_of_its_options() -> None:
    first = Arithmetic("What is 2 + 2?", ("3", "4", "5", "6"), 1)
    assert first.content == Arithmetic("What is 2 + 2?", ("4", "3", "6", "5"), 0).content


@pytest.mark.parametrize(("task", "least"), [(MMLU, 500), (HUMANEVAL, 250), (OPEN_PROMPTS, 200)])
def test_tasks_have_items_enough_and_the_same_every_time(task: TinyMMLU | TinyHumanEval | TinyOpen, least: int) -> None:
    again = dataclasses.replace(task)
    items = again.items()
    assert len(items) >= least
    assert items == task.items()
    assert again.fingerprint == task.fingerprint
    assert dataclasses.replace(task, seed=1).fingerprint != task.fingerprint
    assert len({item.id for item in items}) == len({item.prompt for item in items}) == len(items)


def test_any_limit_takes_as_many_of_each_kind() -> None:
    kinds = [type(exercise) for exercise in draw_held_out(OPEN, 3, seed=0)]
    assert kinds == [*OPEN, *OPEN, *OPEN]


def test_right_answers_score_and_wrong_ones_say_why() -> None:
    for task in (MMLU, OPEN_PROMPTS):
        for item in task.items()[:50]:
            assert task.score(item, item.answer).value == 1
    question, prompt = MMLU.items()[0], OPEN_PROMPTS.items()[0]
    other = next(letter for letter in "ABCD" if letter != question.answer[0])
    assert MMLU.score(question, f"{other}. 12").reason == "wrong answer"
    assert MMLU.score(question, "").reason == "no answer"
    assert OPEN_PROMPTS.score(prompt, "").reason == "wrong answer"


def test_functions_are_problems_that_can_be_scored() -> None:
    for item in HUMANEVAL.items()[:60]:
        function = HUMANEVAL._exercises[item.id]
        assert isinstance(function, Function)
        check_problem(HUMANEVAL.problem(item), item.id)
        assert isinstance(HUMANEVAL.problem(item), Problem)
        ast.parse(function.prompt + "\n" + item.answer)


@dataclass(frozen=True)
class Few(Exercise):
    """One of three prompts, all held out."""

    number: int

    @classmethod
    def draw(cls, rng):
        return cls(rng.randrange(3))

    @property
    def prompt(self):
        return str(self.number)

    @property
    def held_out(self):
        return True

    def answer(self, rng):
        return ""


def test_more_exercises_than_a_kind_has_are_refused():
    assert len(draw_held_out([Few], per_kind=3, seed=0)) == 3
    with pytest.raises(UserError, match="per_kind=4 is more than the 3 that Few has"):
        draw_held_out([Few], per_kind=4, seed=0)
