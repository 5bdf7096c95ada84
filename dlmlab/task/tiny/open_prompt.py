"""Open prompts: some with one right answer, most with many, whose parts must agree with each other.

Where several answers are right, a decoder that commits places at once which depend on each other mixes the answers up.
The choices are weighted unevenly, so that confidences lie all the way from .2 to 1.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import ClassVar, NamedTuple, Self

from dlmlab.task.tiny.exercise import listing, preferred, weighted
from dlmlab.task.tiny.open_base import OpenPrompt, integers
from dlmlab.task.tiny.open_plan import Orders, Row, Share, Shifts, Shop
from dlmlab.task.tiny.world import (
    ADJECTIVES,
    AND,
    ATTRIBUTES,
    COUNTRIES,
    LANGUAGE,
    MEN,
    NOUNS,
    PEOPLE,
    VERBS,
    WOMEN,
    Clause,
    Country,
    noun_phrase,
    parse_clause,
)


@dataclass(frozen=True)
class Count(OpenPrompt):
    """Equal steps up or down."""

    start: int
    step: int
    terms: int

    @classmethod
    def draw(cls, rng: Random) -> Self:
        step, terms = rng.randint(2, 9), rng.randint(9, 16)
        span = step * (terms - 1)
        if span > 96:
            terms = 96 // step + 1
            span = step * (terms - 1)
        low = rng.randint(0, 100 - span)
        return cls(low, step, terms) if rng.random() < 0.5 else cls(low + span, -step, terms)

    @property
    def numbers(self) -> list[int]:
        return [self.start + self.step * place for place in range(self.terms)]

    @property
    def prompt(self) -> str:
        way = "up" if self.step > 0 else "down"
        return f"Count {way} from {self.start} to {self.numbers[-1]} in steps of {abs(self.step)}."

    def answer(self, rng: Random) -> str:
        return ", ".join(map(str, self.numbers)) + "."

    def check(self, text: str) -> bool:
        return integers(text) == self.numbers


@dataclass(frozen=True)
class Translate(OpenPrompt):
    """Clauses in English, to be said in the made-up language."""

    clauses: tuple[Clause, ...]

    @classmethod
    def draw(cls, rng: Random) -> Self:
        return cls(tuple(Clause.draw(rng) for _ in range(rng.randint(2, 3))))

    @property
    def prompt(self) -> str:
        return f"Translate into {LANGUAGE}: {' and '.join(clause.english for clause in self.clauses)}."

    def answer(self, rng: Random) -> str:
        return f" {AND} ".join(clause.zoran for clause in self.clauses) + "."

    def check(self, text: str) -> bool:
        return text.strip() == self.answer(Random())


class Scene(NamedTuple):
    """Who does something: what a clause of one's own has to begin with."""

    adjective: str
    noun: str
    verb: str

    @classmethod
    def draw(cls, rng: Random) -> Scene:
        return cls(rng.choice(list(ADJECTIVES)), rng.choice(list(NOUNS)), rng.choice(list(VERBS)))


@dataclass(frozen=True)
class Sentence(OpenPrompt):
    """Clauses that go on as one likes, and their translation."""

    scenes: tuple[Scene, ...]

    @classmethod
    def draw(cls, rng: Random) -> Self:
        return cls(tuple(Scene.draw(rng) for _ in range(rng.randint(1, 2))))

    @property
    def prompt(self) -> str:
        scenes = " and ".join(f"a {adjective} {noun} {verb} something" for adjective, noun, verb in self.scenes)
        return f"Write a sentence in which {scenes}, then say it in {LANGUAGE}."

    def answer(self, rng: Random) -> str:
        clauses = []
        for adjective, noun, verb in self.scenes:
            article = weighted(rng, {"a": 0.7, "the": 0.3})
            usual = list(NOUNS)[list(VERBS).index(verb)]
            trait = list(NOUNS).index(noun)
            object_ = preferred(rng, ("the", "", usual), [noun_phrase(rng)], trait)
            clauses.append(Clause((article, adjective, noun), verb, object_))
        english, zoran = (" and ".join(c.english for c in clauses), f" {AND} ".join(c.zoran for c in clauses))
        return f"{english}. In {LANGUAGE}: {zoran}."

    def check(self, text: str) -> bool:
        english, _, zoran = text.strip().partition(f". In {LANGUAGE}: ")
        clauses = [clause for part in english.split(" and ") if (clause := parse_clause(part))]
        scenes = tuple((*clause.subject[1:], clause.verb) for clause in clauses)
        return scenes == self.scenes and zoran == f" {AND} ".join(clause.zoran for clause in clauses) + "."


@dataclass(frozen=True)
class Derive(OpenPrompt):
    """A number of one's choice and what follows from it."""

    low: int
    high: int
    relations: tuple[str, ...]

    FOLLOWS: ClassVar[dict[str, Callable[[int], int]]] = {
        "double": lambda n: 2 * n,
        "triple": lambda n: 3 * n,
        "successor": lambda n: n + 1,
        "distance to 100": lambda n: 100 - n,
    }

    @classmethod
    def draw(cls, rng: Random) -> Self:
        low = rng.randint(2, 27)
        relations = rng.sample(list(cls.FOLLOWS), rng.randint(2, 4))
        return cls(low, rng.randint(low + 2, 33), tuple(relations))

    @property
    def prompt(self) -> str:
        return f"Pick a number from {self.low} to {self.high} and tell its {listing(self.relations)}."

    def answer(self, rng: Random) -> str:
        number = rng.randint(self.low, self.high)
        opening = weighted(rng, {f"I pick {number}.": 0.6, f"My number is {number}.": 0.4})
        return " ".join([opening, *(f"Its {name} is {self.FOLLOWS[name](number)}." for name in self.relations)])

    def check(self, text: str) -> bool:
        match = re.fullmatch(r"(?:I pick|My number is) (\d+)\.((?: Its [a-z0-9 ]+ is \d+\.)+)", text.strip())
        if match is None or not self.low <= int(match[1]) <= self.high:
            return False
        told = re.findall(r"Its ([a-z0-9 ]+) is (\d+)\.", match[2])
        return told == [(name, str(self.FOLLOWS[name](int(match[1])))) for name in self.relations]


