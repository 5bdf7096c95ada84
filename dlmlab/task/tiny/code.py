"""Small Python functions in HumanEval's form: signature and docstring, then the body, which tests check."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, ClassVar, NamedTuple, Self

from dlmlab.task.tiny.exercise import Exercise, preferred, weighted

FUNCTION_NAMES = ("solve", "compute", "apply", "run", "convert", "process", "f", "g")
INT_NAMES = ("x", "n", "k", "a")
LIST_NAMES = ("xs", "items", "values", "numbers")
STR_NAMES = ("s", "text", "word", "name")
RESULT_NAMES = ("result", "out", "total", "y")
ITEM_NAMES = ("v", "i", "item", "value")

INTS = (-7, -2, 0, 1, 3, 4, 6, 9, 12)
LISTS: tuple[list[int], ...] = ([3, -2, 8, 0, 5, 4], [], [1, 2, 3, 6, 7, 9, -5, 12], [-1, -4, 10, 15, 20], [7])
LIMITS = (0, 5, 9, 12, 20, 33, 50)
STRINGS = ("", "a", "Hello day", "abcxyz", "Anna", "  to do ")


class Op(NamedTuple):
    """A step on a value. In texts, {n} stands for a number.

    Attributes:
        does: Makes the new value of a value and a number.
        phrases: How the docstring may say it.
        code: Its expression, in which {v} stands for the value.
        numbers: The least number and the largest.
        in_two: Whether it is written twice, with two numbers of one's choice whose sum is n.
    """

    does: Callable[[Any, int], Any]
    phrases: tuple[str, ...]
    code: str
    numbers: tuple[int, int] = (2, 9)
    in_two: bool = False


INT_OPS = {
    "add": Op(lambda v, n: v + n, ("add {n}", "increase it by {n}"), "{v} + {n}"),
    "subtract": Op(lambda v, n: v - n, ("subtract {n}", "decrease it by {n}"), "{v} - {n}"),
    "multiply": Op(lambda v, n: v * n, ("multiply by {n}", "take it times {n}"), "{v} * {n}"),
    "remainder": Op(lambda v, n: v % n, ("take the remainder by {n}",), "{v} % {n}"),
    "halve": Op(lambda v, n: v // n, ("divide by {n} and round down",), "{v} // {n}"),
    "negate": Op(lambda v, n: -v, ("negate it", "flip its sign"), "-{v}"),
    "square": Op(lambda v, n: v**2, ("square it",), "{v} ** 2"),
    "add in two": Op(lambda v, n: v + n, ("add {n} in two steps",), "{v} + {n}", (8, 40), in_two=True),
    "subtract in two": Op(lambda v, n: v - n, ("subtract {n} in two steps",), "{v} - {n}", (8, 40), in_two=True),
    "absolute": Op(lambda v, n: abs(v), ("take the absolute value",), "abs({v})"),
}
LIST_OPS = {
    "first": Op(lambda v, n: v[:n], ("keep the first {n} items",), "{v}[:{n}]", (1, 5)),
    "skip": Op(lambda v, n: v[n:], ("skip the first {n} items",), "{v}[{n}:]", (1, 5)),
    "last": Op(lambda v, n: v[-n:], ("keep the last {n} items",), "{v}[-{n}:]", (1, 5)),
    "reverse": Op(lambda v, n: v[::-1], ("reverse it", "turn it around"), "{v}[::-1]"),
    "sort": Op(lambda v, n: sorted(v), ("sort it", "put it in rising order"), "sorted({v})"),
    "repeat": Op(lambda v, n: v * n, ("repeat it {n} times",), "{v} * {n}", (2, 4)),
    "append": Op(lambda v, n: [*v, n], ("append {n}", "put {n} at the end"), "{v} + [{n}]"),
    "skip in two": Op(lambda v, n: v[n:], ("skip the first {n} items in two steps",), "{v}[{n}:]", (4, 9), in_two=True),
    "zeros in two": Op(
        lambda v, n: v + [0] * n, ("append {n} zeros in two steps",), "{v} + [0] * {n}", (6, 20), in_two=True
    ),
    "prepend": Op(lambda v, n: [n, *v], ("put {n} in front",), "[{n}] + {v}"),
}
STR_OPS = {
    "upper": Op(lambda v, n: v.upper(), ("make it upper case",), "{v}.upper()"),
    "lower": Op(lambda v, n: v.lower(), ("make it lower case",), "{v}.lower()"),
    "strip": Op(lambda v, n: v.strip(), ("strip the spaces around it",), "{v}.strip()"),
    "reverse": Op(lambda v, n: v[::-1], ("reverse it", "turn it around"), "{v}[::-1]"),
    "repeat": Op(lambda v, n: v * n, ("repeat it {n} times",), "{v} * {n}", (2, 4)),
    "first": Op(lambda v, n: v[:n], ("keep the first {n} letters",), "{v}[:{n}]", (1, 5)),
    "skip": Op(lambda v, n: v[n:], ("skip the first {n} letters",), "{v}[{n}:]", (1, 5)),
    "skip in two": Op(
        lambda v, n: v[n:], ("skip the first {n} letters in two steps",), "{v}[{n}:]", (4, 9), in_two=True
    ),
    "shout in two": Op(
        lambda v, n: v + "!" * n,
        ("append {n} exclamation marks in two steps",),
        '{v} + "!" * {n}',
        (6, 20),
        in_two=True,
    ),
    "shout": Op(lambda v, n: v + "!" * n, ("append {n} exclamation marks",), '{v} + "!" * {n}', (2, 5)),
}
TESTS: dict[str, tuple[Callable[[int, int], bool], str, str]] = {
    "odd": (lambda v, n: v % 2 == 1, "odd", "{v} % 2 == 1"),
    "even": (lambda v, n: v % 2 == 0, "even", "{v} % 2 == 0"),
    "negative": (lambda v, n: v < 0, "negative", "{v} < 0"),
    "positive": (lambda v, n: v > 0, "positive", "{v} > 0"),
    "above": (lambda v, n: v > n, "greater than {n}", "{v} > {n}"),
    "below": (lambda v, n: v < n, "less than {n}", "{v} < {n}"),
    "divisible": (lambda v, n: v % n == 0, "divisible by {n}", "{v} % {n} == 0"),
}


@dataclass(frozen=True)
class Function(Exercise):
    """A function to write: its names, its docstring, and what it should return for which arguments."""

    arguments: ClassVar[Sequence[Any]]
    parameters: ClassVar[Sequence[str]]
    name: str
    parameter: str

    @classmethod
    def draw(cls, rng: Random) -> Self:
        return cls(rng.choice(FUNCTION_NAMES), rng.choice(cls.parameters), *cls.draw_task(rng))

    @classmethod
    @abstractmethod
    def draw_task(cls, rng: Random) -> tuple[Any, ...]:
        """The fields that say what the function does."""

    @abstractmethod
    def docstring(self, parameter: str) -> str: ...

    @abstractmethod
    def expected(self, argument: Any) -> Any:
        """Return what the function should return."""

    @property
    def prompt(self) -> str:
        return f'def {self.name}({self.parameter}):\n    """{self.docstring(self.parameter)}"""'

    @property
    def content(self) -> str:
        """Return what it does, under whatever names."""
        return self.docstring("_")

    @property
    def test(self) -> str:
        """Source of `check(candidate)`, as HumanEval has it."""
        lines = []
        for argument in self.arguments:
            lines.append(f"    assert candidate({argument!r}) == {self.expected(argument)!r}")
        return "def check(candidate):\n" + "\n".join(lines) + "\n"


class Step(NamedTuple):
    """One drawn operation of a chain."""

    op: str
    number: int
    phrase: str


@dataclass(frozen=True)
class Chain(Function):
    """One operation after the other."""

    ops: ClassVar[dict[str, Op]]
    steps: tuple[Step, ...]

    @classmethod
    def draw_task(cls, rng: Random) -> tuple[tuple[Step, ...]]:
        steps: list[Step] = []
        count = rng.randint(2, 3)
        names = [*cls.ops, *(name for name, op in cls.ops.items() if op.in_two)]
        while len(steps) < count:
            name = rng.choice(names)
            if not steps or steps[-1].op != name:
                op = cls.ops[name]
                steps.append(Step(name, rng.randint(*op.numbers), rng.choice(op.phrases)))
        return (tuple(steps),)

    def docstring(self, parameter: str) -> str:
        phrases = [step.phrase.format(n=step.number) for step in self.steps]
        return f"Take {parameter}, {', '.join(phrases[:-1])}, then {phrases[-1]}."

    @property
    def content(self) -> str:
        return "; ".join(self.ops[step.op].code.format(v="_", n=step.number) for step in self.steps)

    def expected(self, argument: Any) -> Any:
        for step in self.steps:
            argument = self.ops[step.op].does(argument, step.number)
        return argument

    def answer(self, rng: Random) -> str:
        """In place, or under another name from the first line on."""
        name = self.parameter if rng.random() < 0.4 else rng.choice(RESULT_NAMES)
        value, lines = self.parameter, []
        for step in self.steps:
            for number in self.split(step, rng):
                lines.append(f"{name} = " + self.ops[step.op].code.format(v=value, n=number))
                value = name
        if rng.random() < 0.4:
            lines[-1] = "return " + lines[-1].removeprefix(f"{name} = ")
            return _body(lines)
        return _body([*lines, f"return {name}"])

    def split(self, step: Step, rng: Random) -> list[int]:
        """Return the step's number, or two that add up to it: halves by preference.

        Args:
            step: The step.
            rng: The source of randomness.
        """
        if not self.ops[step.op].in_two:
            return [step.number]
        first = preferred(rng, step.number // 2, range(1, step.number), step.number)
        return [first, step.number - first]


class IntChain(Chain):
    """Arithmetic on a number."""

    arguments, parameters, ops = INTS, INT_NAMES, INT_OPS


class ListChain(Chain):
    """Cuts, orders and extends a list."""

    arguments, parameters, ops = LISTS, LIST_NAMES, LIST_OPS


class StrChain(Chain):
    """Cuts and changes a text."""

    arguments, parameters, ops = STRINGS, STR_NAMES, STR_OPS


@dataclass(frozen=True)
class Branch(Function):
    """One expression where a condition holds, another where it doesn't."""

    arguments, parameters = INTS, INT_NAMES
    test_name: str
    limit: int
    branches: tuple[Step, Step]
    ops: ClassVar[dict[str, Op]] = {
        "same": Op(lambda v, n: v, ("{v}",), "{v}"),
        "add": Op(lambda v, n: v + n, ("{v} plus {n}",), "{v} + {n}"),
        "subtract": Op(lambda v, n: v - n, ("{v} minus {n}",), "{v} - {n}"),
        "multiply": Op(lambda v, n: v * n, ("{v} times {n}",), "{v} * {n}"),
        "negate": Op(lambda v, n: -v, ("minus {v}",), "-{v}"),
        "constant": Op(lambda v, n: n, ("{n}",), "{n}"),
    }

    @classmethod
    def draw_task(cls, rng: Random) -> tuple[str, int, tuple[Step, Step]]:
        then, other = (Step(name, rng.randint(2, 9), "") for name in rng.sample(list(cls.ops), 2))
        return rng.choice(list(TESTS)), rng.randint(2, 9), (then, other)

    def docstring(self, parameter: str) -> str:
        then, other = (self.ops[op].phrases[0].format(v=parameter, n=n) for op, n, _ in self.branches)
        condition = TESTS[self.test_name][1].format(n=self.limit)
        return f"Return {then} if {parameter} is {condition}, otherwise {other}."

    def expected(self, argument: Any) -> Any:
        step = self.branches[0 if TESTS[self.test_name][0](argument, self.limit) else 1]
        return self.ops[step.op].does(argument, step.number)

    def answer(self, rng: Random) -> str:
        then, other = (self.ops[op].code.format(v=self.parameter, n=n) for op, n, _ in self.branches)
        condition = TESTS[self.test_name][2].format(v=self.parameter, n=self.limit)
        match weighted(rng, {"else": 0.4, "early": 0.3, "expression": 0.3}):
            case "else":
                return _body([f"if {condition}:", f"    return {then}", "else:", f"    return {other}"])
            case "early":
                return _body([f"if {condition}:", f"    return {then}", f"return {other}"])
            case _:
                return _body([f"return {then} if {condition} else {other}"])


