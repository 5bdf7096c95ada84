"""Rebuild every report, picture and page from what runs left on disk: python -m dlmlab.report outputs/ --open"""

from __future__ import annotations

import argparse
import sys
import time
import webbrowser
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console

from dlmlab.errors import UserError
from dlmlab.page.collect import Run, find, read_run
from dlmlab.page.frames import read_runs
from dlmlab.page.render import PAGE, write
from dlmlab.picture.plots import draw
from dlmlab.record.files import visible, write_text
from dlmlab.record.folder import (
    DAMAGE,
    ERROR,
    MULTIRUN,
    RESULTS,
    SAMPLES,
    UNFINISHED,
    read_manifest,
    read_results,
)
from dlmlab.record.report import RESERVED
from dlmlab.run.display import bars
from dlmlab.run.multirun import summarise
from dlmlab.tracking import Cell, Report, RunRecord, Table, track
from dlmlab.tracking.markdown import REPORT, full_report
from dlmlab.tracking.table import write_table

WATCH_SECONDS = 2.0
CHANGING = (RESULTS, SAMPLES, ERROR, UNFINISHED)
"""Files of a run whose change a watched page shows."""


def rebuild(folder: Path) -> list[str]:
    """Write the report, table, pictures and page of every run and multirun at or below a folder, and the folder's page.

    Returns:
        What could not be rebuilt, each in a line.

    Raises:
        UserError: There is no run at all.
        OSError: The folder's own page can't be written.
    """
    problems: list[str] = []
    for sweep in sorted(file.parent for file in folder.glob(f"**/{MULTIRUN}")):
        try:
            record, _ = summarise(sweep)
            if record:
                track([], record)
        except DAMAGE as error:
            problems.append(f"the multirun in {sweep} can't be summarised ({error!r})")
    with bars(Console(stderr=True).is_terminal) as bar:
        runs = [read_run(each, folder) for each in bar.track(sorted(find(folder)), description="runs read")]
        if not runs:
            raise UserError(f"{folder} holds no {RESULTS}: name a folder with finished runs")
        below = by_folder(runs)
        for run in bar.track(runs, description="runs reported"):
            if run.state != "unfinished":
                problems += rebuild_run(run, below[run.folder])
    write(folder, runs)
    return problems


def rebuild_run(run: Run, below: Sequence[Run]) -> Iterator[str]:
    """Write a run's report, table, pictures and page. Yields what can't be, in a line.

    Args:
        run: The run.
        below: It, and the runs below its folder.
    """
    try:
        record = read(run.folder)
        write_text(run.folder / REPORT, full_report(record))
        write_table(run.folder, record.report)
    except UserError as error:
        yield str(error)
    except DAMAGE as error:
        yield f"{run.folder} is damaged ({error!r}): run it again, or remove the folder"
    try:
        write(run.folder, below)
    except OSError as error:
        yield f"the page of {run.folder} can't be written ({error})"


def by_folder(runs: Sequence[Run]) -> dict[Path, list[Run]]:
    """Return the runs at or below each folder that has any."""
    found: dict[Path, list[Run]] = defaultdict(list)
    for run in runs:
        for place in (run.folder, *run.folder.parents):
            found[place].append(run)
    return found


def read(folder: Path) -> RunRecord:
    """Return a finished run as it was reported, with its pictures drawn again. Raises UserError for a damaged one."""
    made = read_manifest(folder)
    try:
        saved = read_results(folder)
        report = Report(
            title=saved["title"],
            question=saved["question"],
            settings=saved["settings"],
            tables=[table_of(each) for each in saved["tables"]],
            verdict=saved.get("verdict", ""),
            results={key: value for key, value in saved.items() if key not in RESERVED},
            summary=saved["summary"],
            pictures=draw(folder, saved.get("points", [])) or sorted(folder.glob("*.png")),
        )
    except DAMAGE as error:
        raise UserError(f"{folder / RESULTS} is damaged ({error}): run it again, or remove the folder") from error
    return RunRecord(folder, saved["experiment"], saved["labels"], made, report)


def table_of(saved: Mapping[str, Any]) -> Table:
    """Return a table as results.json has it. Raises TypeError or ValueError for what is none."""
    table = Table(**saved)
    texts = [table.title, table.note, *table.columns]
    cells = [cell for row in table.rows for cell in row]
    if not all(isinstance(text, str) for text in texts) or not all(isinstance(cell, Cell) for cell in cells):
        raise TypeError(f"table {table.title!r} has something else than texts and numbers")
    return table


def main() -> int:
    """The command line. A run that is damaged costs a line."""
    parser = argparse.ArgumentParser(prog="python -m dlmlab.report", description="Rebuild reports and pages from disk.")
    parser.add_argument("folder", type=Path, help="a folder of runs, such as outputs/")
    parser.add_argument("--csv", type=Path, help="write a table of all runs and figures there, and build no page")
    parser.add_argument("--watch", action="store_true", help="renew the folder's page while runs go on, until Ctrl-C")
    parser.add_argument("--open", action="store_true", help="show the folder's page in a browser")
    told = parser.parse_args()
    try:
        if told.csv:
            read_runs(told.folder).runs.to_csv(told.csv, index=False)
            print(f"table: {visible(str(told.csv))}")
            return 0
        for problem in rebuild(told.folder):
            print(f"warning: {visible(problem)}", file=sys.stderr)
    except (UserError, OSError) as error:
        print(f"error: {visible(str(error))}", file=sys.stderr)
        return 1
    page = told.folder / PAGE
    print(f"page: {visible(str(page))}")
    if told.open:
        webbrowser.open(page.resolve().as_uri())
    if told.watch:
        with suppress(KeyboardInterrupt):
            watch(told.folder)
        write(told.folder)  # one that loads itself no more
    return 0


def watch(folder: Path) -> None:
    """Renew a folder's page whenever something in it has changed, until interrupted."""
    seen = None
    while True:
        now = newest(folder)
        if now != seen:
            seen = now
            write(folder, watch=WATCH_SECONDS)
        time.sleep(WATCH_SECONDS)


def newest(folder: Path) -> tuple[int, float]:
    """Return how many files of runs there are, and when the last one changed."""
    times = [file.stat().st_mtime for name in CHANGING for file in folder.rglob(name)]
    return len(times), max(times, default=0.0)


if __name__ == "__main__":
    sys.exit(main())
