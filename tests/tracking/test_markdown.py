"""report.md and the performance log say what was run, and show any text as it is."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise

import pytest
from markdown_it import MarkdownIt

from dlmlab.tracking import Table
from dlmlab.tracking.markdown import LOG_HEADER, Markdown, code, escape
from tests.tracking.conftest import SPEED

NASTY = [
    "<script>alert(1)</script>",
    "a | b",
    "**bold** _it_ ~~no~~ `code`",
    "![x](http://example.org/x.png) [l](y)",
    "back\\slash \\| &amp; &",
    "$x^2$ # no heading",
    "``two`` ticks",
    "<!-- hidden -->",
]

ENTRY = """
## Performance benchmark — 2026-05-24

- **Hardware:** RTX 5070, 12 GB
- **Model:** llada15
- **Decoder:** localleap
- **Task:** open\\_prompts
- **Settings:** steps=16, gen\\_length=64
- **Command:** `python run.py decoder=localleap model=llada15`
- **Commit:** `0123456789ab` with uncommitted changes

| Metric | Value | Gate |
| --- | --- | --- |
| Tokens/sec batch=1 (baseline) | 32.9 |  |
| LocalLeap speedup batch=1 | 1.77× | ≥1.10× ✓ |

Canvas tokens.

**Verdict:** LocalLeap is 1.77× as fast.
"""


def shown(markdown: str) -> list[str]:
    """The texts that a reader of a page sees in table cells, without any markup's effect."""
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(markdown)
    cells = [after for token, after in pairwise(tokens) if token.type == "td_open"]
    kinds = {child.type for cell in cells for child in cell.children or ()}
    assert kinds <= {"text", "text_special"}, kinds
    return ["".join(child.content for child in cell.children or ()) for cell in cells]


def test_the_log_grows_by_one_entry_a_run(make_run, tmp_path):
    tracker = Markdown(str(tmp_path / "outputs" / "perf_log.md"))
    tracker.log(make_run())
    assert (tmp_path / "outputs" / "perf_log.md").read_text() == LOG_HEADER + ENTRY
    tracker.log(make_run())
    assert (tmp_path / "outputs" / "perf_log.md").read_text() == LOG_HEADER + ENTRY + ENTRY


def entries(log) -> int:
    return log.read_text().count("\n## ") if log.exists() else 0


def test_the_log_has_an_entry_a_run_of_the_experiments_that_are_asked_for(make_run, tmp_path):
    run, log = make_run(), tmp_path / "log.md"
    gate = replace(run, experiment="quality_gate")
    Markdown(str(log)).log(gate)
    assert entries(log) == 0
    assert (run.folder / "report.md").exists()
    Markdown(str(log), ["throughput", "quality_gate"]).log(gate)
    assert entries(log) == 1


def test_a_multirun_is_one_entry(make_run, tmp_path):
    job, log = make_run(), tmp_path / "log.md"
    (job.folder.parent / "multirun.yaml").touch()
    tracker = Markdown(str(log))
    tracker.log(job)
    assert entries(log) == 0
    summary = replace(make_run(results={"of": "throughput"}), folder=job.folder.parent, experiment="multirun")
    tracker.log(summary)
    assert entries(log) == 1


def test_the_report_is_question_setting_table_verdict_picture(make_run, tmp_path):
    run = make_run()
    picture = run.folder / "the order.png"
    details = Table("Details", ["Path"], [["ours"]])
    Markdown(str(tmp_path / "log.md")).log(make_run(pictures=[picture], tables=[SPEED, details]))
    text = (run.folder / "report.md").read_text()
    assert text.startswith("# Performance benchmark\n\nHow much faster is LocalLeap?\n")
    parts = [
        "How much faster is LocalLeap?",
        "- **Settings:** steps=16",
        "| LocalLeap speedup batch=1 | 1.77× | ≥1.10× ✓ |",
        "**Verdict:** LocalLeap is 1.77× as fast.",
        "![the order](the%20order.png)",
        "**Details**",
    ]
    assert [text.count(part) for part in parts] == [1] * len(parts)
    assert sorted(parts, key=text.index) == parts, "what answers comes first"


def test_a_titled_table_has_its_title_above(make_run, tmp_path):
    Markdown(str(tmp_path / "log.md")).log(make_run(tables=[Table("HF reference", ["Path"], [["ours"]])]))
    assert "\n\n**HF reference**\n\n| Path |\n" in (tmp_path / "log.md").read_text()


@pytest.mark.parametrize("text", NASTY)
def test_text_from_a_model_is_shown_as_it_is(make_run, tmp_path, text):
    Markdown(str(tmp_path / "log.md")).log(make_run(tables=[Table("", ["answer", "n"], [[text, 1]])]))
    assert shown((tmp_path / "log.md").read_text()) == [text, "1"]


def test_control_codes_and_newlines_are_shown():
    assert escape("a\x1b[1m\n") == r"a\\x1b\[1m\\n"


@pytest.mark.parametrize("text", ["plain", "a `b` c", "``", "`a", "<b> & *"])
def test_code_spans_keep_their_text(text):
    tokens = MarkdownIt("commonmark").parseInline(code(text))[0].children
    assert [(token.type, token.content) for token in tokens] == [("code_inline", text)]


def test_no_commit_outside_of_a_checkout(make_run, tmp_path):
    run = make_run()
    run = type(run)(run.folder, run.experiment, run.labels, {**run.manifest, "git": None}, run.report)
    Markdown(str(tmp_path / "log.md")).log(run)
    assert not re.search("Commit", (tmp_path / "log.md").read_text())
