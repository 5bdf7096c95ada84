"""Write the table that answers a run's question, by itself, for an issue and for a paper: table.md and table.tex."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

from dlmlab.record.files import visible, write_text
from dlmlab.record.report import Cell, Report, Table, show_cell
from dlmlab.tracking.markdown import table_lines

SPECIAL = {each: f"\\{each}" for each in "&%$#_{}"}
SPECIAL |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$"}
SYMBOLS = {"…": r"\ldots{}", "×": r"$\times$", "κ": r"$\kappa$", "τ": r"$\tau$", "≤": r"$\le$", "≥": r"$\ge$"}
MARKS = {"✓": "yes", "✗": "no"}
ESCAPES = str.maketrans(SPECIAL | SYMBOLS | MARKS)


def write_table(folder: Path, report: Report) -> None:
    """Write a report's first table into the run's folder, in both forms.

    Args:
        folder: The run's folder.
        report: The report.

    Raises:
        OSError: The files can't be written.
    """
    for table in report.tables[:1]:
        write_text(folder / "table.md", "\n".join(table_lines(table)) + "\n")
        write_text(folder / "table.tex", booktabs(table, report.title))


def booktabs(table: Table, caption: str = "") -> str:
    """Return a table in LaTeX that is no wider than the page, with any text in it shown as it is.

    Where several rows begin with the same cell, such as a task, a rule parts them from the others.

    Args:
        table: Its note is set below the rows.
        caption: What stands for the table's title where it has none.
    """
    kinds = "".join("r" if all(map(is_number, cells)) else "l" for cells in zip(*table.rows, strict=True))
    groups = [list(rows) for _, rows in groupby(table.rows, key=lambda row: row[0])]
    if all(len(rows) == 1 for rows in groups):
        groups = [list(table.rows)]
    body = "\n\\midrule\n".join("\n".join(map(line, rows)) for rows in groups)
    title = table.title or caption
    kinds = kinds or "l" * len(table.columns)
    note = f"\n\\par\\smallskip\\parbox{{\\linewidth}}{{\\footnotesize {escape(table.note)}}}" if table.note else ""
    return f"""% needs \\usepackage{{booktabs}} and \\usepackage{{graphicx}}
\\begin{{table}}
\\centering
\\caption{{{escape(title)}}}
\\label{{tab:{re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")}}}
\\resizebox{{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}}{{!}}{{\\begin{{tabular}}{{{kinds}}}
\\toprule
{line(table.columns)}
\\midrule
{body}
\\bottomrule
\\end{{tabular}}}}{note}
\\end{{table}}
"""


def line(cells: Iterable[Cell]) -> str:
    """Return a row. An empty group comes first, since LaTeX reads a bracket after a line's end as that line's
    option.
    """
    row = " & ".join(minus(escape(show_cell(cell))) for cell in cells)
    return ("{}" if row.startswith("[") else "") + row + r" \\"


def minus(text: str) -> str:
    """Return a text whose leading hyphen is a minus where a number follows."""
    return re.sub(r"(?<![\w.])-(?=\d)", "$-$", text)


def escape(text: str) -> str:
    """Escape a text so that nothing in it is a command of LaTeX."""
    return visible(text).translate(ESCAPES)


def is_number(cell: Cell) -> bool:
    """Return whether a cell is empty or begins like a number."""
    return show_cell(cell).lstrip("+-")[:1].isdecimal() or not show_cell(cell)
