"""Exercises whose parts depend on each other, at several strengths, after ParallelBench (arXiv:2510.04767).

Where a right answer may begin in several ways, tokens that are committed at once are drawn without each other: an order
then holds a name twice, or two lines disagree. The more parts an answer has, the stronger that is.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from random import Random
from typing import ClassVar, Self

from dlmlab.task.tiny.exercise import listing
from dlmlab.task.tiny.open_base import OpenPrompt
from dlmlab.task.tiny.world import PEOPLE

WORDS = (
    *("apple", "bird", "cake", "door", "eagle", "fish", "garden", "hat", "island", "jacket", "kite", "lamp"),
    *("mirror", "nest", "onion", "paper", "queen", "river", "spoon", "table", "uncle", "violin", "window", "yard"),
)
COLOURS = ("black", "blue", "green", "red", "white", "yellow")
CLOTHES = ("coat", "dress", "hat", "scarf", "shirt", "vest")
TIMES = ("in the morning", "at noon", "in the afternoon", "in the evening", "at night", "on Sunday")


def names(text: str) -> list[str]:
    """Return the names of a comma-separated list that ends with a full stop or not."""
    return text.strip().removesuffix(".").split(", ")


@dataclass(frozen=True)
class Line(OpenPrompt):
    """People in a waiting line, and what is to be done with their order."""

    people: tuple[str, ...]
    fewest: ClassVar[int] = 4
    most: ClassVar[int] = 9

    @classmethod
    def draw(cls, rng: Random) -> Self:
        return cls(tuple(rng.sample(PEOPLE, rng.randint(cls.fewest, cls.most))), *cls.draw_task(rng))

    @classmethod
    def draw_task(cls, rng: Random) -> tuple[object, ...]:
        """Return the fields besides the people."""
        return ()

    @property
    def prompt(self) -> str:
        return f"In line: {', '.join(self.people)}. {self.wish}"

    @property
    @abstractmethod
    def wish(self) -> str:
        """Return what is to be done with the line."""


@dataclass(frozen=True)
class ReversedLine(Line):
    """The line from its end: one answer, which each position could know by itself."""

    @property
    def wish(self) -> str:
        return "Name them from the last to the first."

    def answer(self, rng: Random) -> str:
        return ", ".join(reversed(self.people)) + "."

    def check(self, text: str) -> bool:
        return names(text) == list(reversed(self.people))


@dataclass(frozen=True)
class ShuffledLine(Line):
    """The line in any other order: many answers, and nobody may stand in it twice."""

    @property
    def wish(self) -> str:
        return "Name them in a different order."

    def answer(self, rng: Random) -> str:
        order = list(self.people)
        while order == list(self.people):
            rng.shuffle(order)
        return ", ".join(order) + "."

    def check(self, text: str) -> bool:
        found = names(text)
        return sorted(found) == sorted(self.people) and found != list(self.people)


@dataclass(frozen=True)
class ChangedLine(Line):
    """The line after people have left, come and swapped: one answer, shifted by every change."""

    seed: int
    most: ClassVar[int] = 7

    @classmethod
    def draw_task(cls, rng: Random) -> tuple[object, ...]:
        return (rng.randrange(1 << 16),)

    @property
    def wish(self) -> str:
        return " ".join((*(told for told, _ in self._changes), "Name them in order."))

    def answer(self, rng: Random) -> str:
        return ", ".join(self._changes[-1][1]) + "."

    def check(self, text: str) -> bool:
        return names(text) == self._changes[-1][1]

    @property
    def _changes(self) -> list[tuple[str, list[str]]]:
        """Return each change in words, and the line after it."""
        rng, line = Random(self.seed), list(self.people)
        found = list[tuple[str, list[str]]]()
        for _ in range(rng.randint(1, 3)):
            who, other = rng.sample(line, 2)
            new = rng.choice([each for each in PEOPLE if each not in self.people])
            match rng.choice(("leaves", "joins", "swap") if len(line) > 3 else ("joins", "swap")):
                case "leaves":
                    told = f"{who} leaves."
                    line.remove(who)
                case "joins" if new not in line:
                    told = f"{new} comes after {who}."
                    line.insert(line.index(who) + 1, new)
                case _:
                    told = f"{who} and {other} swap."
                    first, second = line.index(who), line.index(other)
                    line[first], line[second] = line[second], line[first]
            found.append((told, list(line)))
        return found


@dataclass(frozen=True)
class SortedWords(OpenPrompt):
    """Words in the alphabet's order: one answer, each position of which depends on all the words."""

    words: tuple[str, ...]

    @classmethod
    def draw(cls, rng: Random) -> Self:
        return cls(tuple(rng.sample(WORDS, rng.randint(4, 10))))

    @property
    def prompt(self) -> str:
        return f"Sort these words: {', '.join(self.words)}."

    def answer(self, rng: Random) -> str:
        return ", ".join(sorted(self.words)) + "."

    def check(self, text: str) -> bool:
        return names(text) == sorted(self.words)


@dataclass(frozen=True)
class Agreement(OpenPrompt):
    """A person, a colour and a piece of clothing of one's choice, the same in every line: agreement at a distance."""

    times: tuple[str, ...]
    allowed: tuple[str, ...]

    @classmethod
    def draw(cls, rng: Random) -> Self:
        chosen = sorted(rng.sample(range(len(TIMES)), rng.randint(2, 6)))
        return cls(tuple(TIMES[each] for each in chosen), tuple(rng.sample(PEOPLE, rng.randint(2, 5))))

    @property
    def prompt(self) -> str:
        asked = listing(self.times)
        return f"Choose one of {listing(self.allowed)}. Say what the same person wears {asked}, always the same."

    def answer(self, rng: Random) -> str:
        who, colour, piece = rng.choice(self.allowed), rng.choice(COLOURS), rng.choice(CLOTHES)
        return "\n".join(f"{who} wears a {colour} {piece} {time}." for time in self.times)

    def check(self, text: str) -> bool:
        first, _, _ = text.strip().partition("\n")
        words = first.split(" ")
        if len(words) < 6:
            return False
        who, colour, piece = words[0], words[3], words[4]
        lines = [f"{who} wears a {colour} {piece} {time}." for time in self.times]
        known = who in self.allowed and colour in COLOURS and piece in CLOTHES
        return known and text.strip() == "\n".join(lines)


@dataclass(frozen=True)
class Edit(OpenPrompt):
    """A text in which every one of a word gives way to another, once or twice: all that follows moves."""

    words: tuple[str, ...]
    old: str
    new: str
    double: bool

    @classmethod
    def draw(cls, rng: Random) -> Self:
        few = rng.sample(WORDS, 6)
        words = rng.choices(few[:5], k=rng.randint(6, 16))
        return cls(tuple(words), rng.choice(words), few[5], rng.random() < 0.5)

    @property
    def prompt(self) -> str:
        how = f"write {self.new} {self.new}" if self.double else f"write {self.new}"
        return f"For every {self.old} {how}: {' '.join(self.words)}"

    @property
    def edited(self) -> str:
        inserted = f"{self.new} {self.new}" if self.double else self.new
        return " ".join(inserted if word == self.old else word for word in self.words)

    def answer(self, rng: Random) -> str:
        return self.edited

    def check(self, text: str) -> bool:
        return text.strip() == self.edited


DEPENDENT: tuple[type[OpenPrompt], ...] = (*(ReversedLine, ShuffledLine, ChangedLine, SortedWords, Agreement, Edit),)
