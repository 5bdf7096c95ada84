"""The answering table in Markdown and LaTeX: what stands in a cell is shown, and is never a command."""

from __future__ import annotations

import re
import shutil
import subprocess

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
    assert r"\caption{Performance benchmark}" in text
    assert r"\label{tab:performance-benchmark}" in text
    assert r"{\footnotesize Canvas tokens.}" in text
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
        r"\\(begin|end)\{\w+\}|\\(caption|centering|\w+rule|footnotesize|par|smallskip|parbox|linewidth|label|resizebox)",
        "",
        text.partition("\n")[2],
    )
    assert "input{" not in inert
    assert not re.search(r"(?<!\\)%", inert), "nothing is commented out"


def test_control_codes_and_newlines_are_shown():
    assert r"\textbackslash{}x1b[1m\textbackslash{}n" in booktabs(Table("t", ["a"], [["\x1b[1m\n"]]))


def test_a_minus_is_a_minus_and_a_bracket_opens_no_option():
    rows = body(booktabs(Table("t", ["a", "b"], [["[x]", "-1.5 … -0.5"], ["2026-11-20", "e-mail"]])))
    assert rows[2] == r"{}[x] & $-$1.5 \ldots{} $-$0.5 \\"
    assert rows[3] == r"2026-11-20 & e-mail \\"


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs LaTeX (pdflatex)")
def test_latex_sets_it_on_one_page(tmp_path):
    wide = Table("A title", [f"column {n}" for n in range(12)], [["[a_b]", *["-12.5 … 3"] * 11]] * 4, note=NASTY)
    source = (
        r"\documentclass{article}\usepackage{booktabs,graphicx}\begin{document}" + booktabs(wide) + r"\end{document}"
    )
    (tmp_path / "t.tex").write_text(source)
    run = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "t.tex"], cwd=tmp_path, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout[-2000:]
    assert "Overfull" not in run.stdout
