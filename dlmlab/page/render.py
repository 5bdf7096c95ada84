"""Render the page: styles, scripts and data in one file that asks the network for nothing."""

from __future__ import annotations

import base64
import gzip
import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from dlmlab.page.collect import Run, collect
from dlmlab.page.rows import Row, rows_of
from dlmlab.page.shelf import Shelf
from dlmlab.page.speeds import Speed, speeds
from dlmlab.record.files import write_text

PAGE = "index.html"
TRACES = 50
"""Of a run on a page."""
FEW = 2
"""Most decoders at a task that a table shows as well as a plot: a page without plots is a fraction of the size."""
LINKS = ("viewer.html", "denoising.gif", "denoising.png")
"""Files that the page of a traced run links to."""
SLOT = re.compile(r"<!-- slot: (\w+) -->")


def write(folder: Path, runs: Sequence[Run] | None = None, watch: float = 0) -> Path:
    """Write the page over the runs at or below a folder into it.

    Args:
        folder: Where the page is written.
        runs: The runs, where they are known already.
        watch: Seconds after which a browser loads the page anew, while somebody renews it; 0 for never.

    Raises:
        OSError: It can't be written.
    """
    path = folder / PAGE
    write_text(path, render(folder, collect(folder) if runs is None else runs, watch))
    return path


def render(folder: Path, runs: Sequence[Run], watch: float = 0) -> str:
    """Return the page's HTML.

    Args:
        folder: Where the page is written; its links are relative to that.
        runs: The runs that it shows.
        watch: Seconds after which a browser loads the page anew; 0 for never.
    """
    rows = [rows_of(run) for run in runs]
    measured = speeds(runs)
    shelf = Shelf([row for each in rows for row in each])
    slots = {
        "styles": joined(".css"),
        "scripts": joined(".js"),
        "index": script_json({**index(folder, runs, rows, measured, shelf), "watch": watch}),
        "packed": packed(runs, rows, shelf),
        "plotly": plotly() if worth_plotting(rows) else "",
    }
    return SLOT.sub(lambda slot: slots[slot[1]], joined(".html"))


@cache
def joined(suffix: str) -> str:
    """Join every file of static/ with a suffix, in order of their names."""
    files = [each for each in (resources.files("dlmlab.page") / "static").iterdir() if each.name.endswith(suffix)]
    return "\n".join(file.read_text(encoding="utf-8") for file in sorted(files, key=lambda each: each.name))


def index(
    folder: Path, runs: Sequence[Run], rows: Sequence[Sequence[Row]], measured: Sequence[Speed], shelf: Shelf
) -> dict[str, Any]:
    """Return the data of the first view.

    Args:
        folder: Where the page is written.
        runs: The runs.
        rows: The rows of each run.
        measured: The rates of throughput runs, in order of time.
        shelf: The samples, which says how many of them the page has whole.
    """
    return {
        "folder": folder.resolve().name,
        "runs": [head(folder, run, each) for run, each in zip(runs, rows, strict=True)],
        "speeds": [asdict(each) for each in measured],
        "samples": {"total": shelf.total, "kept": shelf.kept},
    }


def head(folder: Path, run: Run, rows: Sequence[Row]) -> dict[str, Any]:
    """Return the data of a run in the table.

    Args:
        folder: Where the page is written; the path to the run is relative to that.
        run: The run.
        rows: The run's rows.
    """
    git, labels = run.manifest.get("git") or {}, run.results.get("labels", {})
    return {
        "name": run.name,
        "state": run.state,
        "problem": run.problem,
        "experiment": run.results.get("experiment", ""),
        "title": run.results.get("title", ""),
        "model": labels.get("model", ""),
        "date": run.manifest.get("started") or modified(run.folder),
        "commit": str(git.get("commit", "")),
        "dirty": bool(git.get("dirty")),
        "traces": len(run.traces),
        "links": [name for name in LINKS if (run.folder / name).exists()],
        "path": Path(os.path.relpath(run.folder, folder)).as_posix(),
        "rows": [{key: value for key, value in vars(row).items() if key != "samples"} for row in rows],
    }


def modified(folder: Path) -> str:
    """Return when a folder was last written to, for a run that doesn't say when it was made."""
    return datetime.fromtimestamp(folder.stat().st_mtime).astimezone().isoformat(timespec="seconds")


def packed(runs: Sequence[Run], rows: Sequence[Sequence[Row]], shelf: Shelf) -> str:
    """Return the data that are unpacked only when they are looked at, as script elements.

    Args:
        runs: The runs.
        rows: The rows of each run.
        shelf: The samples; packing a run's adds the texts that they refer to.
    """
    parts: dict[str, Any] = {}
    for number, (run, each) in enumerate(zip(runs, rows, strict=True)):
        parts[f"detail-{number}"] = {"results": shown(run.results), "manifest": run.manifest}
        if any(row.samples for row in each):
            parts[f"samples-{number}"] = shelf.pack(each)
        if run.traces:
            parts[f"traces-{number}"] = run.traces[:TRACES]
    parts["prompts"] = shelf.prompts
    return "\n".join(script_gzip(name, json.dumps(value)) for name, value in parts.items())


def shown(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of the results that a run's view shows."""
    return {key: results[key] for key in ("question", "labels", "settings", "verdict", "tables") if key in results}


def worth_plotting(rows: Sequence[Sequence[Row]]) -> bool:
    """Return whether there is more to see than a table tells: several runs, or several decoders at a task of one."""
    scored = Counter(row.task for each in rows for row in each if row.score is not None)
    return len(rows) > 1 or max(scored.values(), default=0) > FEW


@cache
def plotly() -> str:
    """Return Plotly's script, from its package."""
    from plotly.offline import get_plotlyjs

    return script_gzip("plotly", get_plotlyjs())


def script_json(value: object) -> str:
    """Return JSON that can stand in a script element: nothing in it ends the element or begins a comment."""
    return json.dumps(value).replace("<", r"\u003c")


def script_gzip(name: str, text: str) -> str:
    """Return a script element that holds a text, compressed.

    Args:
        name: The element's id.
        text: The text, which is kept as UTF-8, gzipped, in base64.
    """
    data = base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()
    return f'<script type="application/gzip" id="{name}">{data}</script>'
