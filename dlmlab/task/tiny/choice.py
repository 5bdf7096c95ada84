"""Multiple choice in MMLU's form: four subjects, one letter right."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import ClassVar, Self

from dlmlab.task.tiny.exercise import Exercise
from dlmlab.task.tiny.world import ATTRIBUTES, COUNTRIES, DAYS, DICTIONARY, LANGUAGE, MONTH_DAYS, MONTHS

LETTERS = "ABCD"


@dataclass(frozen=True)
class Choice(Exercise):
    """A question with four options; `right` is the index of the right one."""

    subject: ClassVar[str]
    question: str
    options: tuple[str, ...]
    right: int

    @classmethod
    def draw(cls, rng: Random) -> Self:
        question, right, wrong = cls.ask(rng)
        options = [right, *rng.sample(sorted(set(wrong) - {right}), 3)]
        rng.shuffle(options)
        return cls(question, tuple(options), options.index(right))

    @classmethod
    @abstractmethod
    def ask(cls, rng: Random) -> tuple[str, str, Sequence[str]]:
        """Return a question, its answer, and at least three options that are wrong."""

    @property
    def prompt(self) -> str:
        options = "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, self.options, strict=True))
        return (
            f"The following is a multiple choice question (with answers) about {self.subject}.\n\n"
            f"{self.question}\n{options}\nAnswer:"
        )

    @property
    def letter(self) -> str:
        return LETTERS[self.right]

    def answer(self, rng: Random) -> str:
        return f"{self.letter}. {self.options[self.right]}"

    @property
    def content(self) -> str:
        """Return the question with its set of options, in whatever order they stand."""
        return "\n".join((self.question, *sorted(self.options)))


class Arithmetic(Choice):
    """Sums, differences, products, remainders and divisibility below 100."""

    subject = "arithmetic"

    @classmethod
    def ask(cls, rng: Random) -> tuple[str, str, Sequence[str]]:
        match rng.randrange(6):
            case 0:
                a = rng.randint(2, 89)
                b = rng.randint(2, 99 - a)
                return f"What is {a} + {b}?", str(a + b), _near(a + b)
            case 1:
                a = rng.randint(12, 99)
                b = rng.randint(2, a - 2)
                return f"What is {a} - {b}?", str(a - b), _near(a - b)
            case 2:
                a = rng.randint(2, 12)
                b = rng.randint(2, 100 // a)
                return f"What is {a} times {b}?", str(a * b), _near(a * b)
            case 3:
                a, divisor = rng.randint(20, 100), rng.randint(6, 13)
                rest = a % divisor
                wrong = [str(other) for other in range(divisor) if abs(other - rest) < 4]
                return f"What is the remainder of {a} divided by {divisor}?", str(rest), wrong
            case 4:
                a, b = rng.randint(11, 60), rng.randint(2, 39)
                c = rng.randint(2, a + b - 2)
                return f"What is {a} + {b} - {c}?", str(a + b - c), _near(a + b - c)
            case _:
                divisor = rng.randint(3, 9)
                multiples = range(divisor, 100, divisor)
                others = [n for n in range(10, 100) if n % divisor]
                right = str(rng.choice(multiples))
                return f"Which number can be divided by {divisor}?", right, [str(n) for n in rng.sample(others, 3)]


class Calendar(Choice):
    """Days of the week and months, so many ahead or back, and what is left of a month."""

    subject = "the calendar"

    @classmethod
    def ask(cls, rng: Random) -> tuple[str, str, Sequence[str]]:
        match rng.randrange(4):
            case 0:
                start, days = rng.randrange(7), rng.randint(2, 40)
                return f"Which day is {days} days after {DAYS[start]}?", DAYS[(start + days) % 7], DAYS
            case 1:
                start, days = rng.randrange(7), rng.randint(2, 40)
                return f"Which day was {days} days before {DAYS[start]}?", DAYS[(start - days) % 7], DAYS
            case 2:
                start, months = rng.randrange(12), rng.randint(2, 11)
                return f"Which month is {months} months after {MONTHS[start]}?", MONTHS[(start + months) % 12], MONTHS
            case _:
                month, day = rng.randrange(12), rng.randint(4, 20)
                left = MONTH_DAYS[month] - day
                return f"How many days are left after {MONTHS[month]} {day}?", str(left), _near(left)


class Geography(Choice):
    """Facts about countries, which have to be learnt by heart."""

    subject = "geography"

    @classmethod
    def ask(cls, rng: Random) -> tuple[str, str, Sequence[str]]:
        country, attribute = rng.choice(COUNTRIES), rng.choice(ATTRIBUTES)
        value = getattr(country, attribute)
        values = [getattr(other, attribute) for other in COUNTRIES]
        if attribute == "capital" and rng.random() < 0.5:
            return f"Of which country is {value} the capital?", country.name, [other.name for other in COUNTRIES]
        return f"What is the {attribute} of {country.name}?", value, values


class Language(Choice):
    """Two words of the made-up language, in one direction or the other."""

    subject = f"the {LANGUAGE} language"

    @classmethod
    def ask(cls, rng: Random) -> tuple[str, str, Sequence[str]]:
        first, second = rng.sample(list(DICTIONARY), 2)
        if rng.random() < 0.5:
            wrong = [f"{DICTIONARY[a]} {DICTIONARY[b]}" for a, b in _pairs_near(rng, first, second)]
            return f'What is "{first} {second}" word for word?', f"{DICTIONARY[first]} {DICTIONARY[second]}", wrong
        wrong = [f"{a} {b}" for a, b in _pairs_near(rng, first, second)]
        return f'What does "{DICTIONARY[first]} {DICTIONARY[second]}" mean?', f"{first} {second}", wrong


QUESTIONS: tuple[type[Choice], ...] = (Arithmetic, Calendar, Geography, Language)


class Lookup(Choice):
    """A drill for training alone: which option says this? Without it the letters stay at chance for long."""

    subject = "the options"

    @classmethod
    def ask(cls, rng: Random) -> tuple[str, str, Sequence[str]]:
        _, right, wrong = rng.choice(QUESTIONS).ask(rng)
        return f"Which option is {right}?", right, wrong


def _near(value: int) -> list[str]:
    """Numbers that a slip in the last or the first digit would give."""
    return [str(value + slip) for slip in (-20, -10, -2, -1, 1, 2, 10, 20) if 0 <= value + slip <= 100]


def _pairs_near(rng: Random, first: str, second: str) -> list[tuple[str, str]]:
    """Pairs of words that share one with the given pair."""
    others = [word for word in rng.sample(list(DICTIONARY), 5) if word not in (first, second)]
    return [(first, others[0]), (others[1], second), (second, first)]
