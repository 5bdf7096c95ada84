"""Write files so that a kill, a full disk or a second process leaves either the old content or the new one."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import math
import os
import secrets
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

LOCK_SECONDS = 60.0
"""How long an append waits for another process's; a write takes milliseconds."""
MOST_DIGITS = 20
"""Most digits of a whole number that is read; one with more is taken as a float."""
DEEPEST = 100
"""Levels of the deepest JSON that is read; Python's own bound differs between its versions."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path to write to; its file replaces the target at once when the block ends."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield draft
        draft.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        name(error, path)
        raise


def write_text(path: Path, text: str) -> None:
    """Replace a file's content at once. Lone surrogates, such as bytes of an argument, are written as escapes.

    Args:
        path: The file, in a folder that is there.
        text: Its new content, written as UTF-8.

    Raises:
        OSError: That can't be done; the file is left as it was.
    """
    with replacing(path) as draft, draft.open("x", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def write_json(path: Path, value: object) -> None:
    """Replace a file's content by a value, as indented JSON.

    Args:
        path: The file, in a folder that is there.
        value: The new content; see `plain` for what may be in it.
    """
    write_text(path, json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def append_text(path: Path, text: str, header: str = "") -> None:
    """Append whole lines to a file; processes that do so at once take turns.

    Args:
        path: The file, which is made, with its folder, where it isn't there.
        text: The lines, each with its newline.
        header: What begins a file that is new, its newline included.

    Raises:
        OSError: That can't be done; the file is left as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock", timeout=LOCK_SECONDS), path.open("ab", buffering=0) as file:
        end = file.tell()
        rest = memoryview(((_torn(path, end) if end else header) + text).encode(errors="backslashreplace"))
        try:
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
        except OSError as error:
            os.truncate(path, end)
            name(error, path)
            raise


def read_bytes(path: Path) -> bytes:
    """Return a file's content.

    Raises:
        OSError: It can't be read, or is a pipe or a device, which might never end.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return path.read_bytes()


def parse_json(text: str | bytes) -> Any:
    """Return what a JSON text says; a number that a machine's float can't hold is null.

    Raises:
        ValueError: It is no JSON, or is nested deeper than anything that the project writes.
        RecursionError: It is nested too deeply for Python's parser.
    """
    found = json.loads(text, parse_int=_whole, parse_float=_finite, parse_constant=lambda _: None)
    opened = text.count("[") + text.count("{") if isinstance(text, str) else text.count(b"[") + text.count(b"{")
    if opened > DEEPEST:
        _check_depth(found)
    return found


def _check_depth(found: Any) -> None:
    level = [found]
    for _ in range(DEEPEST):
        inside = (each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list))
        level = [part for parts in inside for part in parts if isinstance(part, dict | list)]
        if not level:
            return
    raise ValueError(f"it is nested more than {DEEPEST} deep")


def _whole(text: str) -> int | float | None:
    return int(text) if len(text) <= MOST_DIGITS else _finite(text)


def _finite(text: str) -> float | None:
    return value if math.isfinite(value := float(text)) else None


def visible(text: str) -> str:
    """Return a text in one line without anything that acts on a terminal or hides: that becomes an escape."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def name(error: BaseException, path: Path) -> None:
    """Let an error that came from an open file say which.

    Args:
        error: The error, changed in place; anything but an OSError without a file's name stays as it is.
        path: The file.
    """
    if isinstance(error, OSError) and not error.filename:
        error.filename = str(path)


def free_space(error: OSError) -> str:
    """Return what to do about a full disk, by its name; empty for any other error."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not error.filename:
        return ""
    return f"; free some space on {disk_of(Path(os.fsdecode(error.filename)))}"


def disk_of(path: Path) -> Path:
    """Return where the disk of a path is mounted."""
    place = path.absolute()
    return next((each for each in (place, *place.parents) if each.is_mount()), Path("/"))


def _torn(path: Path, end: int) -> str:
    """Return the newline that a file lacks where its last append was cut off."""
    with path.open("rb") as file:
        file.seek(end - 1)
        return "" if file.read() == b"\n" else "\n"


def plain(value: Any) -> Any:
    """A value in JSON's own types. Numbers that are not finite become null; anything unknown becomes its text."""
    if isinstance(value, str | bool | int | None):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, Sequence):
        return [plain(each) for each in value]
    return plain(value.tolist()) if hasattr(value, "tolist") else str(value)
