"""Decoders compared from the command line, on the shipped model."""

from __future__ import annotations

import json
import shutil

import pytest

from dlmlab.measure.aup import aup
from dlmlab.measure.timing import time_decode
from experiments import compare
from experiments.compare import answer, comparison_table, summary_of
from tests.documented import check_summary

SMALL = ["task.limit=4", "memo=off", "timed_items=2", "timed_rounds=1", "device=cpu", "tracking=terminal"]


def test_compare_writes_a_row_for_every_decoder_and_task(command, monkeypatch, tmp_path):
    seeds = set()

    def noted(*told):
        seeds.add(told[-1])
        return time_decode(*told)

    monkeypatch.setattr(compare, "time_decode", noted)
    asked = ["experiment=compare", "decoders=[localleap,eb]", "tasks=[tiny_open,tiny_mmlu]", "seed=7", *SMALL]
    status, shown, _ = command(*asked)
    assert (status, seeds) == (0, {7})
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    names = [(point["task"], point["name"]) for point in results["points"]]
    assert names == [
        *(("tiny_open", name) for name in ("baseline, 64 steps", "localleap", "eb")),
        *(("tiny_mmlu", name) for name in ("baseline, 16 steps", "localleap", "eb")),
    ]
    for point in results["points"]:
        assert point["n"] == 4
        assert point["tokens_per_second"]["median"] > 0
        canvas = 64 if point["task"] == "tiny_open" else 16
        assert point["forwards"] * point["tokens_per_forward"] == pytest.approx(canvas)
    assert results["points"][0]["forwards"] == 64
    assert "eb" in shown
    table = results["tables"][0]
    first, *others = table["rows"][:3]
    column = {name: place for place, name in enumerate(table["columns"])}
    assert [first[column[name]] for name in ("speedup in forwards", "speedup", "difference", "verdict")] == [None] * 4
    for row, point in zip(others, results["points"][1:3], strict=True):
        assert row[column["speedup in forwards"]] == f"{64 / point['forwards']:.2f}×"
        assert row[column["speedup"]] == f"{point['speedup']['median']:.2f}×"
        assert row[column["verdict"]] == point["against_baseline"]["verdict"]
    counted = results["tables"][1]
    assert counted["columns"] == [
        *("task", "decoder", "canvas tokens", "tokens before the end token", "non-EOS tokens"),
        "re-tokenised answer tokens",
    ]
    for (*_, canvas, before, _, again), point in zip(counted["rows"], results["points"], strict=True):
        assert canvas == f"{point['tokens_per_forward']:.2f}"
        assert 0 < float(again) <= float(before) < float(canvas)
    accuracies = [100 * point["score"] for point in results["points"][:3]]
    start, eb = ((point["tokens_per_forward"], 100 * point["score"]) for point in results["points"][:3:2])
    assert results["points"][2]["aup"] == aup([start, eb], max(accuracies))
    assert {key.partition("/")[0] for key in results["summary"]} == {"tiny_open", "tiny_mmlu"}
    assert not any(name in key for key in results["summary"] for name in ("localleap", "eb", "baseline"))
    assert "tiny_open: " in results["verdict"]
    assert {path.name for path in (tmp_path / "run").glob("*.png")} == {"quality_against_forwards.png"}
    for name in ("table.md", "table.tex"):
        rows = [line for line in (tmp_path / "run" / name).read_text().splitlines() if "baseline, " in line]
        assert len(rows) == 2
    check_summary(tmp_path / "run")


def test_what_a_decoder_draws_does_not_depend_on_those_beside_it(command, tmp_path):
    def order_of(decoder, *arguments):
        assert command(*arguments, "task=tiny_mmlu", "task.limit=3", "memo=off", "tracking=terminal")[0] == 0
        samples = map(json.loads, (tmp_path / "run" / "samples.jsonl").read_text().splitlines())
        found = {each["index"]: each["step_of"] for each in samples if each["decoder"] == decoder}
        shutil.rmtree(tmp_path / "run")
        return found

    alone = order_of("candidate", "experiment=evaluate", "decoder=random")
    assert len({tuple(order) for order in alone.values()}) == 3
    assert order_of("random", "experiment=compare", "decoders=[threshold,random]", "timed_items=0") == alone


