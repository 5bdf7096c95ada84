"""Rebuild every report, picture and page from what runs left on disk: python -m dlmlab.report outputs/ --open"""

from __future__ import annotations

import argparse
import json
import sys
import time
import webbrowser
from contextlib import suppress
from pathlib import Path
from typing import Any

from omegaconf.errors import OmegaConfBaseException

from dlmlab import manifest
from dlmlab.errors import UserError
from dlmlab.page.collect import collect
from dlmlab.page.frames import read_runs
from dlmlab.page.render import PAGE, write
from dlmlab.picture.plots import draw
from dlmlab.record.files import write_text
from dlmlab.record.report import RESERVED, RESULTS, visible
from dlmlab.run.multirun import summarise
from dlmlab.tracking import Report, RunRecord, Table, track
from dlmlab.tracking.markdown import REPORT, full_report
from dlmlab.tracking.table import write_table

MULTIRUN = "multirun.yaml"
WATCH_SECONDS = 2.0
CHANGING = ("results.json", "samples.jsonl", "error.txt", "unfinished")
"""Files of a run whose change a watched page shows."""
DAMAGE = (UserError, OSError, OmegaConfBaseException, ValueError, KeyError, TypeError, AttributeError)
"""What reading a file raises that is not as a run writes it."""


def rebuild(folder: Path) -> list[str]:
    """Write the report, table, pictures and page of every run and multirun at or below a folder, and the folder's page.

    What could not be rebuilt, each in a line. Raises UserError where there is no run at all.
    """
    problems: list[str] = []
    for sweep in sorted(file.parent for file in folder.glob(f"**/{MULTIRUN}")):
        try:
            record, _ = summarise(sweep)
            if record:
                track([], record)
        except DAMAGE as error:
            problems.append(f"the multirun in {sweep} can't be summarised ({error!r})")
    runs = collect(folder)
    if not runs:
        raise UserError(f"{folder} holds no {RESULTS}: name a folder with finished runs")
    for run in runs:
        if run.state == "unfinished":
            continue
        try:
            record = read(run.folder)
            write_text(run.folder / REPORT, full_report(record))
            write_table(run.folder, record.report)
        except UserError as error:
            problems.append(str(error))
        write(run.folder, [each for each in runs if each.folder.is_relative_to(run.folder)])
    write(folder, runs)
    return problems


def read(folder: Path) -> RunRecord:
    """A finished run as it was reported, with its pictures drawn again. Raises UserError for a damaged one."""
    made = manifest.read(folder)
    try:
        saved: dict[str, Any] = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
        report = Report(
            title=saved["title"],
            question=saved["question"],
            settings=saved["settings"],
            tables=[Table(**table) for table in saved["tables"]],
            verdict=saved.get("verdict", ""),
            results={key: value for key, value in saved.items() if key not in RESERVED},
            summary=saved["summary"],
            pictures=draw(folder, saved.get("points", [])) or sorted(folder.glob("*.png")),
        )
        return RunRecord(folder, saved["experiment"], saved["labels"], made, report)
    except DAMAGE as error:
        raise UserError(f"{folder / RESULTS} is damaged ({error!r}): run it again, or remove the folder") from error


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
    """How many files of runs there are, and when the last one changed."""
    times = [file.stat().st_mtime for name in CHANGING for file in folder.rglob(name)]
    return len(times), max(times, default=0.0)


if __name__ == "__main__":
    sys.exit(main())
