"""The table that answers a run's question, by itself, for an issue and for a paper: table.md and table.tex."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

from dlmlab.record.files import write_text
from dlmlab.record.report import Cell, Report, Table, show_cell, visible
from dlmlab.tracking.markdown import table_lines

SPECIAL = {each: f"\\{each}" for each in "&%$#_{}"}
SPECIAL |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$"}
SYMBOLS = {"…": r"\ldots{}", "×": r"$\times$", "κ": r"$\kappa$", "τ": r"$\tau$", "≤": r"$\le$", "≥": r"$\ge$"}
MARKS = {"✓": "yes", "✗": "no"}
ESCAPES = str.maketrans(SPECIAL | SYMBOLS | MARKS)


def write_table(folder: Path, report: Report) -> None:
    """Write a report's first table into the run's folder, in both forms. Raises OSError where that can't be done."""
    for table in report.tables[:1]:
        write_text(folder / "table.md", "\n".join(table_lines(table)) + "\n")
        write_text(folder / "table.tex", booktabs(table))


def booktabs(table: Table) -> str:
    """A table in LaTeX; its note is the caption, and any text in it is shown as it is.

    Where several rows begin with the same cell, such as a task, a rule parts them from the others.
    """
    columns = ["r" if all(map(is_number, cells)) else "l" for cells in zip(*table.rows, strict=True)]
    groups = [list(rows) for _, rows in groupby(table.rows, key=lambda row: row[0])]
    if all(len(rows) == 1 for rows in groups):
        groups = [list(table.rows)]
    body = "\n\\midrule\n".join("\n".join(map(line, rows)) for rows in groups)
    return f"""% needs \\usepackage{{booktabs}}
\\begin{{table}}
\\centering
\\begin{{tabular}}{{{"".join(columns)}}}
\\toprule
{line(table.columns)}
\\midrule
{body}
\\bottomrule
\\end{{tabular}}
\\caption{{{escape(table.note or table.title)}}}
\\end{{table}}
"""


def line(cells: Iterable[Cell]) -> str:
    """A row."""
    return " & ".join(escape(show_cell(cell)) for cell in cells) + r" \\"


def escape(text: str) -> str:
    """Text in which nothing is a command of LaTeX."""
    return visible(text).translate(ESCAPES)


def is_number(cell: Cell) -> bool:
    """Whether a cell is empty or begins like a number."""
    return show_cell(cell).lstrip("+-")[:1].isdecimal() or not show_cell(cell)
