"""What an evaluation shows: names, units, how much was taken, and whether the score means anything."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from dlmlab.record.samples import Sample
from dlmlab.run.cli import FAILED_GATE, INTERRUPTED
from dlmlab.run.samples import all_items, beats_empty, detail_tables
from dlmlab.task.base import Item, Score
from tests.experiments.fakes import Bench, Words


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("bench"))


def evaluation(bench, name, *arguments):
    assert bench("experiment=evaluate", "decoder=threshold", *arguments, f"hydra.run.dir={bench.folder / name}") == 0
    return bench.results(name)


def test_an_evaluation_names_its_task_model_decoder_and_items(bench):
    results = evaluation(bench, "names")
    [first, *_] = results["tables"]
    shown = dict(first["rows"])
    assert shown["task"] == "words"
    assert shown["model"] == str(bench.model)
    assert shown["decoder"].startswith("Threshold(")
    assert shown["items"] == "12 of 40"
    assert shown["score"] == f"{100 * results['score']:.1f}"
    assert shown["95 % interval"] == f"{100 * results['ci_low']:.1f} … {100 * results['ci_high']:.1f}"
    assert not {"ci_low", "ci_high", "n"} & shown.keys()
    assert not any("forwards" in name or " per " in name for name in shown)
    for said in ("Threshold(", "at words with", f"score {shown['score']}", "12 of 40 items"):
        assert said in results["verdict"]
    assert "empty" not in results["verdict"]


def test_a_score_that_empty_answers_reach_is_said_to_be_no_better(bench):
    results = evaluation(bench, "hopeless", "task.right=0")
    assert results["score"] == 0
    assert results["verdict"].endswith("That is no better than empty answers score.")
    assert results["beats_empty"] is False


def test_ctrl_c_while_answers_are_scored_keeps_what_was_scored(bench, monkeypatch, capfd):
    scored = []
    first = "words/2"  # decoded first, since its prompt is among the longest

    def score(self, item, text):
        if not text:  # at the end, what empty answers score
            return Score(0.0)
        if item.id == first:
            os.kill(os.getpid(), signal.SIGINT)  # once: twice would end at once
            time.sleep(0.1)  # until the main thread has seen it
        scored.append(item.id)
        return Score(1.0)

    monkeypatch.setattr(Words, "score", score)
    arguments = [
        "experiment=evaluate",
        "decoder=threshold",
        "batch_size=1",
        "memo=off",
        f"hydra.run.dir={bench.folder / 'cut'}",
    ]
    assert bench(*arguments) == INTERRUPTED
    kept = [json.loads(line)["id"] for line in (bench.folder / "cut" / "samples.jsonl").read_text().splitlines()]
    assert sorted(kept) == sorted(scored)
    assert 0 < len(kept) < 12
    assert f"resume={bench.folder / 'cut'}" in capfd.readouterr().err
    assert bench(*arguments) == 0
    assert len(scored) == len(set(scored)) == 12, "nothing is scored twice"
    assert bench.results("cut")["score"] == 1.0


@dataclass(frozen=True)
class Lenient:
    """A task in which every other empty answer is right."""

    asked: list[str]

    def items(self) -> Sequence[Item]:
        return [Item(str(number), "", "") for number in range(8)]

    def score(self, item: Item, text: str) -> Score:
        self.asked.append(item.id)
        return Score(float(int(item.id) % 2 == 0))


def sample(score, **others):
    return Sample("t", "candidate", 0, "0", "", "", [1], [0], 1, score, "", {}, **others)


@pytest.mark.parametrize(
    ("scores", "expected", "asked"),
    [([0] * 8, False, 0), ([1] * 8, True, 2), ([1] * 4 + [0] * 4, False, 7), ([1] * 5 + [0] * 3, True, 8),
     ([None], None, 0)],
)  # fmt: skip
def test_empty_answers_are_scored_until_it_is_certain(scores, expected, asked):
    task = Lenient([])
    assert beats_empty(task, [sample(score) for score in scores]) is expected
    assert len(task.asked) == asked


def test_all_of_a_task_s_items_are_counted_whatever_is_taken():
    assert all_items(Words(limit=3, shard=1, num_shards=2)) == 40
    assert all_items(Lenient([])) == 8


def test_tables_of_several_tasks_have_titles_of_their_own():
    wrong = [sample(0.0) for _ in range(2)]
    wrong = [Sample(**{**vars(each), "reason": "timeout", "variants": {"raw": 0.5}}) for each in wrong]
    first, second = detail_tables({"baseline": wrong, "candidate": wrong})
    assert first.title == "t: score by how the answer is extracted"
    assert (first.columns, first.rows) == (
        ["extraction", "score, baseline", "score, candidate"],
        [["raw", "50.0", "50.0"]],
    )
    assert second.columns == ["reason", "items, baseline", "items, candidate"]


def test_a_sweep_over_decoders_has_a_column_of_them_and_one_for_each_figure(bench, tmp_path):
    arguments = ["prompts=8", "repeats=1", "batch_sizes=[1]", "generation.gen_length=16", "generation.steps=8"]
    assert bench("-m", "decoder=threshold,entropy", *arguments, f"hydra.sweep.dir={tmp_path}") in (0, FAILED_GATE)
    [jobs, *_] = json.loads((tmp_path / "results.json").read_text())["tables"]
    rows = [dict(zip(jobs["columns"], row, strict=True)) for row in jobs["rows"]]
    assert [row["decoder"] for row in rows] == ["threshold", "entropy"]
    assert all(row["speedup/batch=1"] > 0 for row in rows)
    assert None not in [value for row in rows for value in row.values()]
