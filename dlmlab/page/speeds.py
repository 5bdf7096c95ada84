"""Speed over time, from the performance log and the throughput runs on disk."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dlmlab.manifest import hardware
from dlmlab.page.collect import Run
from dlmlab.page.rows import maps, text

LOG = "perf_log.md"
RATE = re.compile(r"Tokens/sec batch=(\d+) \((.+)\)")


@dataclass(frozen=True)
class Speed:
    """A rate that was measured once. date: ISO 8601, of the day alone in the log. setting: what makes rates comparable.

    rate: canvas tokens per second.
    """

    date: str
    hardware: str
    setting: str
    decoder: str
    batch: int
    rate: float


def speeds(folder: Path, runs: Sequence[Run]) -> list[Speed]:
    """What was measured, in order of time; a run that the log has too counts once, with its hour."""
    found = [speed for run in runs for speed in of_run(run)]
    known = {(each.date[:10], each.hardware, each.decoder, each.batch, each.rate) for each in found}
    try:
        log = (folder / LOG).read_text(encoding="utf-8", errors="replace")
    except OSError:
        log = ""
    found += [
        each for each in of_log(log) if (each.date, each.hardware, each.decoder, each.batch, each.rate) not in known
    ]
    return sorted(found, key=lambda each: each.date)


def of_run(run: Run) -> Iterator[Speed]:
    """What a throughput run's first table says, as the log has it."""
    if run.results.get("experiment") != "throughput" or not run.manifest.get("started"):
        return
    try:
        machine = hardware(run.manifest)
    except (KeyError, TypeError, ValueError, IndexError):
        return
    setting = comparable(", ".join(f"{key}={value}" for key, value in run.results.get("settings", {}).items()))
    for table in maps(run.results.get("tables")):
        rows = table.get("rows")
        for row in rows if isinstance(rows, list) else ():
            if isinstance(row, list) and len(row) > 1:
                yield from of_cells(run.manifest["started"], machine, setting, text(row[0]), text(row[1]))


def of_log(log: str) -> Iterator[Speed]:
    """What the log's entries say."""
    date = machine = setting = ""
    for line in log.splitlines():
        if heading := re.match(r"## .* — (\d{4}-\d\d-\d\d)$", line):
            date, machine, setting = heading[1], "", ""
        elif fact := re.match(r"- \*\*(Hardware|Settings):\*\* (.*)$", line):
            if fact[1] == "Hardware":
                machine = unescaped(fact[2])
            else:
                setting = comparable(unescaped(fact[2]))
        elif date and line.startswith("| "):
            first, value, *_ = [*re.split(r"(?<!\\) ?\| ?", line.strip("| ")), "", ""]
            yield from of_cells(date, machine, setting, unescaped(first), unescaped(value))


def of_cells(date: str, machine: str, setting: str, metric: str, value: str) -> Iterator[Speed]:
    """A row of the log's table, where it is a rate."""
    if (found := RATE.fullmatch(metric)) and re.fullmatch(r"\d+(\.\d+)?", value):
        yield Speed(date, machine, setting, found[2], int(found[1]), float(value))


def comparable(settings: str) -> str:
    """The settings without what doesn't change the work."""
    return ", ".join(each for each in settings.split(", ") if not each.startswith(("repeats=", "seed=")))


def unescaped(markdown: str) -> str:
    """The text that was escaped for Markdown."""
    return html.unescape(re.sub(r"\\([\\`*_\[\]|~$#!])", r"\1", markdown))
