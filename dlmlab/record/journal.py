"""A file of JSON lines that only grows. Each line carries its checksum, so that what a kill or a disk did is seen."""

from __future__ import annotations

import json
import logging
import os
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dlmlab.record.files import name, parse_json, plain, read_bytes, visible, write_text

log = logging.getLogger(__name__)

MARK = ', "crc32": "'


class Journal:
    """The entries that a run has written so far. One process writes it at a time (`dlmlab.run.resume.claim`).

    Attributes:
        path: The file.
        entries: The sound entries, in the order in which they were written.
        damaged: The number of lines that are cut off or changed.
    """

    def __init__(self, path: Path):
        self.path = path
        self.entries: list[dict[str, Any]] = []
        self.damaged = 0
        for line in read_bytes(path).splitlines(keepends=True) if path.exists() else []:
            entry = decode(line)
            if entry is None:
                self.damaged += 1
            else:
                self.entries.append(entry)

    def warn(self, consequence: str) -> None:
        """Warn in one line on stderr of damaged lines, if there are any, and say what follows from that."""
        if self.damaged:
            what = f"{self.damaged} of {self.damaged + len(self.entries)} lines are damaged"
            log.warning(visible(f"{self.path}: {what}: {consequence}"))

    def append(self, entry: Mapping[str, Any]) -> None:
        """Add an entry; no kill loses it once this returns.

        Raises:
            OSError: The entry can't be written; the file is then as it was.
        """
        with self.path.open("ab", buffering=0) as file:
            end = file.tell()
            text = encode(entry)
            rest = memoryview(text if _ends_in_newline(self.path, end) else b"\n" + text)
            try:
                while rest:
                    rest = rest[file.write(rest) :]
            except OSError as error:
                os.truncate(self.path, end)
                name(error, self.path)
                raise
        self.entries.append(dict(entry))

    def rewrite(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Replace the whole content at once.

        Raises:
            OSError: The content can't be written; the file is then as it was.
        """
        write_text(self.path, b"".join(map(encode, entries)).decode())


def encode(entry: Mapping[str, Any]) -> bytes:
    """Return an entry as a line, with its checksum."""
    text = json.dumps(plain(entry), ensure_ascii=False)
    return f'{text[:-1]}{MARK}{zlib.crc32(text.encode()):08x}"}}\n'.encode()


def decode(line: bytes) -> dict[str, Any] | None:
    """Return the entry of a line; None where it is cut off or not what was written."""
    body, mark, tail = line.rpartition(MARK.encode())
    text = body + b"}"
    if not mark or tail.removesuffix(b"\n") != f'{zlib.crc32(text):08x}"}}'.encode():
        return None
    try:
        entry = parse_json(text)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None


def _ends_in_newline(path: Path, end: int) -> bool:
    with path.open("rb") as file:
        file.seek(max(0, end - 1))
        return file.read() in (b"", b"\n")
