"""What a setting may be, and what is said where it isn't."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import pytest

from dlmlab.errors import UserError
from dlmlab.settings import (
    MOST,
    Fraction,
    Limits,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    Seed,
    check_fields,
    faults,
    fits,
    kinds_of,
    list_of,
    one_of,
)

FITS: list[tuple[Any, list[Any], list[Any]]] = [
    (Fraction, [0, 1, 0.5, -0.0], [1.5, -1e-9, float("nan"), True, "0.5", None, [0.5]]),
    (NonNegativeFloat, [0, 1e9, MOST], [-1, float("inf"), 1e99, 10**400, float("nan")]),
    (PositiveInt, [1, MOST], [0, 1.0, True, MOST + 1, "1"]),
    (NonNegativeInt, [0, 3], [-1, 0.0]),
    (Seed, [0, 2**63 - 1], [-1, 2**63]),
    (float, [1, -2.5], [float("inf"), float("-inf"), "1", True]),
    (int, [-3], [1.0, False]),
    (bool, [True, False], [0, 1, "true", None]),
    (str, ["", "a"], [1, None, ["a"]]),
    (PositiveInt | None, [None, 1], [0, "null"]),
    (one_of(("a", 1)), ["a", 1], ["b", True, 1.0]),
    (list[Fraction], [[], [1], (0.5,)], ["0.5", [2], None]),
    (list_of(Fraction), [[1]], [[]]),
    (Sequence[str], [["a"]], ["a", [1]]),
    (dict[str, NonNegativeFloat], [{}, {"a": 1}], [{"a": -1}, [], None]),
    (Callable[[str], str], [len, None, 3], []),  # a kind that is not known takes anything
]


@pytest.mark.parametrize(("kind", "right", "wrong"), FITS, ids=[str(kind) for kind, _, _ in FITS])
def test_values_are_of_a_kind_or_not(kind, right, wrong):
    assert [value for value in right if not fits(value, kind)] == []
    assert [value for value in wrong if fits(value, kind)] == []


@pytest.mark.parametrize(
    ("value", "kind", "said"),
    [
        (2, Fraction, ["k=2 is not a number between 0 and 1"]),
        (0, PositiveInt, ["k=0 is not a positive integer"]),
        (-1, NonNegativeInt | None, ["k=-1 is not a whole number, 0 or more or null"]),
        (MOST + 1, PositiveInt, [f"k={MOST + 1} is not a positive integer, {MOST} at most"]),
        (1, Annotated[int, Limits(2)], ["k=1 is not a whole number of at least 2"]),
        ("fiel", one_of(("file", "net")), ["k='fiel' is not one of file, net; did you mean file?"]),
        ("yes", bool, ["k='yes' is not true or false"]),
        ([], list_of(str), ["k=[] is not a non-empty list, each text"]),
        ([1, 0, "a"], list_of(PositiveInt) | None, [f"k has {v!r}, which is not a positive integer" for v in (0, "a")]),
        ({"a": 1, "b": -1}, dict[str, NonNegativeFloat], ["k.b=-1 is not a number of at least 0"]),
        (1, Fraction, []),
    ],
)
def test_a_line_says_key_value_and_what_is_allowed(value, kind, said):
    assert faults("k", value, kind) == said


@dataclass
class Example:
    share: Fraction
    count: PositiveInt = 1
    known: ClassVar[str] = ""


def test_fields_are_checked_together():
    check_fields(Example(0.5))
    with pytest.raises(UserError) as error:
        check_fields(Example(2, 0), "here.")
    assert error.value.args == (
        "here.share=2 is not a number between 0 and 1",
        "here.count=0 is not a positive integer",
    )
    assert list(kinds_of(Example)) == ["share", "count"]
