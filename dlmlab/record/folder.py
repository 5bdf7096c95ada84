"""The files of a run's folder: their names, and how they are read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import NoneType
from typing import Any

from dlmlab.errors import UserError
from dlmlab.record.files import parse_json, read_bytes
from dlmlab.record.journal import MARK, decode

RESULTS = "results.json"
MANIFEST = "manifest.json"
SAMPLES = "samples.jsonl"
LIKELIHOODS = "likelihoods.jsonl"
TRACES = "traces.jsonl"
TIMINGS = "timings.jsonl"
ERROR = "error.txt"
"""File in which a job that failed leaves the reason, in a line."""
UNFINISHED = "unfinished"
"""File of a run that has not ended well: locked while a process writes in the folder, and says which."""
MULTIRUN = "multirun.yaml"
"""File in the folder of a multirun that holds its config."""
OVERRIDES = Path(".hydra") / "overrides.yaml"
"""File in which Hydra lists the settings that a job was given beside the defaults."""

DAMAGE = (UserError, OSError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError)
"""Errors that arise from computing with values that are not as a run writes them."""

Shape = Mapping[str, type | tuple[type, ...]]
"""Types by dotted key. A key whose parent is null or missing is not checked."""

RESULTS_SHAPE: Shape = {
    "experiment": str, "title": str, "question": str, "labels": dict, "settings": dict, "summary": dict, "tables": list,
}  # fmt: skip
MANIFEST_SHAPE: Shape = {
    "started": str, "command": str, "config": dict, "git": (dict, NoneType), "model": (dict, NoneType),
    "data": dict, "machine": dict, "packages": dict,
}  # fmt: skip
OPTIONAL: Mapping[str, Shape] = {
    RESULTS: {"verdict": str, "points": list, "gates": list, "jobs": list},
    MANIFEST: {
        "ended": (str, NoneType), "torch": dict, "overrides": list, "resumes": list, "git.commit": str,
        "model.device": str, "machine.cpu": str, "machine.gpus": list,
    },
}  # fmt: skip
"""Keys that a file may lack; where it has them, they are of these types."""
SAMPLE_SHAPE: Shape = {
    "task": str, "decoder": str, "id": str, "prompt": str, "text": str, "tokens": list, "step_of": list,
    "forwards": (int, float), "score": (int, float, NoneType), "reason": str,
}  # fmt: skip
TRACE_SHAPE: Shape = {
    "task": str, "decoder": str, "id": str, "prompt": str, "gen_length": int, "block_length": int, "tokens": list,
    "steps": list,
}  # fmt: skip


def read_results(folder: Path) -> dict[str, Any]:
    """Return a run's results.json.

    Raises:
        UserError: It is missing, can't be read, lacks a key or has something else under one.
    """
    found = read_whole(folder / RESULTS, RESULTS_SHAPE)
    values: Shape = {"labels": str, "summary": (str, int, float, bool, NoneType)}
    if wrong := [key for key, kind in values.items() if not all(fits(each, kind) for each in found[key].values())]:
        raise UserError(f"{folder / RESULTS} is damaged: it has something else among its {' and '.join(wrong)}")
    return found


def read_manifest(folder: Path, needed: Iterable[str] = MANIFEST_SHAPE) -> dict[str, Any]:
    """Return a run's manifest.json.

    Args:
        folder: The run's.
        needed: The keys without which it is of no use.

    Raises:
        UserError: It is missing, can't be read, lacks one of those keys or has something else under any.
    """
    return read_whole(folder / MANIFEST, MANIFEST_SHAPE, needed)


def read_whole(path: Path, shape: Shape, needed: Iterable[str] | None = None) -> dict[str, Any]:
    """Return a JSON file's object, of the shape that is wanted.

    Args:
        path: The file, RESULTS or MANIFEST of a run's folder.
        shape: The types of its keys; those of OPTIONAL are checked as well.
        needed: The keys that may not be missing; None for all of the shape's.

    Raises:
        UserError: It can't be read, or is of any other shape.
    """
    found = read_object(path)
    if missing := [key for key in (shape if needed is None else needed) if key not in found]:
        raise UserError(f"{path} has no {', '.join(missing)}: it is damaged, or of another version of dlmlab")
    if wrong := [*misshapen(found, shape, path.name)]:
        raise UserError(f"{path} is damaged: it has something else under {', '.join(wrong)}")
    return found


def misshapen(found: Mapping[str, Any], shape: Shape, name: str) -> Iterator[str]:
    """Yield the keys of a file's object that are there and of another type.

    Args:
        found: The file's object.
        shape: The types of its keys.
        name: The file's name, RESULTS or MANIFEST, by which OPTIONAL has the types of further keys.
    """
    for key, kind in {**shape, **OPTIONAL[name]}.items():
        owner, _, last = key.rpartition(".")
        part = found.get(owner) if owner else found
        if isinstance(part, Mapping) and last in part and not fits(part[last], kind):
            yield key


def fits(value: Any, kind: type | tuple[type, ...]) -> bool:
    """Return whether a value is of one of the types. True and false are no numbers.

    Args:
        value: Anything that JSON has.
        kind: A type, or several; bool is asked for by name.
    """
    kinds = kind if isinstance(kind, tuple) else (kind,)
    return isinstance(value, kinds) and (not isinstance(value, bool) or bool in kinds)


def read_object(path: Path) -> dict[str, Any]:
    """Return a JSON file's object, in which numbers that are not finite are null. Raises UserError for any other."""
    found = read_json(path)
    if not isinstance(found, dict):
        raise UserError(f"{path} is damaged: it holds no object")
    return found


def read_json(path: Path) -> Any:
    """Return what a JSON file says. Raises UserError where that can't be read."""
    try:
        return parse_json(read_bytes(path))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise UserError(f"{path} cannot be read ({reason}): name the folder of a run") from error


def read_lines(path: Path, shape: Shape) -> tuple[list[dict[str, Any]], int]:
    """Return the sound lines of a JSON-lines file, and how many lines there are.

    Args:
        path: The file; it need not be there.
        shape: What a sound line has. Where a line carries a checksum, that fits too.

    Raises:
        OSError: The file is there and can't be read.
    """
    try:
        lines = [line for line in read_bytes(path).split(b"\n") if line.strip()]
    except FileNotFoundError:
        return [], 0
    entries = map(_entry, lines)
    sound = [each for each in entries if each and all(fits(each.get(key), kind) for key, kind in shape.items())]
    return sound, len(lines)


def _entry(line: bytes) -> dict[str, Any] | None:
    """Return the object of a line; None for anything else, and where it isn't what was written."""
    try:
        found = decode(line) if MARK.encode() in line else parse_json(line.decode(errors="replace"))
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
