"""Runs as they lie on disk: what can be read of each, and in a line what is wrong with it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from dlmlab import manifest
from dlmlab.record.files import plain
from dlmlab.record.journal import MARK, decode
from dlmlab.record.report import RESULTS

SAMPLES, TRACES = "samples.jsonl", "traces.jsonl"
ERROR = "error.txt"
MARKS = {RESULTS, SAMPLES, manifest.NAME, ".hydra"}
"""A folder that holds one of these is a run's."""

State = Literal["finished", "unfinished", "older", "damaged"]

RESULTS_SHAPE: Mapping[str, type | tuple[type, ...]] = {
    "experiment": str, "title": str, "question": str, "labels": dict, "settings": dict, "summary": dict, "tables": list,
}  # fmt: skip
MANIFEST_SHAPE: Mapping[str, type | tuple[type, ...]] = {
    "started": str, "command": str, "config": dict, "git": (dict, type(None)), "model": (dict, type(None)),
    "data": dict, "machine": dict, "packages": dict,
}  # fmt: skip
SAMPLE_SHAPE: Mapping[str, type | tuple[type, ...]] = {
    "task": str, "decoder": str, "id": str, "prompt": str, "text": str, "tokens": list, "step_of": list,
    "forwards": (int, float), "score": (int, float, type(None)), "reason": str,
}  # fmt: skip
TRACE_SHAPE: Mapping[str, type | tuple[type, ...]] = {
    "task": str, "decoder": str, "id": str, "prompt": str, "gen_length": int, "block_length": int, "tokens": list,
    "steps": list,
}  # fmt: skip


@dataclass
class Run:
    """A run's folder as far as it can be read.

    name: its path below the folder that was searched. state: `finished`; `unfinished` without results; `older` where
    a file lacks what today's have; `damaged` where one can't be read. problem: why it isn't finished, in a line.
    """

    folder: Path
    name: str
    results: dict[str, Any] = field(default_factory=dict)
    manifest: dict[str, Any] = field(default_factory=dict)
    samples: list[dict[str, Any]] = field(default_factory=list)
    traces: list[dict[str, Any]] = field(default_factory=list)
    state: State = "finished"
    problem: str = ""

    def note(self, state: State, problem: str) -> None:
        """Remember what is wrong; the worst decides the state."""
        order: list[State] = ["finished", "unfinished", "older", "damaged"]
        self.state = max(self.state, state, key=order.index)
        self.problem = f"{self.problem}; {problem}" if self.problem else problem


def collect(folder: Path) -> list[Run]:
    """Every run at or below a folder, by name. Nothing that lies in one of them is an error."""
    return [read_run(each, folder) for each in sorted(find(folder))]


def find(folder: Path) -> Iterator[Path]:
    """The folders of runs. Links and hidden folders are not followed, nor what W&B keeps in a run."""
    for place, folders, files in os.walk(folder):
        if MARKS & {*folders, *files}:
            yield Path(place)
        folders[:] = [each for each in folders if not each.startswith(".") and each != "wandb"]


def read_run(folder: Path, top: Path) -> Run:
    """What a folder says."""
    run = Run(folder, str(folder.relative_to(top)))
    if (folder / RESULTS).exists():
        run.results = _object(run, RESULTS, RESULTS_SHAPE)
        run.manifest = _object(run, manifest.NAME, MANIFEST_SHAPE)
    else:
        run.note("unfinished", _reason(folder))
    run.samples = _lines(run, SAMPLES, SAMPLE_SHAPE)
    run.traces = _lines(run, TRACES, TRACE_SHAPE)
    return run


def _reason(folder: Path) -> str:
    try:
        return (folder / ERROR).read_text(encoding="utf-8", errors="replace").strip()[:500] or "it failed"
    except OSError:
        return f"no {RESULTS}: it is still running, was stopped, or failed"


def _object(run: Run, name: str, shape: Mapping[str, type | tuple[type, ...]]) -> dict[str, Any]:
    """A JSON file's keys that are of the right kind."""
    try:
        found = plain(json.loads((run.folder / name).read_text(encoding="utf-8", errors="replace")))
    except FileNotFoundError:
        run.note("older", f"{name} is missing")
        return {}
    except (OSError, ValueError, RecursionError) as error:
        run.note("damaged", f"{name} can't be read ({error})")
        return {}
    if not isinstance(found, dict):
        run.note("damaged", f"{name} holds no object")
        return {}
    if missing := [key for key in shape if key not in found]:
        run.note("older", f"{name} has no {', '.join(missing)}")
    if wrong := [key for key in shape if key in found and not isinstance(found[key], shape[key])]:
        run.note("damaged", f"{name} has something else under {', '.join(wrong)}")
    return {key: value for key, value in found.items() if key not in wrong}


def _lines(run: Run, name: str, shape: Mapping[str, type | tuple[type, ...]]) -> list[dict[str, Any]]:
    """A JSON-lines file's sound lines; the number of others is noted."""
    try:
        lines = (run.folder / name).read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        run.note("damaged", f"{name} can't be read ({error})")
        return []
    parsed = [_entry(line) for line in lines if line.strip()]
    found = [each for each in parsed if each and all(isinstance(each.get(key), kind) for key, kind in shape.items())]
    if broken := len(parsed) - len(found):
        run.note("damaged", f"{broken} of {len(parsed)} lines of {name} are damaged")
    return found


def _entry(line: bytes) -> dict[str, Any] | None:
    """The object of a line, whose checksum must fit where it has one; None for anything else."""
    try:
        found = decode(line) if MARK.encode() in line else json.loads(line.decode(errors="replace"))
    except (ValueError, RecursionError):
        return None
    return plain(found) if isinstance(found, dict) else None
