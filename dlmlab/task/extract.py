"""Filters: what is taken out of a model's text before it is scored. Plain functions, named in a task's YAML.

The rule of `answer_letter`, of which the first line that applies decides:

1. The text is a single letter, in either case and whatever punctuation.
2. It states an answer: `answer is B`, `answer: b`, `boxed{B}`, `I choose B`, `B is correct`. The last statement counts.
3. It begins with a letter and punctuation, `B.` or `b)`, or `B because`.
4. Exactly one capital stands alone in it.

A statement or a beginning of several letters (`A and B`, `A or B`) credits nothing. A letter that is denied (`not A`,
`A is wrong`) is as if it weren't there, and so is the article of `A train leaves`. What follows `no wait`, `sorry` and
the like counts before what they take back, where 2 or 3 applies to it. A repeated list of the choices is left out.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_OPEN = r"(?:\\(?:boxed|text|textbf|mathbf|mathrm)|[\s:=*_`$\"'“”‘’({\[]){0,12}"
_CLOSE = r"[*_`$\"'”’)}\]]{0,12}"
_GOES_ON = r"(?:because|since|as|is|was|and|or|but|which|due|for)\b"
_MENTION = re.compile(
    rf"{_OPEN}(?i:(?:both|either|option|choice|letter)\b{_OPEN}){{0,3}}"
    r"(?<![A-Za-z0-9])(?<!\b[A-Z]\.)(?:(?P<capital>[A-D])(?![A-Za-z0-9])(?![+#]|['’][A-Za-z]|\.[A-Z]\.)"
    rf"(?!(?<=A)\s+(?!{_GOES_ON})[a-z])"
    r"|(?P<small>[a-d])(?!['’][A-Za-z]|\.[a-z])"
    r"(?=[ \t]*(?:$|[\n.,;:!?)\]}*_`$\"'’”]|(?:because|since|and|or|but|is (?:correct|right|the))\b)))"
    rf"{_CLOSE}"
)
"""A letter that stands alone, with what it is wrapped in. A small one must end its phrase: `is b.`, `is a prime`."""
_JOIN = re.compile(
    r"\s{0,4}(?:,?\s{0,4}(?:and/or|and|or|nor)\b(?:\s+(?:also|even|maybe|perhaps|possibly)\b)?|[,/&+])"
    r"|[ \t](?=[A-D]\W?$)"
)
_CLAUSE = re.compile(r"\s+(?:is|was|isn['’]t|has|does|can|cannot|would|says)\b")

_ANSWER = re.compile(
    r"(?i)\\boxed|\banswers?(?:(?:\s+(?!cannot|never|not\b|neither)\w+){0,6}?\s+(?:is|are|was|be))?(?:\s+(?:therefore|thus|clearly|indeed|probably))?(?!\w)"
    r"|\b(?:choose|chose|pick|select|go with|opt for)\b"
)
_RIGHT = re.compile(
    r"\s+(?:is|are|must be|seems|looks)(?:\s+(?:the|a|both|indeed|clearly|definitely|most|only|also))*"
    r"\s+(?:correct|right|best|answers?)\b(?!\s+(?:only|if|for|when)\b)"
)
_WRONG = re.compile(
    r"(?:\s+(?:is|are|was|were|can|could|does|do|would|seems?|looks?))?\s*"
    r"(?:n['’]t\b|\bnot\b|\bnever\b|\bcannot\b|\bincorrect\b|\bwrong\b|\bfalse\b|\bruled out\b|\beliminated\b)"
)
_DENYING = re.compile(
    r"(?i)(?:\b(?:not|cannot|never|neither|nor|except|exclud\w+|eliminat\w+|rul\w+ out|rather than|instead of)|n['’]t)"
    r"(?:\s+(?:be|the|correct|right|answer))*$"
)
_REACH = 60
"""Characters before a letter in which it may be denied."""
_TAKEN_BACK = re.compile(
    r"(?i)\b(?:no,? wait|wait,? no|wait|scratch that|correction|on second thoughts?|sorry|I mean)\b|(?<=\?) no\b"
)
_ENDS = re.compile(r"[ \t]*(?:$|[\n.):,;*\]}!]|[-–—](?![^\W\d_])|(?:because|since|as)\b)")
_BULLET = r"[ \t>*_-]*\(?"
_CHOICES = re.compile(
    rf"^{_BULLET}[Aa][*_]*[.):].*\n\s*{_BULLET}[Bb][*_]*[.):].*"
    rf"(?:\n\s*{_BULLET}[Cc][*_]*[.):].*)?(?:\n\s*{_BULLET}[Dd][*_]*[.):].*)?",
    re.MULTILINE,
)
"""The choices repeated, a line each."""
_MARK = re.compile(rf"^{_BULLET}[A-Da-d][*_]*[.):]", re.MULTILINE)
_IN_A_LINE = re.compile(r"\A[^A]*(?:A(?![.):])[^A]*)*A[.):].*?\bB[.):]", re.DOTALL)


class _Group(NamedTuple):
    """Letters that are named together, as in `A, B or C`.

    end: where in the text they end. capital: the first is one.
    """

    letters: str
    end: int
    capital: bool


def answer_letter(text: str) -> str:
    """Return the letter, A to D, that the text gives as its answer; empty when it gives none or several."""
    bare = re.sub(r"[\W_]+", "", text)
    if len(bare) == 1 and bare.upper() in "ABCD":
        return bare.upper()
    for part in reversed(_TAKEN_BACK.split(text)):
        letters = _stated(part) or _leading(part)
        if letters:
            return letters if len(letters) == 1 else ""
    return _only(text)


def _stated(text: str) -> str:
    """Return the letters of the last statement of an answer."""
    text = _CHOICES.sub(lambda choices: _MARK.sub("", choices[0]), text)
    stated = {}
    for found in _ANSWER.finditer(text):
        group = _group(text, found.end())
        if group and not _WRONG.match(text, group.end):
            stated[found.end()] = group.letters
    for start, group in _groups(text):
        if _RIGHT.match(text, group.end) and not _denied(text, start, group):
            stated[start] = group.letters
    return stated[max(stated)] if stated else ""


def _leading(text: str) -> str:
    """Return the letters that the text begins with, unless it goes on as a sentence or lists the choices."""
    text = _CHOICES.sub("", text)
    start = len(text) - len(text.lstrip(" \t\n\r.,;:!?-–—>#"))
    group = None if _IN_A_LINE.search(text) else _group(text, start)
    if group is None or _WRONG.match(text, group.end):
        return ""
    closed = text[group.end - 1] in ")]}*"
    return group.letters if closed or len(group.letters) > 1 or _ENDS.match(text, group.end) else ""


def _only(text: str) -> str:
    """The one capital that stands alone in the text and isn't denied."""
    text = _CHOICES.sub("", text)
    affirmed = [group for start, group in _groups(text) if group.capital and not _denied(text, start, group)]
    letters = {letter for group in affirmed for letter in group.letters}
    return letters.pop() if len(letters) == 1 else ""


