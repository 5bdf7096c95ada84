"""Python source that may be broken, line by line: where strings are open, how lines are indented.

A model's answer is prose and code at once, so that no parser reads it as a whole. What is here looks at lines, and
never touches what stands inside a string of several lines.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

TAB = 4
"""Columns of a tab in indentation; models mix the two as editors show them."""
TRIPLE = ('"""', "'''")
STRING = r"\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'"
_TOKEN = re.compile(rf"\\.|#.*|\"\"\"|'''|{STRING}|[()\[\]{{}}]")


class State(NamedTuple):
    """What is open at the end of a line: a string's triple quote, empty when none, and a number of brackets."""

    quote: str = ""
    depth: int = 0


def split_lines(text: str) -> list[str]:
    """Return the lines of a text as Python's tokenizer counts them: U+2028 and its kin end none."""
    return re.split(r"\r\n|\r|\n", text)


def scan(line: str, state: State) -> State:
    """Return what is open after a line, given what is open before it.

    Args:
        line: A line of source.
        state: What is open before it: brackets, strings.
    """
    (quote, depth), at = state, 0
    while True:
        if quote:
            at = _closing(line, quote, at)
            if at < 0:
                return State(quote, depth)
            quote = ""
        token = _TOKEN.search(line, at)
        if not token:
            return State("", depth)
        at = token.end()
        if token[0] in TRIPLE:
            quote = token[0]
        elif token[0] in ("(", "[", "{"):
            depth += 1
        elif token[0] in (")", "]", "}"):
            depth = max(0, depth - 1)


def in_string(lines: Sequence[str]) -> list[bool]:
    """Return whether each line begins inside a string; a triple quote that is never closed opens none."""
    last = {quote: max((number for number, line in enumerate(lines) if quote in line), default=-1) for quote in TRIPLE}
    inside, state = [], State()
    for number, line in enumerate(lines):
        inside.append(bool(state.quote))
        state = scan(line, State(state.quote))
        if state.quote and last[state.quote] <= number:
            state = State()
    return inside


def indentation(line: str) -> int:
    """Return the number of leading blanks."""
    return len(line) - len(line.lstrip(" \t\f"))


def expand_tabs(lines: Sequence[str]) -> list[str]:
    """Return the lines with blanks for the tabs of their indentation."""

    def expanded(line: str) -> str:
        width = indentation(line)
        return line[:width].replace("\f", "").expandtabs(TAB) + line[width:]

    return [line if inside else expanded(line) for line, inside in zip(lines, in_string(lines), strict=True)]


def shift(lines: Sequence[str], columns: int) -> list[str]:
    """Return the lines indented by so many columns more, or less where the number is negative.

    Args:
        lines: Lines of source.
        columns: How many columns.
    """

    def shifted(line: str) -> str:
        return " " * columns + line if columns > 0 else line[min(-columns, indentation(line)) :]

    strings = in_string(lines)
    return [line if inside or not line.strip() else shifted(line) for line, inside in zip(lines, strings, strict=True)]


def _closing(line: str, quote: str, at: int) -> int:
    """Return the column behind a string's closing quote, -1 where the line has none."""
    found = re.compile(rf"(?:\\.|(?!{quote})[^\\])*{quote}").match(line, at)
    return found.end() if found else -1
