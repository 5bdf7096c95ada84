"""Filters: what is taken out of a model's text before it is scored. Plain functions, named in a task's YAML."""

from __future__ import annotations

import re

_LETTER = r"(?<![A-Za-z0-9])([A-D])(?![A-Za-z0-9'’])(?!(?<=A)\s+(?!(?:because|since|as|is|and|or)\b)[a-z])"
"""A capital that stands alone, without the article of `A train leaves`."""
_STANDALONE = re.compile(_LETTER)
_STATED = re.compile(r"(?i:\banswer)(?:\s+(?i:is|would be|choice|option)\b|\\boxed|[\s:=*_`$\"'({\[])*" + _LETTER)
_LEADING = re.compile(r"[\W_]*" + _LETTER + r"(?=\s*(?:$|[.):,;*\]}\n-]))")
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
_LISTING = re.compile(r"\bA[.):].*\bB[.):]", re.DOTALL)


def answer_letter(text: str) -> str:
    """The letter, A to D, that the text gives as its answer; empty when it gives none or several.

    The first that applies: the text is a single letter, in either case; it says `answer is` or `answer:` before a
    capital; it begins with a capital and punctuation, and is no list of the choices; exactly one capital stands alone
    in it (the article `A` does not count).
    """
    bare = re.sub(r"[\W_]+", "", text)
    if len(bare) == 1 and bare.upper() in "ABCD":
        return bare.upper()
    if stated := _STATED.search(text):
        return stated.group(1)
    if _LISTING.search(text):
        return ""
    if leading := _LEADING.match(text):
        return leading.group(1)
    letters = set(_STANDALONE.findall(text))
    return letters.pop() if len(letters) == 1 else ""


def whole(text: str) -> str:
    """Return the text without blanks at both ends."""
    return text.strip()


def last_number(text: str) -> str:
    """Return the last number in the text, without signs of currency and commas; empty where there is none."""
    found = _NUMBER.findall(text)
    return found[-1].replace(",", "") if found else ""


def matched(text: str, pattern: str) -> str:
    """Return the first group of a pattern's first match, or all of the match where it has no group; empty without."""
    found = re.search(pattern, text)
    return "" if found is None else found[1 if found.re.groups else 0] or ""