@dataclass(frozen=True)
class Fold(Function):
    """The items that pass a test, each changed, gathered into one value."""

    arguments, parameters = LISTS, LIST_NAMES
    gather: str
    test_name: str
    limit: int
    change: Step
    gathers: ClassVar[dict[str, tuple[Callable[[Any], Any], str, str, str, str]]] = {
        "sum": (sum, "the sum of", "0", "{out} += {e}", "sum({e} for {v} in {xs} if {c})"),
        "list": (list, "the list of", "[]", "{out}.append({e})", "[{e} for {v} in {xs} if {c}]"),
    }
    changes: ClassVar[dict[str, Op]] = {
        "same": Op(lambda v, n: v, ("the",), "{v}"),
        "square": Op(lambda v, n: v**2, ("the squares of the",), "{v} ** 2"),
        "multiply": Op(lambda v, n: v * n, ("{n} times the",), "{v} * {n}"),
        "add": Op(lambda v, n: v + n, ("{n} plus the",), "{v} + {n}"),
    }

    @classmethod
    def draw_task(cls, rng: Random) -> tuple[str, str, int, Step]:
        change = Step(rng.choice(list(cls.changes)), rng.randint(2, 9), "")
        return rng.choice(list(cls.gathers)), rng.choice(list(TESTS)), rng.randint(2, 12), change

    def docstring(self, parameter: str) -> str:
        condition = TESTS[self.test_name][1].format(n=self.limit)
        change = self.changes[self.change.op].phrases[0].format(n=self.change.number)
        return f"Return {self.gathers[self.gather][1]} {change} items of {parameter} that are {condition}."

    def expected(self, argument: Any) -> Any:
        passes, does = TESTS[self.test_name][0], self.changes[self.change.op].does
        return self.gathers[self.gather][0](does(v, self.change.number) for v in argument if passes(v, self.limit))

    def answer(self, rng: Random) -> str:
        item, out = rng.choice(ITEM_NAMES), rng.choice(RESULT_NAMES)
        condition = TESTS[self.test_name][2].format(v=item, n=self.limit)
        changed = self.changes[self.change.op].code.format(v=item, n=self.change.number)
        _, _, start, add, whole = self.gathers[self.gather]
        words = {"out": out, "e": changed, "v": item, "xs": self.parameter, "c": condition}
        if rng.random() < 0.4:
            return _body(["return " + whole.format(**words)])
        return _body(
            [
                f"{out} = {start}",
                f"for {item} in {self.parameter}:",
                f"    if {condition}:",
                "        " + add.format(**words),
                f"return {out}",
            ]
        )


