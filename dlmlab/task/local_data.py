"""A data set's splits from local files in the format in which they are published on the hub or by their authors.

A file is the split that is scored. In a folder a split is a file that is called after it (`test.jsonl`,
`test-00000-of-00001.parquet`, `astronomy_test.csv`, `test/…`), below or beside others; a folder's only file is the
split that is scored. Where a data set has parts, such as MMLU's subjects, a file or its folder bears the part's name.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dlmlab.errors import UserError
from dlmlab.task.files import read_lines, read_text

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".csv", ".parquet")
LETTERS = "ABCD"


def read_split(path: Path, part: str | None, split: str, *, alone: bool) -> list[dict[str, Any]]:
    """Return a split's rows.

    Args:
        path: A file, or a folder.
        part: The data set's part, such as `astronomy`; one that no file is called after plays no role.
        split: Its name, such as `test`.
        alone: Whether a file that bears no split's name is this split, and whether the split must be there.

    Raises:
        UserError: There is no such file, several could be meant, or one is malformed; the message names the row.
    """
    if not path.exists():
        raise UserError(f"task.path={path} does not exist: name a file or folder")
    if path.is_file():
        return read_rows(path) if alone else []
    files = [file for file in sorted(path.rglob("*")) if file.is_file() and file.name.endswith(SUFFIXES)]
    own = [file for file in files if part and is_of(file.relative_to(path), part, split)] or files
    named = [file for file in own if bears(file.relative_to(path), split)]
    if not named and alone:
        if len(own) != 1:
            names = ", ".join(file.name for file in own[:5]) or "nothing that can be read"
            raise UserError(f"task.path={path} has no file of the {split!r} split but {names}: name one file")
        named = own
    rows = [row for file in named for row in read_rows(file)]
    if alone and not rows:
        raise UserError(f"task.path={path} has no row in its {split!r} split")
    return rows


def stem(file: Path) -> str:
    """Return a file's name without its endings."""
    return file.name.partition(".")[0]


def bears(file: Path, split: str) -> bool:
    """Return whether a file, or a folder above it, is called after a split.

    Args:
        file: A file below the given folder.
        split: The split's name.
    """
    name = stem(file)
    return split in file.parts[:-1] or name == split or name.startswith(f"{split}-") or name.endswith(f"_{split}")


def is_of(file: Path, part: str, split: str) -> bool:
    """Return whether a file is of a data set's part.

    Args:
        file: A file below the given folder.
        part: The part's name, such as a subject.
        split: The split's name.
    """
    return part in file.parts[:-1] or stem(file).removesuffix(f"_{split}") == part


def read_rows(file: Path) -> list[dict[str, Any]]:
    """Return a file's rows, all with the same fields. Raises UserError, naming the row, for one that is not."""
    if file.suffix == ".parquet":
        rows = _parquet(file)
    elif file.suffix == ".csv":
        rows = _csv(file)
    elif file.suffix == ".json":
        rows = _json(file)
    else:
        rows = [row for _, row in read_lines(file)]
    for number, row in enumerate(rows, 1):
        if missing := rows[0].keys() - row.keys():
            raise UserError(f"{file}, row {number}: no field {min(missing)!r}, which the first row has: mend it")
    return rows


def _json(file: Path) -> list[dict[str, Any]]:
    try:
        rows = json.loads(read_text(file))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: not JSON ({error})") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{file}: not a list of JSON objects")
    return rows


def _parquet(file: Path) -> list[dict[str, Any]]:
    import pyarrow
    from pyarrow import parquet

    try:
        rows: list[dict[str, Any]] = parquet.read_table(file).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{file} is not a readable parquet file: fetch it again ({str(error)[:80]})") from error
    return rows


def _csv(file: Path) -> list[dict[str, Any]]:
    """Rows under a header, or those of MMLU's original archive: question, four choices and the letter, without one."""
    try:
        lines = list(csv.reader(read_text(file).splitlines(keepends=True), strict=True))
    except csv.Error as error:
        raise UserError(f"{file}: not CSV ({error}): mend or fetch it again") from error
    if lines and len(lines[0]) == 6 and lines[0][5] in tuple(LETTERS):
        return [_classic(file, number, cells) for number, cells in enumerate(lines, 1)]
    header, *rest = lines or [[]]
    for number, cells in enumerate(rest, 2):
        if len(cells) != len(header):
            raise UserError(f"{file}, row {number}: {len(cells)} cells under a header of {len(header)}: mend it")
    return [dict(zip(header, cells, strict=True)) for cells in rest]


def _classic(file: Path, number: int, cells: Sequence[str]) -> dict[str, Any]:
    if len(cells) != 6 or cells[5] not in tuple(LETTERS):
        raise UserError(f"{file}, row {number}: not a question, four choices and a letter A to D: mend it")
    return {"question": cells[0], "choices": list(cells[1:5]), "answer": LETTERS.index(cells[5])}
