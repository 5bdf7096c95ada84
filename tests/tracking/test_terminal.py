"""Tables on the terminal and in a pipe: complete, and inert whatever text they hold."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from dlmlab.tracking import Table
from dlmlab.tracking.terminal import Terminal, show_table

WIDE = Table("Answers", ["prompt", "answer"], [["p" * 90, "[red]x[/red] \x1b[2J"]], note="n [bold]")


def printed(table: Table, terminal: bool) -> str:
    out = io.StringIO()
    show_table(Console(file=out, force_terminal=terminal, width=60), table)
    return out.getvalue()


def test_a_pipe_gets_whole_rows_as_markdown():
    lines = printed(WIDE, terminal=False).splitlines()
    assert lines[0] == "Answers"
    assert any("p" * 90 in line and r"[red]x[/red] \x1b[2J" in line and line.startswith("|") for line in lines)
    assert lines[-1] == "n [bold]"


def test_a_terminal_gets_its_own_width_and_no_foreign_control_codes():
    text = printed(WIDE, terminal=True)
    assert "\x1b[2J" not in text
    assert "[red]x[/red]" in text


def test_a_run_prints_its_tables_and_its_folder(make_run, capsys):
    run = make_run()
    Terminal().log(run)
    out = capsys.readouterr().out
    assert "Performance benchmark" in out
    assert "| LocalLeap speedup batch=1     | 1.77× | ≥1.10× ✓ |" in out
    assert out.splitlines()[-2:] == ["Verdict: LocalLeap is 1.77× as fast.", str(run.folder)]


SPEEDS = Table(
    "Speed",
    ["decoder", "score", "95 % interval", "tokens per forward", "verdict"],
    [
        ["localleap_paper", "100.0", "98.4 … 100.0", "13.38", "inconclusive"],
        ["baseline", "83.3", "78.1 … 87.5", "4.00", ""],
    ],
    note="Canvas tokens. The interval is Wilson's, of each decoder by itself.",
)


@pytest.mark.parametrize("width", [24, 40, 60, 80, 120, 200])
def test_no_value_is_cut_at_any_width(width):
    out = io.StringIO()
    show_table(Console(file=out, force_terminal=True, width=width, color_system=None), SPEEDS)
    text = out.getvalue()
    for row in SPEEDS.rows:
        for cell in row:
            assert all(word in text.split() for word in str(cell).split()), cell
    assert all(word in text for word in SPEEDS.note.split())
    assert max(map(len, text.splitlines())) <= width


def test_a_table_without_rows_is_its_header():
    out = io.StringIO()
    show_table(Console(file=out, force_terminal=True, width=80), Table("t", ["a", "b"], []))
    assert "a" in out.getvalue()
