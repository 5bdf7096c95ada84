"""Open prompts that ask for a plan: who does what, when, for how much, within bounds that are checked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Self

from dlmlab.task.tiny.exercise import listing, preferred
from dlmlab.task.tiny.open_base import OpenPrompt
from dlmlab.task.tiny.world import (
    DAYS,
    PEOPLE,
)


@dataclass(frozen=True)
class Shifts(OpenPrompt):
    """Exactly so many days off: each day alone is most likely a working day."""

    person: str
    first: int
    days: int
    count: int
    off: str

    @classmethod
    def draw(cls, rng: Random) -> Self:
        off = rng.choice(("off", "free", "home"))
        return cls(rng.choice(PEOPLE), rng.randrange(7), rng.randint(4, 6), rng.randint(1, 2), off)

    @property
    def prompt(self) -> str:
        days = "one day" if self.count == 1 else f"{self.count} days"
        return f"Plan {self.days} days from {DAYS[self.first]} for {self.person}, with exactly {days} {self.off}."

    def text(self, off: Sequence[bool]) -> str:
        names = [DAYS[(self.first + day) % 7] for day in range(self.days)]
        return " ".join(f"{name}: {self.off if free else 'work'}." for name, free in zip(names, off, strict=True))

    def answer(self, rng: Random) -> str:
        off = [day < self.count for day in range(self.days)]
        rng.shuffle(off)
        return self.text(off)

    def check(self, text: str) -> bool:
        off = [what == self.off for what in re.findall(r": (\w+)", text)]
        return (len(off), sum(off)) == (self.days, self.count) and text.strip() == self.text(off)


@dataclass(frozen=True)
class Orders(OpenPrompt):
    """Independent choices of uneven weight, then their count, which must fit them."""

    people: tuple[str, ...]
    drinks: tuple[str, str]
    mostly: bool

    DRINKS = ("tea", "coffee", "milk", "water")

    @classmethod
    def draw(cls, rng: Random) -> Self:
        drinks = rng.sample(cls.DRINKS, 2)
        return cls(tuple(rng.sample(PEOPLE, rng.randint(3, 4))), (drinks[0], drinks[1]), rng.random() < 0.5)

    @property
    def prompt(self) -> str:
        likely, other = self.drinks
        taste = f"{likely}, seldom {other}" if self.mostly else f"{likely} or {other}"
        return f"{listing(self.people)} drink {taste}. Write what each drinks, and count."

    def answer(self, rng: Random) -> str:
        likely = 0.85 if self.mostly else 0.65
        drinks = [self.drinks[0] if rng.random() < likely else self.drinks[1] for _ in self.people]
        lines = [f"{person}: {drink}." for person, drink in zip(self.people, drinks, strict=True)]
        return " ".join([*lines, f"That is {listing([f'{drinks.count(drink)} {drink}' for drink in self.drinks])}."])

    def check(self, text: str) -> bool:
        orders, _, total = text.strip().partition(" That is ")
        pairs = re.findall(r"(\w+): (\w+)\.", orders)
        whole = " ".join(f"{person}: {drink}." for person, drink in pairs) == orders
        drinks = [drink for _, drink in pairs]
        counted = listing([f"{drinks.count(drink)} {drink}" for drink in self.drinks]) + "."
        named = tuple(person for person, _ in pairs) == self.people
        return whole and named and set(drinks) <= set(self.drinks) and total == counted


@dataclass(frozen=True)
class Share(OpenPrompt):
    """Nobody gets two more than another, so that it is free only who is the lucky one."""

    total: int
    thing: str
    people: tuple[str, ...]

    @classmethod
    def draw(cls, rng: Random) -> Self:
        people = tuple(rng.sample(PEOPLE, rng.randint(3, 4)))
        return cls(rng.randint(8, 60), rng.choice(("apples", "nuts", "coins", "cards")), people)

    @property
    def prompt(self) -> str:
        return f"Share {self.total} {self.thing} fairly among {listing(self.people)}."

    @property
    def fair(self) -> list[int]:
        least, lucky = divmod(self.total, len(self.people))
        return [least + (place < lucky) for place in range(len(self.people))]

    def text(self, parts: Sequence[int]) -> str:
        return listing([f"{person} gets {part}" for person, part in zip(self.people, parts, strict=True)]) + "."

    def answer(self, rng: Random) -> str:
        parts = self.fair
        rng.shuffle(parts)
        return self.text(parts)

    def check(self, text: str) -> bool:
        parts = [int(part) for part in re.findall(r"gets (\d+)", text)]
        return sorted(parts, reverse=True) == self.fair and text.strip() == self.text(parts)


@dataclass(frozen=True)
class Row(OpenPrompt):
    """Two colours that take turns: which comes first is free, the rest follows."""

    thing: str
    colours: tuple[str, str]
    count: int

    @classmethod
    def draw(cls, rng: Random) -> Self:
        colours = rng.sample(("red", "green", "blue", "white", "black", "yellow"), 2)
        return cls(rng.choice(("beads", "flags", "lights", "tiles")), (colours[0], colours[1]), rng.randint(8, 20))

    @property
    def prompt(self) -> str:
        return f"Lay a row of {self.count} {self.thing} in which {self.colours[0]} and {self.colours[1]} take turns."

    def rows(self) -> list[str]:
        turns = [[self.colours[(place + first) % 2] for place in range(self.count)] for first in (0, 1)]
        return [", ".join(turn) + "." for turn in turns]

    def answer(self, rng: Random) -> str:
        return rng.choice(self.rows())

    def check(self, text: str) -> bool:
        return text.strip() in self.rows()


@dataclass(frozen=True)
class Shop(OpenPrompt):
    """A thing from a price list, its price, and the change."""

    prices: tuple[tuple[str, int], ...]
    paid: int

    THINGS = ("pen", "cup", "book", "ball", "hat", "lamp", "cake")

    @classmethod
    def draw(cls, rng: Random) -> Self:
        things = rng.sample(cls.THINGS, rng.randint(2, 4))
        return cls(tuple((thing, rng.randint(2, 49)) for thing in things), rng.choice((50, 60, 80, 100)))

    @property
    def prompt(self) -> str:
        prices = listing([f"a {thing} {price}" for thing, price in self.prices])
        return f"Prices in coins: {prices}. Buy one thing and pay with {self.paid} coins."

    def receipt(self, thing: str, price: int) -> str:
        return f"I buy a {thing}. It costs {price} coins. I pay {self.paid} coins and get {self.paid - price} back."

    def answer(self, rng: Random) -> str:
        return self.receipt(*preferred(rng, self.prices[0], self.prices[1:], self.prices[0][1]))

    def check(self, text: str) -> bool:
        return text.strip() in [self.receipt(*priced) for priced in self.prices]
