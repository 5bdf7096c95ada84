"""The report on the terminal: tables drawn with lines there, as Markdown and never cut off in a pipe or file."""

from __future__ import annotations

from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from dlmlab.record.report import RunRecord, Table, show_cell, visible

MAX_WIDTH = 10_000
"""Where even a pipe's lines are broken."""


@dataclass(frozen=True)
class Terminal:
    """Prints the tables of a run to stdout."""

    def log(self, run: RunRecord) -> None:
        """Print every table, the verdict, and where the run's files are."""
        console = Console()
        for table in run.report.tables:
            show_table(console, table, default_title=run.report.title)
        if run.report.verdict:
            console.print(Text(visible(f"Verdict: {run.report.verdict}"), style="bold"), soft_wrap=True)
        console.print(Text(f"{run.folder}"), soft_wrap=True)


def show_table(console: Console, table: Table, default_title: str = "") -> None:
    """Print a table. Text from models and prompts is shown as it is: neither markup nor control codes act."""
    drawn = RichTable(box=box.SIMPLE_HEAD if console.is_terminal else box.MARKDOWN)
    for index, column in enumerate(table.columns):
        numbers = all(isinstance(row[index], int | float) for row in table.rows)
        drawn.add_column(Text(visible(column)), justify="right" if numbers else "left", no_wrap=not console.is_terminal)
    for row in table.rows:
        drawn.add_row(*(Text(visible(show_cell(cell))) for cell in row))
    if not console.is_terminal:
        widest = console.options.update(max_width=MAX_WIDTH)
        console.width = max(console.width, console.measure(drawn, options=widest).maximum)
    console.print(Text(visible(table.title or default_title), style="bold"), soft_wrap=True)
    console.print(drawn)
    if table.note:
        console.print(Text(visible(table.note)), soft_wrap=True)