def _groups(text: str) -> list[tuple[int, _Group]]:
    """Return all groups of the text, each with where it begins."""
    groups, at = [], 0
    while mention := _MENTION.search(text, at):
        group = _group(text, mention.start())
        assert group
        groups.append((mention.start(), group))
        at = group.end
    return groups


def _group(text: str, at: int) -> _Group | None:
    """Return the letters that stand at a position, joined by commas, `and`, `or`; None where none does."""
    letters, end, capital = "", at, False
    while mention := _MENTION.match(text, at):
        if letters and _CLAUSE.match(text, mention.end()):  # `B, A is wrong` is two statements
            break
        letter = (mention["capital"] or mention["small"]).upper()
        capital = capital or (not letters and bool(mention["capital"]))
        letters, end = letters + letter if letter not in letters else letters, mention.end()
        join = _JOIN.match(text, end)
        if not join:
            break
        at = join.end()
    return _Group(letters, end, capital) if letters else None


def _denied(text: str, start: int, group: _Group) -> bool:
    return bool(_WRONG.match(text, group.end) or _DENYING.search(text, max(0, start - _REACH), start))


_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


def whole(text: str) -> str:
    """Return the text without blanks at both ends."""
    return text.strip()


def last_number(text: str) -> str:
    """Return the last number in the text, without signs of currency and commas; empty where there is none."""
    found = _NUMBER.findall(text)
    return found[-1].replace(",", "") if found else ""


def matched(text: str, pattern: str) -> str:
    """Return the first group of a pattern's first match, or all of the match where it has no group; empty without.

    Args:
        text: A text.
        pattern: A regular expression.
    """
    found = re.search(pattern, text)
    return "" if found is None else found[1 if found.re.groups else 0] or ""
