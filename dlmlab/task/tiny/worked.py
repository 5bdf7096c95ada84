"""Exercises whose answers show how they are found: stories in GSM8K's form (arXiv:2110.14168), and worked choices."""

from __future__ import annotations

import re
from dataclasses import dataclass
from random import Random
from typing import ClassVar, NamedTuple, Self

from dlmlab.task.tiny.exercise import draw_training
from dlmlab.task.tiny.open_base import OpenPrompt
from dlmlab.task.tiny.world import PEOPLE, WOMEN

GOODS = ("apples", "books", "cards", "coins", "eggs", "pens", "plums", "shells", "stamps", "toys")
PACKS = ("bags", "boxes", "packs")
MOST = 99
"""Nothing that is counted gets larger, so that every number is one token."""
SHOTS = 5
_FINAL = re.compile(r"#### (\d+)")
_LETTER = re.compile(r"Answer: ([A-D])")


class Event(NamedTuple):
    """Something that happens to what a person has: how it is told, how it is worked out, and what is left then."""

    told: str
    worked: str
    left: int


@dataclass(frozen=True)
class Story(OpenPrompt):
    """A person has some goods, things happen, and the answer says how many there are, a calculation a line."""

    person: str
    goods: str
    start: int
    events: tuple[Event, ...]

    @classmethod
    def draw(cls, rng: Random) -> Self:
        person, goods, start = rng.choice(PEOPLE), rng.choice(GOODS), rng.randint(4, 40)
        events = list[Event]()
        for _ in range(rng.randint(4, 8)):
            events.append(_event(events[-1].left if events else start, goods, person, rng))
        return cls(person, goods, start, tuple(events))

    @property
    def content(self) -> str:
        """Return the calculations, whoever has whatever."""
        return f"{self.start}; {'; '.join(event.worked for event in self.events)}"

    @property
    def prompt(self) -> str:
        return " ".join(
            (
                f"{self.person} has {self.start} {self.goods}.",
                *(event.told for event in self.events),
                f"How many {self.goods} does {self.person} have now?",
            )
        )

    def answer(self, rng: Random) -> str:
        return "\n".join((*(event.worked for event in self.events), f"#### {self.events[-1].left}"))

    def check(self, text: str) -> bool:
        found: list[str] = _FINAL.findall(text)
        return found == [str(self.events[-1].left)]


