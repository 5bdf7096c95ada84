"""The answering table in Markdown and LaTeX: what stands in a cell is shown, and is never a command."""

from __future__ import annotations

import re

import pytest

from dlmlab.tracking import Table, track
from dlmlab.tracking.table import booktabs

NASTY = r"a_b & 5% {x} ~^\input{/etc/passwd} <>#$ \\ % comment"
SHOWN = (
    r"a\_b \& 5\% \{x\} \textasciitilde{}\textasciicircum{}\textbackslash{}input\{/etc/passwd\} $<$$>$\#\$ "
    r"\textbackslash{}\textbackslash{} \% comment"
)


def body(text: str) -> list[str]:
    return text.partition("\\toprule\n")[2].partition("\\bottomrule")[0].splitlines()


def test_a_run_s_first_table_stands_beside_its_results(make_run):
    run = make_run()
    track([], run)
    assert (run.folder / "table.md").read_text().startswith("| Metric | Value | Gate |\n")
    text = (run.folder / "table.tex").read_text()
    assert body(text) == [
        r"Metric & Value & Gate \\",
        r"\midrule",
        r"Tokens/sec batch=1 (baseline) & 32.9 &  \\",
        r"LocalLeap speedup batch=1 & 1.77$\times$ & $\ge$1.10$\times$ yes \\",
    ]
    assert r"\caption{Canvas tokens.}" in text
    assert r"\begin{tabular}{lrl}" in text


def test_groups_of_rows_are_parted():
    table = Table("t", ["task", "n"], [["a", 1], ["a", 2], ["b", 3]])
    assert body(booktabs(table))[2:] == [r"a & 1 \\", r"a & 2 \\", r"\midrule", r"b & 3 \\"]


@pytest.mark.parametrize("place", ["cell", "column", "note"])
def test_special_characters_are_shown(place):
    cell, column, note = (NASTY if place == each else "x" for each in ("cell", "column", "note"))
    text = booktabs(Table("t", [column], [[cell]], note=note))
    assert text.count(SHOWN) == 1
    inert = re.sub(
        r"\\(begin|end)\{\w+\}|\\(caption|centering|toprule|midrule|bottomrule)", "", text.partition("\n")[2]
    )
    assert "input{" not in inert
    assert not re.search(r"(?<!\\)%", inert), "nothing is commented out"


def test_control_codes_and_newlines_are_shown():
    assert r"\textbackslash{}x1b[1m\textbackslash{}n" in booktabs(Table("t", ["a"], [["\x1b[1m\n"]]))
