"""Print the report on the terminal: tables drawn with lines there, as Markdown and never cut off in a pipe or file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from dlmlab.record.files import visible
from dlmlab.record.report import RunRecord, Table, show_cell

GAP = 2
"""Columns of the terminal between two cells."""


@dataclass(frozen=True)
class Terminal:
    """Prints the tables of a run to stdout."""

    def log(self, run: RunRecord) -> None:
        """Print every table, the verdict, and where the run's files are."""
        console = Console()
        for table in run.report.tables:
            show_table(console, table, default_title=run.report.title)
        if run.report.verdict:
            say(console, f"Verdict: {run.report.verdict}", "bold")
        console.print(Text(visible(str(run.folder))), soft_wrap=True)  # in one line, so that it can be copied


def show_table(console: Console, table: Table, default_title: str = "") -> None:
    """Print a table whole: no value is cut. Text from models and prompts is neither markup nor a control code.

    In a pipe the rows are Markdown, however long. On a terminal cells are broken between words; where not even
    single words fit side by side, each row becomes a list of its cells.

    Args:
        console: Where it is printed; in a pipe it is made as wide as the table.
        table: The table.
        default_title: What stands above a table without a title.
    """
    say(console, table.title or default_title, "bold")
    columns = [visible(column) for column in table.columns]
    rows = [[visible(show_cell(cell)) for cell in row] for row in table.rows]
    numeric = [all(isinstance(cell, int | float) for cell in cells) for cells in zip(*table.rows, strict=True)]
    widths = fitting([columns, *rows], console.width) if console.is_terminal else natural([columns, *rows])
    if widths is None:
        stack(console, columns, rows)
    else:
        drawn = RichTable(box=box.SIMPLE_HEAD if console.is_terminal else box.MARKDOWN)
        for column, width, right in zip(columns, widths, numeric or [False] * len(columns), strict=True):
            drawn.add_column(Text(column), justify="right" if right else "left", width=width, overflow="fold")
        for row in rows:
            drawn.add_row(*map(Text, row))
        if not console.is_terminal:
            console.width = max(console.width, sum(widths) + (GAP + 1) * len(widths) + 1)
        console.print(drawn)
    if table.note:
        say(console, table.note)


def say(console: Console, text: str, style: str = "") -> None:
    """Print text that is broken between words on a terminal, and not at all in a pipe.

    Args:
        console: Where it is printed.
        text: The text, in which control codes become escapes.
        style: How rich draws it on a terminal, such as `bold`.
    """
    console.print(Text(visible(text), style=style), soft_wrap=not console.is_terminal)


def natural(lines: Sequence[Sequence[str]]) -> list[int]:
    """Return each column's width where no cell is broken."""
    return [max(1, *map(cell_len, cells)) for cells in zip(*lines, strict=True)]


def fitting(lines: Sequence[Sequence[str]], width: int) -> list[int] | None:
    """Share a terminal's width out among columns, so that cells are broken between words only.

    Args:
        lines: The cells of each line, the header's among them.
        width: Columns of the terminal.

    Returns:
        Each column's width; None where the longest words do not fit side by side.
    """
    widest = natural(lines)
    widths = [
        max(1, *(cell_len(word) for cell in cells for word in cell.split())) for cells in zip(*lines, strict=True)
    ]
    room = width - (GAP + 1) * len(widths) - sum(widths)
    if room < 0:
        return None
    while room and any(own < most for own, most in zip(widths, widest, strict=True)):
        narrow = min((own, index) for index, own in enumerate(widths) if own < widest[index])[1]
        widths[narrow] += 1
        room -= 1
    return widths


def stack(console: Console, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print each row as a list of its cells, each after its column's name.

    Args:
        console: Where it is printed.
        columns: The columns' names.
        rows: The cells of each row, as text; empty ones are left out.
    """
    for row in rows:
        for column, cell in zip(columns, row, strict=True):
            if cell:
                console.print(Text(f"  {column}: {cell}"))
        console.print()
