"""Read runs as they lie on disk: what can be read of each, and in a line what is wrong with it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from dlmlab.record.files import parse_json, read_bytes
from dlmlab.record.folder import (
    ERROR,
    MANIFEST,
    MANIFEST_SHAPE,
    RESULTS,
    RESULTS_SHAPE,
    SAMPLE_SHAPE,
    SAMPLES,
    TRACE_SHAPE,
    TRACES,
    Shape,
    misshapen,
    read_lines,
)
from dlmlab.record.samples import TOLD

MARKS = {RESULTS, SAMPLES, MANIFEST, ".hydra"}
"""Names of files and folders by which a run's folder is known: it holds at least one of them."""

State = Literal["finished", "unfinished", "older", "damaged"]


@dataclass
class Run:
    """A run's folder as far as it can be read.

    Attributes:
        folder: The folder.
        name: The folder's path below the folder that was searched.
        results: The content of results.json.
        manifest: The content of manifest.json.
        samples: The samples that can be read.
        traces: The traces that can be read.
        state: `finished`; `unfinished` without results; `older` where a file lacks what today's have; `damaged` where
            one can't be read.
        problem: Why the run isn't finished, in a line.
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
        """Note a problem; the worst decides the state.

        Args:
            state: The state that the problem puts the run in.
            problem: The problem in a line, which follows those noted before.
        """
        order: list[State] = ["finished", "unfinished", "older", "damaged"]
        self.state = max(self.state, state, key=order.index)
        self.problem = f"{self.problem}; {problem}" if self.problem else problem


def collect(folder: Path) -> list[Run]:
    """Return every run at or below a folder, by name. Nothing that lies in one of them is an error."""
    return [read_run(each, folder) for each in sorted(find(folder))]


def find(folder: Path) -> Iterator[Path]:
    """Yield the folders of runs. Links and hidden folders are not followed, nor what W&B keeps in a run."""
    for place, folders, files in os.walk(folder):
        if MARKS & {*folders, *files}:
            yield Path(place)
        folders[:] = [each for each in folders if not each.startswith(".") and each != "wandb"]


def read_run(folder: Path, top: Path) -> Run:
    """Read what can be read of a run's folder.

    Args:
        folder: The run's folder.
        top: The folder that was searched, at or above it; the run's name is the path from there.
    """
    run = Run(folder, str(folder.relative_to(top)))
    finished = (folder / RESULTS).exists()
    if finished:
        run.results = _object(run, RESULTS, RESULTS_SHAPE)
    else:
        run.note("unfinished", _reason(folder))
    if finished or (folder / MANIFEST).exists():
        run.manifest = _object(run, MANIFEST, MANIFEST_SHAPE)
    run.samples = _lines(run, SAMPLES, SAMPLE_SHAPE)
    run.traces = _lines(run, TRACES, TRACE_SHAPE)
    told = run.manifest.get(TOLD, len(run.samples))
    if told != len(run.samples) and run.state != "damaged":
        run.note("damaged", f"{SAMPLES} has {len(run.samples)} of {told} samples")
    return run


def _reason(folder: Path) -> str:
    try:
        return read_bytes(folder / ERROR).decode(errors="replace").strip()[:500] or "it failed"
    except OSError:
        return f"no {RESULTS}: it is still running, was stopped, or failed"


def _object(run: Run, name: str, shape: Shape) -> dict[str, Any]:
    """Return a JSON file's keys that are of the right kind."""
    try:
        found = parse_json(read_bytes(run.folder / name).decode(errors="replace"))
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
    if wrong := [*misshapen(found, shape, name)]:
        run.note("damaged", f"{name} has something else under {', '.join(wrong)}")
    lost = {key.partition(".")[0] for key in wrong}
    return {key: value for key, value in found.items() if key not in lost}


def _lines(run: Run, name: str, shape: Shape) -> list[dict[str, Any]]:
    """Return a JSON-lines file's sound lines; the number of others is noted."""
    try:
        found, number = read_lines(run.folder / name, shape)
    except OSError as error:
        run.note("damaged", f"{name} can't be read ({error})")
        return []
    if broken := number - len(found):
        run.note("damaged", f"{broken} of {number} lines of {name} are damaged")
    return found
