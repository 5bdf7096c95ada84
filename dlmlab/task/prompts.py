"""Prompts of the user's own as a task whose answers have no score: from a command, a file, or a pipe."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlmlab.errors import UserError
from dlmlab.task.base import Item, fingerprint_items
from dlmlab.types import Generation

STDIN = "-"


@dataclass(frozen=True)
class Prompts:
    """Prompts, and how their canvases are filled.

    Attributes:
        given: The items; what stands beside a prompt in its line is in their `meta`.
        generation: The canvas and the schedule.
        name: What samples call the task.
        version: See `Task.version`.
    """

    given: Sequence[Item]
    generation: Generation
    name: str = "prompts"
    version: str = "1"

    @property
    def gen_length(self) -> int:
        return self.generation.gen_length

    @property
    def block_length(self) -> int:
        return self.generation.block_length

    @property
    def steps(self) -> int:
        return self.generation.steps

    @property
    def fingerprint(self) -> str:
        return fingerprint_items(self.given)

    def items(self) -> list[Item]:
        return list(self.given)

    def score(self, item: Item, text: str) -> None:
        """None: nobody knows the right answer."""


def read_prompts(source: str) -> list[Item]:
    """Read prompts, one a line; blank lines are skipped.

    Lines are text, or JSON where the file's name ends in `.jsonl`, and in a pipe where the first line is an object:
    an object with the text `prompt`, whose other keys are kept, or a string.

    Args:
        source: A file in UTF-8, or `-` for the standard input.

    Raises:
        UserError: It can't be read, a line has no prompt, or there is none.
    """
    lines = [(number, line) for number, line in enumerate(_text(source).splitlines(), 1) if line.strip()]
    if not lines:
        raise UserError(f"prompts={source} has no prompt: write one a line")
    as_json = lines[0][1].lstrip().startswith("{") if source == STDIN else Path(source).suffix == ".jsonl"
    name = "stdin" if source == STDIN else Path(source).name
    parsed = _objects(source, lines) if as_json else ((number, {"prompt": line.strip()}) for number, line in lines)
    return [Item(f"{name}/{number}", line.pop("prompt"), "", line) for number, line in parsed]


def _objects(source: str, lines: Sequence[tuple[int, str]]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The lines of a file of JSON, each with a prompt."""
    for number, line in lines:
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"prompts={source}, line {number}: no JSON ({error}): name a text file .txt") from error
        found = {"prompt": found} if isinstance(found, str) else found
        prompt = found.get("prompt") if isinstance(found, dict) else None
        if not isinstance(prompt, str) or not prompt.strip():
            raise UserError(f'prompts={source}, line {number}: no prompt: write {{"prompt": "…"}}')
        yield number, found


def _text(source: str) -> str:
    """All of a file, or of the standard input."""
    try:
        found = sys.stdin.buffer.read() if source == STDIN else Path(source).expanduser().read_bytes()
        return found.decode("utf-8-sig")
    except OSError as error:
        raise UserError(
            f"prompts={source} could not be read ({error.strerror}): name a file, or - for a pipe"
        ) from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(f"prompts={source}, line {line}: not UTF-8: save the file in UTF-8") from error
