"""Functions of 8 to 25 lines: a list goes through stages, each a loop over what the one before has left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, NamedTuple

from dlmlab.task.tiny.code import LIST_NAMES, LISTS, Function, Op

TESTS: dict[str, tuple[Callable[[int, int], bool], str, str]] = {
    "odd": (lambda v, n: v % 2 == 1, "odd", "{v} % 2 == 1"),
    "even": (lambda v, n: v % 2 == 0, "even", "{v} % 2 == 0"),
    "above": (lambda v, n: v > n, "greater than {n}", "{v} > {n}"),
    "below": (lambda v, n: v < n, "less than {n}", "{v} < {n}"),
    "divisible": (lambda v, n: v % n == 0, "divisible by {n}", "{v} % {n} == 0"),
}
CHANGES: dict[str, Op] = {
    "add": Op(lambda v, n: v + n, ("add {n} to {it}",), "{v} + {n}"),
    "subtract": Op(lambda v, n: v - n, ("subtract {n} from {it}",), "{v} - {n}"),
    "multiply": Op(lambda v, n: v * n, ("multiply {it} by {n}",), "{v} * {n}"),
    "negate": Op(lambda v, n: -v, ("negate {it}",), "-{v}"),
}
ENDS: dict[str, tuple[Callable[[list[int]], Any], str, tuple[str, ...]]] = {
    "sum": (sum, "Return their sum.", ("{out} = 0", "for {v} in {xs}:", "    {out} += {v}", "return {out}")),
    "number": (len, "Return how many they are.", ("{out} = 0", "for {v} in {xs}:", "    {out} += 1", "return {out}")),
    "reversed": (
        lambda xs: xs[::-1],
        "Return them in reverse.",
        ("{out} = []", "for {v} in {xs}:", "    {out} = [{v}] + {out}", "return {out}"),
    ),
    "largest": (
        lambda xs: max([0, *xs]),
        "Return the largest, at least 0.",
        ("{out} = 0", "for {v} in {xs}:", "    if {v} > {out}:", "        {out} = {v}", "return {out}"),
    ),
}
LISTS_OF_STAGES = ("first", "second", "third")
ITEMS = ("v", "i", "item", "value")
OUTS = ("result", "out", "total", "y")


class Stage(NamedTuple):
    """What happens to the items for which a test holds, and to the others.

    Attributes:
        test: The name of the test in `TESTS`.
        limit: The test's number.
        then: What changes the items for which it holds, a name of `CHANGES` with its number; None leaves them out.
        other: Likewise for the others.
    """

    test: str
    limit: int
    then: tuple[str, int] | None
    other: tuple[str, int] | None

    @property
    def told(self) -> str:
        """Return the stage as the docstring says it."""
        which = TESTS[self.test][1].format(n=self.limit)
        if self.then is None:
            return f"Drop the items that are {which}."
        if self.other is None:
            return f"Keep the items that are {which}, and {_phrase(self.then, 'each')}."
        return f"If an item is {which}, {_phrase(self.then)}, else {_phrase(self.other)}."

    def does(self, items: Sequence[int]) -> list[int]:
        """Return what is left of a list."""
        if self.then is None:
            return [item for item in items if not self._holds(item)]
        changes = [(self.then if self._holds(item) else self.other, item) for item in items]
        return [CHANGES[change[0]].does(item, change[1]) for change, item in changes if change is not None]

    def lines(self, before: str, after: str, item: str) -> list[str]:
        """Return the stage's loop over the list `before`, which fills the list `after`.

        Args:
            before: Name of the list that is read.
            after: Name of the list that is filled.
            item: The loop's variable.
        """
        condition = TESTS[self.test][2].format(v=item, n=self.limit)
        if self.then is None:
            kept = [f"    if not {condition}:", f"        {after}.append({item})"]
        else:
            kept = [f"    if {condition}:", f"        {after}.append({_code(self.then, item)})"]
        if self.other is not None:
            kept += ["    else:", f"        {after}.append({_code(self.other, item)})"]
        return [f"{after} = []", f"for {item} in {before}:", *kept]

    def _holds(self, item: int) -> bool:
        return TESTS[self.test][0](item, self.limit)


def _phrase(change: tuple[str, int], what: str = "it") -> str:
    return CHANGES[change[0]].phrases[0].format(n=change[1], it=what)


def _code(change: tuple[str, int], item: str) -> str:
    return CHANGES[change[0]].code.format(v=item, n=change[1])


@dataclass(frozen=True)
class Program(Function):
    """One to three stages, then one value of all that is left. Names of one's choice must agree over many lines."""

    arguments, parameters = LISTS, LIST_NAMES
    stages: tuple[Stage, ...]
    end: str

    @classmethod
    def draw_task(cls, rng: Random) -> tuple[tuple[Stage, ...], str]:
        return tuple(_stage(rng) for _ in range(rng.randint(1, 3))), rng.choice(list(ENDS))

    def docstring(self, parameter: str) -> str:
        told = [stage.told for stage in self.stages]
        return " ".join((f"Go through {parameter}.", *told, ENDS[self.end][1]))

    def expected(self, argument: Any) -> Any:
        for stage in self.stages:
            argument = stage.does(argument)
        return ENDS[self.end][0](argument)

    def answer(self, rng: Random) -> str:
        """One item's name and one result's, the same all the way."""
        item, out, before = rng.choice(ITEMS), rng.choice(OUTS), self.parameter
        lines = list[str]()
        for stage, after in zip(self.stages, LISTS_OF_STAGES, strict=False):
            lines += stage.lines(before, after, item)
            before = after
        lines += [line.format(out=out, v=item, xs=before) for line in ENDS[self.end][2]]
        return "\n".join(f"    {line}" for line in lines)


def _stage(rng: Random) -> Stage:
    change, other = ((name, rng.randint(2, 9)) for name in rng.sample(list(CHANGES), 2))
    test, limit = rng.choice(list(TESTS)), rng.randint(2, 9)
    match rng.choice(("drop", "keep", "branch")):
        case "drop":
            return Stage(test, limit, None, None)
        case "keep":
            return Stage(test, limit, change, None)
        case _:
            return Stage(test, limit, change, other)
