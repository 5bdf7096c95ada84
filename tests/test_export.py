"""A run in inspect_ai's format, read back by inspect_ai itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlmlab.export import main
from dlmlab.record.samples import read_samples

SMALL = ["experiment=evaluate", "task=tiny_mmlu", "task.limit=3", "generation.gen_length=8",
         "generation.block_length=8", "generation.steps=2", "memo=off", "device=cpu", "tracking=terminal"]  # fmt: skip


def test_inspect_ai_reads_what_is_exported(command, tmp_path: Path) -> None:
    log = pytest.importorskip("inspect_ai.log", reason="needs pip install 'dlmlab[inspect]'")
    assert command(*SMALL)[0] == 0
    run = tmp_path / "run"
    assert main(["inspect", str(run)]) == 0
    [file] = (run / "inspect").glob("*.eval")
    found = log.read_eval_log(str(file))
    samples = read_samples(run)
    assert (found.status, found.eval.task, found.eval.solver) == ("success", "tiny_mmlu", "candidate")
    assert [each.id for each in found.samples] == [each.id for each in samples]
    for theirs, ours in zip(found.samples, samples, strict=True):
        assert (theirs.input, theirs.output.completion) == (ours.prompt, ours.text)
        assert theirs.scores["score"].value == ours.score
    [score] = [each for each in found.results.scores if each.name == "score"]
    assert score.metrics["mean"].value == pytest.approx(sum(each.score for each in samples) / 3)


def test_a_folder_without_a_run_is_one_line(tmp_path: Path, capsys) -> None:
    assert main(["inspect", str(tmp_path)]) == 1
    assert capsys.readouterr().err.count("\n") == 1
