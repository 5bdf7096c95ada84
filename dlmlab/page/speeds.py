"""Collect speed over time, from the throughput runs on disk."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dlmlab.manifest import hardware
from dlmlab.page.collect import Run
from dlmlab.page.rows import maps, text

RATE = re.compile(r"Tokens/sec batch=(\d+) \((.+)\)")


@dataclass(frozen=True)
class Speed:
    """A rate that was measured once.

    Attributes:
        date: When its run began, ISO 8601.
        hardware: The GPU or processor, in words.
        setting: All that rates must share to be compared: the machine's identity, threads, packages and settings.
        decoder: What the run's table calls the decoder.
        batch: Canvases that went through the model at once.
        rate: Canvas tokens per second.
    """

    date: str
    hardware: str
    setting: str
    decoder: str
    batch: int
    rate: float


def speeds(runs: Sequence[Run]) -> list[Speed]:
    """Return what was measured, in order of time. A run that does not say on which machine it was made is left out."""
    return sorted((speed for run in runs for speed in of_run(run)), key=lambda each: each.date)


def of_run(run: Run) -> Iterator[Speed]:
    """Yield the rates in a finished throughput run's first table."""
    if run.state != "finished" or run.results.get("experiment") != "throughput" or not run.manifest.get("started"):
        return
    machine = run.manifest.get("machine", {})
    try:
        name = hardware(run.manifest)
    except (KeyError, TypeError, ValueError, IndexError):
        return
    if "id" not in machine:
        return
    settings = {**run.results.get("settings", {}), "threads": machine.get("threads"), "machine": machine["id"]}
    setting = ", ".join(f"{key}={value}" for key, value in settings.items() if key not in ("repeats", "seed"))
    for table in maps(run.results.get("tables")):
        rows = table.get("rows")
        for row in rows if isinstance(rows, list) else ():
            if isinstance(row, list) and len(row) > 1:
                yield from of_cells(run.manifest["started"], name, setting, text(row[0]), text(row[1]))


def of_cells(date: str, machine: str, setting: str, metric: str, value: str) -> Iterator[Speed]:
    """Yield the rate of a row of the table; nothing where it holds none.

    Args:
        date: When the run began, ISO 8601.
        machine: The GPU or processor, in words.
        setting: All that rates must share to be compared.
        metric: The row's first cell, which names the figure.
        value: Its second, the figure as text.
    """
    if (found := RATE.fullmatch(metric)) and re.fullmatch(r"\d+(\.\d+)?", value):
        yield Speed(date, machine, setting, found[2], int(found[1]), float(value))