@dataclass(frozen=True)
class Loop(Function):
    """A loop over the multiples of a number."""

    arguments, parameters = LIMITS, INT_NAMES
    factor: int
    start: int
    gather: str

    @classmethod
    def draw_task(cls, rng: Random) -> tuple[int, int, str]:
        return rng.randint(2, 15), rng.randint(0, 20), rng.choice(("list", "sum", "number"))

    def docstring(self, parameter: str) -> str:
        return f"Return the {self.gather} of all multiples of {self.factor} from {self.start} up to {parameter}."

    def expected(self, argument: Any) -> Any:
        found = [n for n in range(self.start, argument + 1) if n % self.factor == 0]
        return {"list": found, "sum": sum(found), "number": len(found)}[self.gather]

    def answer(self, rng: Random) -> str:
        item, out = rng.choice(ITEM_NAMES), rng.choice(RESULT_NAMES)
        start, add = {"list": ("[]", f"{out}.append({item})"), "sum": ("0", f"{out} += {item}")}.get(
            self.gather, ("0", f"{out} += 1")
        )
        span = f"range({self.start}, {self.parameter} + 1)"
        loop = [f"{out} = {start}", f"for {item} in {span}:", f"    if {item} % {self.factor} == 0:", f"        {add}"]
        return _body([*loop, f"return {out}"])


FUNCTIONS: tuple[type[Function], ...] = (IntChain, ListChain, StrChain, Branch, Fold, Loop)


def _body(lines: Sequence[str]) -> str:
    return "\n".join(f"    {line}" for line in lines)
