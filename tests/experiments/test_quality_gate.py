"""The quality gates from the command line, on the shipped model."""

from __future__ import annotations

import json
import shutil

import pytest

from dlmlab.record.samples import read_samples
from dlmlab.verify import verify
from experiments.quality_gate import answer, gate_table
from tests.documented import check_summary

SMALL = ["experiment=quality_gate", "memo=off", "device=cpu", "tracking=terminal"]
FIELDS = {"name", "baseline", "candidate", "difference", "ci_low", "ci_high", "margin", "point_pass", "verdict", "n"}
ALL_AT_ONCE = ["decoder=localleap_paper", "decoder.kappa=0", "decoder.tau=0", "decoder.radius=64"]


def results(folder):
    return json.loads((folder / "run" / "results.json").read_text())


def titles(folder):
    return [table["title"] for table in results(folder)["tables"]]


def gate(name, baseline, candidate, **others):
    return dict.fromkeys(FIELDS) | {"items_to_decide": None} | {
        "name": name, "baseline": baseline, "candidate": candidate, "verdict": "pass", **others
    }  # fmt: skip


def test_differences_and_their_intervals_are_signed_and_scores_are_not():
    gates = [
        gate("mmlu", 0.8, 0.9, difference=0.1, ci_low=-0.05, ci_high=0.25),
        gate("bleu", None, 0.9, ci_low=0.85, ci_high=0.95),
    ]
    table = gate_table(gates, by_text=True)
    assert [row[3:5] for row in table.rows] == [["+10.0", "-5.0 … +25.0"], ["", "85.0 … 95.0"]]
    assert table.columns[-2:] == ["items", "items to decide"]


def test_a_gate_that_nobody_can_fail_is_said_to_be_one():
    idle, hard = gate("humaneval", 0.0, 0.0), gate("mmlu", 0.0, 0.1)
    assert answer([idle, hard]).endswith(" Neither has anything right in humaneval, where nothing can be lost.")
    assert "Neither" not in answer([hard])


def test_gates_have_verdicts_noise_and_samples(command, tmp_path):
    status, shown, _ = command(*SMALL, "tasks=[mmlu,bleu,determinism]", "task.limit=4", "gates.mmlu.limit=3")
    assert status == 0
    found = results(tmp_path)
    assert [gate["name"] for gate in found["gates"]] == ["mmlu", "bleu", "determinism"]
    for gate in found["gates"]:
        assert gate.keys() >= FIELDS
    mmlu, bleu, determinism = found["gates"]
    assert (mmlu["n"], bleu["n"], determinism["n"]) == (3, 4, 4)
    assert mmlu["verdict"] == "inconclusive"  # three items cannot show one point
    assert mmlu["margin"] == 0.01
    assert (determinism["verdict"], determinism["baseline"], determinism["ci_low"]) == ("pass", None, None)
    assert {row["n"] for row in found["noise_floor"]} == {4}
    assert len(found["noise_floor"]) == 3
    noise = ("batch 1", "once", "other precision", "padded", "twice", "unshared")
    decoders = {"tiny_mmlu": ("baseline", "candidate"), "tiny_open": sorted(("baseline", "candidate", *noise))}
    assert [(each.task, each.decoder, each.index) for each in read_samples(tmp_path / "run")] == [
        (task, decoder, index)
        for task, n in (("tiny_mmlu", 3), ("tiny_open", 4))
        for decoder in decoders[task]
        for index in range(n)
    ]
    assert "Noise floor" in shown
    assert "sacreBLEU's corpus score, smoothing exp" in " ".join(shown.split())
    assert len(set(titles(tmp_path))) == len(titles(tmp_path))
    check_summary(tmp_path / "run")


def test_a_failed_gate_is_status_3(command, tmp_path):
    status, _, _ = command(*SMALL, *ALL_AT_ONCE, "tasks=[bleu]", "task.limit=24", "gates.bleu.margin=0.99")
    assert results(tmp_path)["gates"][0]["verdict"] == "fail"
    assert status == 3


def test_any_task_is_a_gate_once_it_has_a_margin(command, tmp_path):
    lines = [{"question": f"What is {n} + 1?", "answer": str(n + 1)} for n in range(4)]
    file = tmp_path / "sums.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    status, shown, errors = command(
        *SMALL, "tasks=[jsonl]", "+gates.jsonl.margin=0.1", "+gates.jsonl.steps=8", f"task.path={file}"
    )
    assert status == 0, errors
    [gate] = results(tmp_path)["gates"]
    assert (gate["name"], gate["margin"], gate["n"]) == ("jsonl", 0.1, 4)
    assert "jsonl" in shown
    found = verify(tmp_path / "run")
    assert (found.problems, found.unchecked) == ([], [])


@pytest.mark.skipif(not shutil.which("bwrap"), reason="bubblewrap is not installed")
def test_functions_are_scored_three_ways(command, tmp_path):
    status, shown, _ = command(*SMALL, "tasks=[humaneval]", "gates.humaneval.limit=3", "decoder=baseline")
    assert status == 0
    [gate] = results(tmp_path)["gates"]
    assert (gate["difference"], gate["verdict"], gate["n"]) == (0, "inconclusive", 3)
    assert "tiny_humaneval: score by how the answer is extracted" in titles(tmp_path)
    for extraction in ("raw", "fenced", "sanitised"):
        assert extraction in shown