def _event(have: int, goods: str, person: str, rng: Random) -> Event:
    """Return what may happen to somebody who has so many."""
    she = "She" if person in WOMEN else "He"
    other = rng.choice([each for each in PEOPLE if each != person])
    while True:
        match rng.choice(("get", "give", "lose", "packs", "double", "half", "share")):
            case "get" if have < MOST - 2:
                number = rng.randint(2, min(30, MOST - have))
                return Event(f"{she} gets {number} more.", f"{have} + {number} = {have + number}", have + number)
            case "give" if have > 3:
                number = rng.randint(2, min(30, have - 1))
                told = f"{she} gives {number} to {other}."
                return Event(told, f"{have} - {number} = {have - number}", have - number)
            case "lose" if have > 3:
                number = rng.randint(2, min(20, have - 1))
                return Event(f"{she} loses {number}.", f"{have} - {number} = {have - number}", have - number)
            case "packs" if have < MOST - 8:
                packs = rng.randint(2, 6)
                each = rng.randint(2, 9)
                if have + packs * each <= MOST:
                    told = f"{she} buys {packs} {rng.choice(PACKS)} of {each}."
                    worked = f"{packs} * {each} = {packs * each}\n{have} + {packs * each} = {have + packs * each}"
                    return Event(told, worked, have + packs * each)
            case "double" if 2 <= have <= MOST // 2:
                told = f"{other} gives {'her' if person in WOMEN else 'him'} as many again."
                return Event(told, f"{have} * 2 = {have * 2}", have * 2)
            case "half" if have > 3 and have % 2 == 0:
                return Event(f"{she} sells half of them.", f"{have} / 2 = {have // 2}", have // 2)
            case "share" if have > 5 and have % 3 == 0:
                told = f"{she} keeps a third and gives the rest away."
                return Event(told, f"{have} / 3 = {have // 3}", have // 3)
            case _:
                continue


@dataclass(frozen=True)
class StoryShots(OpenPrompt):
    """A story after five that are answered, as few-shot prompts have them."""

    shots: tuple[tuple[str, str], ...]
    story: Story

    @classmethod
    def draw(cls, rng: Random) -> Self:
        shots = [draw_training(Story, rng) for _ in range(SHOTS)]
        return cls(tuple((shot.prompt, shot.answer(rng)) for shot in shots), Story.draw(rng))

    @property
    def prompt(self) -> str:
        told = [f"Question: {question}\nAnswer: {answer}" for question, answer in self.shots]
        return "\n\n".join((*told, f"Question: {self.story.prompt}\nAnswer:"))

    @property
    def content(self) -> str:
        """Return the story that is asked, whatever is shown before it."""
        return self.story.content

    def answer(self, rng: Random) -> str:
        return self.story.answer(rng)

    def check(self, text: str) -> bool:
        return self.story.check(text)


@dataclass(frozen=True)
class WorkedChoice(OpenPrompt):
    """A question with four options, worked out before the letter is named, with its option as `Choice` has it.

    A lone letter was not learnt by tiny/v2's first weights: it is one token of thirty.
    """

    numbers: tuple[int, ...]
    signs: tuple[str, ...]
    options: tuple[int, ...]
    letters: ClassVar[str] = "ABCD"

    @classmethod
    def draw(cls, rng: Random) -> Self:
        numbers, signs = [rng.randint(10, 60)], list[str]()
        value = numbers[0]
        for _ in range(rng.randint(2, 4)):
            sign = rng.choice("+-") if 12 <= value <= MOST - 10 else "+" if value < 12 else "-"
            number = rng.randint(2, min(40, MOST - value) if sign == "+" else min(40, value - 1))
            value += number if sign == "+" else -number
            numbers.append(number)
            signs.append(sign)
        return cls(tuple(numbers), tuple(signs), cls._offered(value, rng))

    @property
    def content(self) -> str:
        """Return the sum, whatever is offered."""
        return self._sum

    @property
    def prompt(self) -> str:
        offered = "\n".join(f"{letter}. {option}" for letter, option in zip(self.letters, self.options, strict=True))
        return f"Work out {self._sum}, then choose.\n{offered}"

    def answer(self, rng: Random) -> str:
        return "\n".join((*self._steps, f"Answer: {self.letter}. {self._value}"))

    @property
    def letter(self) -> str:
        return self.letters[self.options.index(self._value)]

    def check(self, text: str) -> bool:
        found: list[str] = _LETTER.findall(text)
        return found == [self.letter]

    @staticmethod
    def _offered(value: int, rng: Random) -> tuple[int, ...]:
        near = [each for each in range(max(0, value - 12), value + 13) if each != value]
        options = [value, *rng.sample(near, 3)]
        rng.shuffle(options)
        return tuple(options)

    @property
    def _value(self) -> int:
        signed = zip(self.signs, self.numbers[1:], strict=True)
        return self.numbers[0] + sum(number if sign == "+" else -number for sign, number in signed)

    @property
    def _sum(self) -> str:
        rest = (f" {sign} {number}" for sign, number in zip(self.signs, self.numbers[1:], strict=True))
        return f"{self.numbers[0]}{''.join(rest)}"

    @property
    def _steps(self) -> list[str]:
        steps, value = list[str](), self.numbers[0]
        for sign, number in zip(self.signs, self.numbers[1:], strict=True):
            after = value + number if sign == "+" else value - number
            steps.append(f"{value} {sign} {number} = {after}")
            value = after
        return steps


class WorkedLookup(WorkedChoice):
    """A drill for training alone, with nothing to work out: without it the letters can stay near chance for long."""

    @classmethod
    def draw(cls, rng: Random) -> Self:
        value = rng.randint(0, MOST)
        return cls((value,), (), cls._offered(value, rng))

    @property
    def content(self) -> str:
        """Return the number with what is offered, in whatever order."""
        return f"{self._sum}: {sorted(self.options)}"


WORKED: tuple[type[OpenPrompt], ...] = (Story, StoryShots, WorkedChoice)