def test_a_decoder_is_compared_at_its_authors_setting_and_the_table_names_it(command, tmp_path):
    """KLASS runs a schedule of one token a step where it falls back, in double precision; the task has 16 steps."""
    status, _, _ = command("experiment=compare", "decoders=[klass,margin]", "task=tiny_open", *SMALL)
    assert status == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    settings = {point["name"]: point["setting"] for point in results["points"]}
    assert settings == {
        "baseline, 64 steps": "64 steps, float32",
        "klass": "64 steps, float64",
        "margin": "16 steps, float32",
    }
    table = results["tables"][0]
    assert [row[table["columns"].index("setting")] for row in table["rows"]] == list(settings.values())


def found(name, role, verdict, forwards):
    speedup = {"median": 4.0, "low": 3.5, "high": 4.25}
    return {
        "name": name, "role": role, "task": "t", "n": 9, "setting": "", "score": 0.5, "ci_low": 0.25, "ci_high": 0.75,
        "forwards": forwards, "positions": 64.0, "full_passes": forwards, "tokens_per_forward": 2.0,
        "tokens_per_second": speedup, "speedup": speedup, "speedup in forwards": 64 / forwards, "aup": 100.0,
        "against_baseline": {"verdict": verdict, "difference": 0.1},
    }  # fmt: skip


def test_the_winner_keeps_the_score_with_the_fewest_forward_passes():
    points = [found("baseline", "baseline", "pass", 2), found("a", "", "pass", 16), found("b", "", "pass", 8)]
    points.append(found("c", "", "inconclusive", 4))
    expected = (
        "t: b is the fastest that keeps the baseline's score, with 8.00× fewer forward passes and 4.00× (3.50–4.25×)"
    )
    assert answer("t", points).startswith(expected)
    assert answer("t", [points[0], points[3]]) == "t: none is shown to keep the baseline's score."


def test_a_summary_s_keys_are_the_same_whoever_wins():
    points = [found("baseline", "baseline", "pass", 2), found("a", "", "pass", 16), found("c", "", "inconclusive", 4)]
    own = summary_of("t", points)
    assert own["t/winner"] == "a"
    assert own["t/speedup in forwards"] == 4.0
    assert summary_of("t", [points[0], points[2]]) == dict.fromkeys(own)


def test_no_decoder_wins_where_none_has_anything_right():
    points = [found("baseline", "baseline", "pass", 2) | {"score": 0.0}, found("a", "", "pass", 16) | {"score": 0.0}]
    assert answer("t", points) == "t: no decoder has anything right, so that none can be told from another."
    assert summary_of("t", points)["t/winner"] is None


def test_differences_are_in_points_and_a_speedup_has_its_range():
    table = comparison_table([found("baseline", "baseline", "pass", 2), found("a", "", "pass", 16)])
    row = dict(zip(table.columns, table.rows[1], strict=True))
    assert (row["score"], row["95 % interval"], row["difference"]) == ("50.0", "25.0 … 75.0", "+10.0")
    assert row["speedup"] == "4.00× (3.50–4.25×)"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["decoders=[]"], "decoders=[] is not a non-empty list, each text"),
        (["decoders=[foo]"], "foo"),
        (["baseline_steps=0"], "baseline_steps=0 is not a positive integer"),
        (["margin=2"], "margin=2 is not a number between"),
        (["tasks=[open_prompts]"], "no score of their own"),
        (["task=open_prompts"], "no score of their own"),
    ],
)
def test_bad_input_is_one_line(command, arguments, expected):
    status, _, errors = command("experiment=compare", *arguments)
    assert status == 1
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    assert expected in errors
