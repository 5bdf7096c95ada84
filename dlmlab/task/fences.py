"""Markdown's fences in an answer: where one piece of text ends and the next begins.

Which fence opens and which closes is not asked. An answer may begin inside a block, since its prompt opened one; a
fence may be glued to the last line of code, or stand behind a sentence. So every fence cuts, whatever stands between
two is a piece, and whether a piece is code is for `dlmlab.task.candidates` to find out.
"""

from __future__ import annotations

import re

from dlmlab.task.source import STRING, TRIPLE, indentation, split_lines

_FENCE = re.compile(r"`{3,}|~{3,}")
_TOKEN = re.compile(rf"\\.|\"\"\"|'''|{STRING}|`{{3,}}|~{{3,}}")
_INFO = re.compile(r"[ \t]*(?:[\w+#.-]*|\{[^{}]*\})[ \t]*$")
_LANGUAGE = re.compile(r"[ \t]*(?:python3?|py)\b[ \t]*", re.IGNORECASE)


def pieces(text: str, strings: bool = True) -> list[list[str]]:
    """Return the lines of each piece of a text, the first before any fence.

    Args:
        text: The text of an answer.
        strings: Whether a fence inside a string cuts nothing, as in a docstring with an example. An answer that leaves
            a string open by mistake has to be read without.
    """
    found: list[list[str]] = [[]]
    lines = split_lines(text)
    last = {quote: max((number for number, line in enumerate(lines) if quote in line), default=-1) for quote in TRIPLE}
    quote, margin = "", 0
    for number, whole in enumerate(lines):
        line = whole[min(margin, indentation(whole)) :]  # Markdown takes a fence's indentation off, in strings too
        cuts, quote = _cuts(line, quote if strings and number <= last.get(quote, -1) else "", strings)
        start = 0
        for begin, end in cuts:
            if begin >= start:
                if line[start:begin].strip():
                    found[-1].append(line[start:begin])
                elif start == 0:
                    margin = indentation(whole)
                found.append([])
                start = _behind(line, end)
        if start == 0 or line[start:].strip():
            found[-1].append(line[start:])
    return found


def _behind(line: str, end: int) -> int:
    """Return where a line goes on behind a fence: after what names the language, which may be all."""
    if info := _INFO.match(line, end):
        return info.end()
    language = _LANGUAGE.match(line, end)
    return language.end() if language else end


def _cuts(line: str, quote: str, strings: bool) -> tuple[list[tuple[int, int]], str]:
    """Return where a line's fences begin and end, and the triple quote that is open after it."""
    if not strings:
        return [fence.span() for fence in _FENCE.finditer(line)], ""
    cuts, at = list[tuple[int, int]](), 0
    while True:
        if quote:
            at = line.find(quote, at)
            if at < 0:
                return cuts, quote
            at, quote = at + len(quote), ""
        token = _TOKEN.search(line, at)
        if not token:
            return cuts, ""
        at = token.end()
        if token[0] in TRIPLE:
            quote = token[0]
        elif _FENCE.fullmatch(token[0]):
            cuts.append(token.span())
