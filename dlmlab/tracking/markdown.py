"""Report a run as Markdown: report.md in the run's folder, and an entry in the performance log, which only
ever grows.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dlmlab.manifest import hardware
from dlmlab.record.files import append_text, visible, write_text
from dlmlab.record.folder import MULTIRUN
from dlmlab.record.report import RunRecord, Table, show_cell
from dlmlab.settings import list_of

REPORT = "report.md"
LOG_HEADER = """# Performance log

Append-only record of runs on this machine.
"""
HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


@dataclass(frozen=True)
class Markdown:
    """Writes report.md, and appends an entry to the performance log; several jobs may do so at once.

    A multirun is one entry, that of its summary; its jobs are none.

    Attributes:
        log_file: The performance log; it is made where there is none.
        logged: The experiments whose runs are entries of the log.
    """

    log_file: str
    logged: list_of(str) | None = ("throughput",)  # type: ignore[valid-type]

    def log(self, run: RunRecord) -> None:
        """Write both. A run that was killed after it was logged and then resumed is not logged again."""
        write_text(run.folder / REPORT, full_report(run))
        experiment = run.report.results.get("of", run.experiment)
        if experiment not in (self.logged or ()) or (run.folder.parent / MULTIRUN).exists():
            return
        log, entry = Path(self.log_file), log_entry(run)
        resumed = run.manifest.get("resumes") and log.exists()
        if not (resumed and entry in log.read_text(encoding="utf-8", errors="replace")):
            append_text(log, entry, header=LOG_HEADER)


def full_report(run: RunRecord) -> str:
    """Return the run as a page of its own: question, setting, the table that answers, verdict, pictures; then
    the details.
    """
    report = run.report
    lines = [f"# {escape(report.title)}", ""]
    if report.question:
        lines += [escape(report.question), ""]
    lines += [*_facts(run), *_answer(run)]
    for picture in report.pictures:
        place = quote(os.path.relpath(picture, run.folder))
        lines += ["", f"![{escape(picture.stem)}]({place})"]
    return "\n".join([*lines, *_details(run)]) + "\n"


def log_entry(run: RunRecord) -> str:
    """Return the run as an entry of the performance log: heading, facts, tables and verdict."""
    date = run.manifest["started"].partition("T")[0]
    heading = f"## {escape(run.report.title)} — {date}"
    return "\n".join(["", heading, "", *_facts(run), *_answer(run), *_details(run)]) + "\n"


def table_lines(table: Table) -> Iterator[str]:
    """Return a table's rows in Markdown, without its title."""
    yield _row(map(escape, table.columns))
    yield _row(["---"] * len(table.columns))
    for row in table.rows:
        yield _row(escape(show_cell(cell)) for cell in row)


def escape(text: str) -> str:
    """Escape a text so that Markdown shows it as it is: nothing in it is markup, HTML or a control code."""
    marked = re.sub(r"[\\`*_\[\]|~$#!]", r"\\\g<0>", visible(text))
    return re.sub("[&<>]", lambda match: HTML[match[0]], marked)


def code(text: str) -> str:
    """Return a text as a code span, fenced by more backticks than it has in a row."""
    text = visible(text)
    fence = "`" * (1 + max((len(ticks) for ticks in re.findall("`+", text)), default=0))
    return f"{fence} {text} {fence}" if "`" in text else f"{fence}{text}{fence}"


def _facts(run: RunRecord) -> list[str]:
    made = run.manifest
    facts = {"Hardware": escape(hardware(made))}
    facts |= {escape(group.capitalize()): escape(choice) for group, choice in run.labels.items()}
    settings = ", ".join(f"{name}={value}" for name, value in run.report.settings.items())
    facts |= {"Settings": escape(settings), "Command": code(made["command"]), "Commit": _commit(made["git"])}
    return [f"- **{name}:** {text}" for name, text in facts.items() if text]


def _commit(git: dict[str, Any] | None) -> str:
    if git is None:
        return ""
    return code(git["commit"][:12]) + (" with uncommitted changes" if git["dirty"] else "")


def _answer(run: RunRecord) -> list[str]:
    """Return the first table, and the verdict."""
    lines = [line for table in run.report.tables[:1] for line in _section(table)]
    return [*lines, "", f"**Verdict:** {escape(run.report.verdict)}"] if run.report.verdict else lines


def _details(run: RunRecord) -> list[str]:
    return [line for table in run.report.tables[1:] for line in _section(table)]


def _section(table: Table) -> list[str]:
    title = ["", f"**{escape(table.title)}**"] if table.title else []
    note = ["", escape(table.note)] if table.note else []
    return [*title, "", *table_lines(table), *note]


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