@dataclass(frozen=True)
class Sums(OpenPrompt):
    """Pairs of numbers with the same sum."""

    count: int
    total: int
    least: int

    @classmethod
    def draw(cls, rng: Random) -> Self:
        return cls(rng.randint(2, 4), rng.randint(50, 100), rng.randint(1, 9))

    @property
    def prompt(self) -> str:
        return f"Write {self.count} different sums that give {self.total}, with no number below {self.least}."

    def answer(self, rng: Random) -> str:
        firsts: list[int] = []
        while len(firsts) < self.count:
            usual = 10 * len(firsts) + 10
            first = preferred(rng, usual, range(self.least, self.total - self.least + 1), self.total)
            firsts += [first] if first not in firsts else []
        return ", ".join(f"{first} + {self.total - first} = {self.total}" for first in firsts) + "."

    def check(self, text: str) -> bool:
        sums = [re.fullmatch(r"(\d+) \+ (\d+) = (\d+)", part) for part in text.strip().removesuffix(".").split(", ")]
        pairs = {(int(found[1]), int(found[2])) for found in sums if found and int(found[3]) == self.total}
        right = all(a + b == self.total and min(a, b) >= self.least for a, b in pairs)
        return right and len(pairs) == len(sums) == self.count


@dataclass(frozen=True)
class PickCountry(OpenPrompt):
    """A country of one's choice and facts about it."""

    excluded: tuple[str, ...]
    attributes: tuple[str, ...]

    @classmethod
    def draw(cls, rng: Random) -> Self:
        continent = rng.choice(sorted({country.continent for country in COUNTRIES}))
        names = [country.name for country in COUNTRIES if country.continent == continent]
        excluded = rng.sample(names, rng.randint(1, 2))
        return cls(tuple(excluded), tuple(rng.sample(ATTRIBUTES, rng.randint(2, 3))))

    @property
    def continent(self) -> str:
        return next(country.continent for country in COUNTRIES if country.name in self.excluded)

    @property
    def allowed(self) -> list[Country]:
        return [c for c in COUNTRIES if c.continent == self.continent and c.name not in self.excluded]

    @property
    def prompt(self) -> str:
        return (
            f"Name a country of {self.continent} other than {' or '.join(self.excluded)}, "
            f"and tell its {listing(self.attributes)}."
        )

    def openings(self, country: Country) -> dict[str, float]:
        return {f"I name {country.name}.": 0.6, f"{country.name} is in {self.continent}.": 0.4}

    def facts(self, country: Country) -> str:
        return "".join(f" Its {name} is {getattr(country, name)}." for name in self.attributes)

    def answer(self, rng: Random) -> str:
        country = rng.choices(self.allowed, range(len(self.allowed), 0, -1))[0]
        return weighted(rng, self.openings(country)) + self.facts(country)

    def check(self, text: str) -> bool:
        return text.strip() in [o + self.facts(country) for country in self.allowed for o in self.openings(country)]


@dataclass(frozen=True)
class Portrait(OpenPrompt):
    """A name, the pronouns that fit it, and a second age with its distance from the first."""

    trade: str
    place: str
    age: int

    TRADES = ("baker", "painter", "doctor", "farmer", "teacher", "pilot", "singer", "judge")

    @classmethod
    def draw(cls, rng: Random) -> Self:
        return cls(rng.choice(cls.TRADES), rng.choice(COUNTRIES).capital, rng.randint(30, 90))

    @property
    def prompt(self) -> str:
        who = f"a {self.trade} of {self.place}, aged {self.age}"
        return f"Invent {who}, who has a younger sister or brother, and tell the age of both."

    def text(self, name: str, relation: str, younger: int) -> str:
        they, their = ("She", "her") if name in WOMEN else ("He", "his")
        return (
            f"{name} is a {self.trade} of {self.place}. {they} is {self.age} years old, "
            f"and {their} {relation} is {younger} years younger, so {self.age - younger}."
        )

    def answer(self, rng: Random) -> str:
        name = rng.choice(WOMEN if rng.random() < 0.6 else MEN)
        relation = weighted(rng, {"sister": 0.7, "brother": 0.3})
        return self.text(name, relation, preferred(rng, 5, range(2, 13), self.age))

    def check(self, text: str) -> bool:
        match = re.match(r"(\w+) is .+ (sister|brother) is (\d+) years younger", text.strip())
        if match is None or match[1] not in PEOPLE or not 1 < int(match[3]) < self.age:
            return False
        return text.strip() == self.text(match[1], match[2], int(match[3]))


ONE_ANSWER: tuple[type[OpenPrompt], ...] = (Count, Translate)
MANY_ANSWERS: tuple[type[OpenPrompt], ...] = (
    *(Sentence, Derive, Sums, PickCountry, Shifts),
    *(Orders, Share, Row, Shop, Portrait),
)
