"""Read a task's local data: one JSON object a line, plain or gzipped."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dlmlab.errors import UserError


def read_lines(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the JSON objects of a file's lines that aren't blank, each with its place in words.

    Raises:
        UserError: The file can't be read, or a line is no JSON object; the message names the line.
    """
    for number, line in enumerate(read_text(file).split("\n"), 1):
        if not line.strip():
            continue
        place = f"{file}, line {number}"
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{place}: not JSON ({error})") from error
        if not isinstance(value, dict):
            raise UserError(f"{place}: not a JSON object")
        yield place, value


def read_text(file: Path) -> str:
    """Return the text of a file in UTF-8, which may be gzipped. Raises UserError where it can't be read."""
    try:
        data = file.read_bytes()
        return (gzip.decompress(data) if file.suffix == ".gz" else data).decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{file} could not be read ({error.strerror or error}): name a .jsonl file") from error
    except (UnicodeDecodeError, EOFError, zlib.error) as error:
        raise UserError(f"{file} could not be read ({error}): name a .jsonl file in UTF-8") from error
