"""Rebuild every report and picture from what runs left on disk: python -m dlmlab.report outputs/"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from dlmlab import manifest
from dlmlab.errors import UserError
from dlmlab.files import write_text
from dlmlab.multirun import summarise
from dlmlab.picture import draw
from dlmlab.tracking import Report, RunRecord, Table, track
from dlmlab.tracking.markdown import REPORT, full_report
from dlmlab.tracking.record import RESERVED, RESULTS
from dlmlab.tracking.table import write_table

MULTIRUN = "multirun.yaml"


def rebuild(folder: Path) -> list[Path]:
    """Write the reports, tables and pictures of every run and multirun at or below a folder; the folders of them.

    Raises UserError where there is no finished run.
    """
    for sweep in sorted(file.parent for file in folder.glob(f"**/{MULTIRUN}")):
        record, _ = summarise(sweep)
        if record:
            track([], record)
    runs = sorted(file.parent for file in folder.glob(f"**/{RESULTS}"))
    if not runs:
        raise UserError(f"{folder} holds no {RESULTS}: name a folder with finished runs")
    for run in runs:
        record = read(run)
        write_text(run / REPORT, full_report(record))
        write_table(run, record.report)
    return runs


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
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / RESULTS} is damaged ({error!r}): run it again, or remove the folder") from error


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m dlmlab.report", description="Rebuild reports from disk.")
    parser.add_argument("folder", type=Path, help="a folder of runs, such as outputs/")
    try:
        for run in rebuild(parser.parse_args().folder):
            print(run / REPORT)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
