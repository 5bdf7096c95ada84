"""What every exercise has: a prompt, a right answer drawn at random, and a side of the split."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from random import Random
from typing import Self, TypeVar

from dlmlab.errors import UserError

HELD_OUT_BYTES = 32
"""Of the 256 values of the hash's first byte, those that mean held out: an eighth of all content."""
PREFERENCES = (0.8, 0.55, 0.2)


class Exercise(ABC):
    """One prompt with its parameters; subclasses are frozen dataclasses whose fields are those parameters."""

    @classmethod
    @abstractmethod
    def draw(cls, rng: Random) -> Self:
        """Random parameters."""

    @property
    @abstractmethod
    def prompt(self) -> str:
        """Return the user's message."""

    @abstractmethod
    def answer(self, rng: Random) -> str:
        """One right answer, drawn where there are several."""

    @property
    def content(self) -> str:
        """Return what the split hashes. Wordings that must stay on the same side of it are left out."""
        return self.prompt

    @property
    def held_out(self) -> bool:
        return hashlib.sha256(self.content.encode()).digest()[0] < HELD_OUT_BYTES


MOST_IN_VAIN = 20_000
"""Draws in a row that may bring nothing new; a kind that has more left brings one far sooner."""

E = TypeVar("E", bound=Exercise)
T = TypeVar("T")


def draw_training(kind: type[E], rng: Random) -> E:
    """Return an exercise of the training side.

    Args:
        kind: The kind of exercise.
        rng: The source of randomness.
    """
    while (exercise := kind.draw(rng)).held_out:
        pass
    return exercise


def draw_held_out(kinds: Sequence[type[E]], per_kind: int, seed: int) -> list[E]:
    """Return held-out exercises with different prompts, `per_kind` of each kind, the kinds taking turns.

    Args:
        kinds: The kinds of exercises.
        per_kind: How many of each.
        seed: What they are drawn by.

    Raises:
        UserError: A kind has fewer.
    """
    columns = []
    for kind in kinds:
        rng = Random(f"{seed}/{kind.__name__}")
        found: dict[str, E] = {}
        vain = 0
        while len(found) < per_kind:
            vain += 1
            if (exercise := kind.draw(rng)).held_out and exercise.prompt not in found:
                found[exercise.prompt], vain = exercise, 0
            if vain > MOST_IN_VAIN:
                raise UserError(f"per_kind={per_kind} is more than the {len(found)} that {kind.__name__} has: lower it")
        columns.append(list(found.values()))
    return [exercise for row in zip(*columns, strict=True) for exercise in row]


def weighted(rng: Random, weight_of: dict[str, float]) -> str:
    """Return a key, drawn by weight: unequal weights are what gives a model confidences between .5 and .9.

    Args:
        rng: The source of randomness.
        weight_of: The weight of each key, above 0.
    """
    return rng.choices(list(weight_of), list(weight_of.values()))[0]


def preferred(rng: Random, favourite: T, others: Sequence[T], trait: int) -> T:
    """Return the favourite, or any of the others. How strong the preference is depends on a trait of the prompt.

    So confidences differ from prompt to prompt, and places committed at once agree by their favourites in one prompt
    and contradict each other in the next.

    Args:
        rng: The source of randomness.
        favourite: What is preferred.
        others: What else there is.
        trait: A number that follows from the prompt.
    """
    return favourite if rng.random() < PREFERENCES[trait % len(PREFERENCES)] else rng.choice(others)


def listing(parts: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(([", ".join(parts[:-1])] if len(parts) > 1 else []) + [parts[-1]])
