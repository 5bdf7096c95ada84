"""The SQLite file of a memo: where it lies, how it is opened, and what to do where it can't be."""

from __future__ import annotations

import errno
import shlex
import sqlite3
from contextlib import closing
from pathlib import Path

from filelock import FileLock

from dlmlab.paths import home
from dlmlab.record.files import disk_of

APPLICATION = int.from_bytes(b"DLMm")
"""Number that tells a memo from other databases."""
BUSY_SECONDS = 60.0
"""Seconds that a write waits at most for another process's, which takes milliseconds."""


def default_path() -> Path:
    """Return the memo's file where memo_path doesn't name another."""
    return home() / "outputs" / "memo.sqlite"


def remedy(error: Exception, path: Path) -> str:
    """Return what to do about a memo that cannot be used.

    Args:
        error: What opening or using it raised, from SQLite or from the system.
        path: The memo's file.
    """
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # without what SQLite adds to it
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return "python -m dlmlab.memo clear" + ("" if path == default_path() else f" --path {shlex.quote(str(path))}")
    if code == sqlite3.SQLITE_FULL or getattr(error, "errno", None) == errno.ENOSPC:
        return f"free some space on {disk_of(path)}"
    return "set memo_path to a file that can be written, or memo=off"


def is_memo(path: Path) -> bool:
    """Return whether an existing file is a memo, maybe a damaged one. A file that is no database any more goes by its
    name.

    SQLite itself reads the file: were it opened and closed by anything else, the system would drop the locks that other
    connections of this process hold on it, and another process would take the journal away from under them.

    Raises:
        OSError: The file can't be read.
    """
    path.stat()
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as file:
            if file.execute("PRAGMA application_id").fetchone() == (APPLICATION,):
                return True
            return {name for [name] in file.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")} == {"memo"}
    except sqlite3.OperationalError as error:
        raise OSError(f"{path} can't be read: {error}") from error
    except sqlite3.DatabaseError:
        return path == default_path() or path.suffix == ".sqlite"


def connect(path: Path) -> sqlite3.Connection:
    """Open the file, and make it where there is none. A killed process loses nothing of it; a power cut the last
    seconds.

    Raises:
        sqlite3.Error: The file can't be used, or is something else.
        OSError: Likewise.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size and not is_memo(path):
        raise sqlite3.DatabaseError("it is no memo of dlmlab")
    with FileLock(f"{path}.lock", timeout=BUSY_SECONDS):  # SQLite doesn't wait while the journal's kind is changed
        file = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
        if file.execute("PRAGMA application_id").fetchone() != (APPLICATION,):
            file.execute(f"PRAGMA application_id = {APPLICATION}")  # before WAL: `is_memo` doesn't read that
        file.execute("PRAGMA journal_mode = WAL")
        file.execute("PRAGMA synchronous = NORMAL")
        file.execute("CREATE TABLE IF NOT EXISTS memo (key BLOB PRIMARY KEY, value BLOB NOT NULL)")
    return file


def used_bytes(file: sqlite3.Connection) -> int:
    """Return the bytes of the file's pages that hold something."""
    pages, free, size = (
        file.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)
