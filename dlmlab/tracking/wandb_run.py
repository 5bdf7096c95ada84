"""A run on W&B, in a process of its own: begun from the first line of stdin, ended by the second.

The first is {"init": …}, the arguments of wandb.init; one line on stdout says where the run is. The second is what is
logged (`dlmlab.tracking.wandb`), or {"exit_code": …} for a run without a result.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dlmlab.tracking.wandb import FAILED

SAMPLE = ("task", "decoder", "id", "prompt", "text", "score", "reason", "forwards")
"""Columns of the table of samples; their tokens stay in the file."""


def _serve() -> None:
    """Keep a run from the first line of stdin to the second, which is its result or how else it ended."""
    import wandb

    settings = wandb.Settings(
        console="off", silent=True, disable_git=True, disable_code=True,
        x_disable_stats=True,  # nothing samples beside what is timed
    )  # fmt: skip
    run = wandb.init(**json.loads(sys.stdin.readline())["init"], settings=settings)
    print(run.url or f"offline; to upload: wandb sync {Path(run.dir).parent}", flush=True)
    line = sys.stdin.readline()
    message = json.loads(line) if line else {"exit_code": FAILED}  # the run was killed
    try:
        if "exit_code" not in message:
            _log(run, message)
    except BaseException:
        run.finish(exit_code=FAILED)
        raise
    run.finish(exit_code=message.get("exit_code", 0))


def _log(run: Any, result: Mapping[str, Any]) -> None:
    import wandb

    def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> wandb.Table:
        return wandb.Table(columns=list(columns), data=rows, allow_mixed_types=True)

    run.summary.update(result["summary"])
    logged: dict[str, Any] = {each["title"]: table(each["columns"], each["rows"]) for each in result["tables"]}
    logged |= {f"pictures/{Path(picture).stem}": wandb.Image(picture) for picture in result["pictures"]}
    if points := [dict(_flat(point)) for point in result["points"]]:
        logged["points"] = table(*_columns(points))
        tasks = dict.fromkeys(point.get("task") for point in points)
        for task in tasks:
            own = table(*_columns([_in_points(point) for point in points if point.get("task") == task]))
            title = "Quality in points of 100 against forward passes" + (f", {task}" if task else "")
            name = "/".join(["charts", "quality_against_forwards", *([task] if task else [])])
            logged[name] = wandb.plot.scatter(own, "forwards", "score", title=title)
    if samples := _samples(Path(result["samples"]), result["most_samples"]):
        logged["samples"] = table(*_columns(samples))
    run.log(logged)
    artifact = wandb.Artifact(f"run-{run.id}", type="results")
    for file in result["files"]:
        artifact.add_file(file)
    run.log_artifact(artifact)


def _samples(path: Path, most: int) -> list[dict[str, Any]]:
    """Return the first items' samples, of every decoder alike"""
    if not path.exists():
        return []
    with path.open(encoding="utf-8") as file:
        samples = [json.loads(line) for line in file]
    samples.sort(key=lambda sample: sample["index"])
    return [{key: sample[key] for key in SAMPLE if key in sample} for sample in samples[:most]]


def _in_points(point: Mapping[str, Any]) -> dict[str, Any]:
    """A point of a chart, whose score is read in points of 100."""
    return {**point, "score": None if point.get("score") is None else 100 * point["score"]}


def _columns(rows: list[dict[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    """The names that any row has, and the rows in their order."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    return names, [[row.get(name) for name in names] for row in rows]


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested values under dotted names."""
    for name, each in value.items():
        if isinstance(each, Mapping):
            yield from _flat(each, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", each


def main() -> int:
    """Keep a run on W&B for the process that started this one. One line on stdout says where, or on stderr why not."""
    try:
        _serve()
    except Exception as error:
        print(f"{type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
