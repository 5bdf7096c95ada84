"""A prompt traced from the command line, and traces of other experiments."""

from __future__ import annotations

import json
import shutil

import pytest
from PIL import Image

from dlmlab.record.traces import read
from tests.documented import check_summary

SMALL = ["memo=off", "device=cpu", "tracking=terminal"]


def test_decoders_are_traced_beside_each_other(command, tmp_path):
    prompt = "Share 21 nuts fairly among Ann, Ida and Bob."
    status, shown, _ = command("experiment=trace", f'prompt="{prompt}"', "decoders=[localleap,baseline]", *SMALL)
    assert status == 0
    run = tmp_path / "run"
    traces = read(run / "traces.jsonl")
    forwards = json.loads((run / "results.json").read_text())["forwards"]
    assert list(forwards) == ["localleap", "baseline"]
    check_summary(run)
    assert forwards["baseline"] == 16 > forwards["localleap"]
    assert {name: len(trace.steps) for (_, _, name), trace in traces.items()} == forwards
    assert {trace.prompt for trace in traces.values()} == {prompt}
    assert f"viewer: {run / 'viewer.html'}" in shown
    with Image.open(run / "denoising.gif") as film:
        assert film.n_frames == 17
    assert (run / "denoising.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["experiment=trace"], "prompt is empty: give one"),
        (["experiment=trace", "prompt=' '"], "prompt is empty: give one"),
        (["experiment=trace", "prompt='\udcff'"], r"prompt=\udcff is not UTF-8"),
        (["experiment=trace", "prompt=a", "decoders=[foo]"], "decoders has 'foo', which is not one of"),
        (["experiment=trace", "prompt=a", "generation.steps=65"], "steps=65"),
        (["experiment=evaluate", "trace=some"], "trace='some' is not true or false"),
        (["experiment=evaluate", "trace=true", "trace_limit=0"], "trace_limit=0 is not a positive integer"),
        (["trace=true"], "trace is not a setting"),
    ],
)
def test_bad_input_is_one_line(command, arguments, expected):
    status, _, errors = command(*arguments)
    assert status == 1
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    assert expected in errors


def test_an_evaluation_traces_its_first_items(command, tmp_path):
    arguments = ["experiment=evaluate", "task=tiny_open", "decoder=eb", "task.limit=5", "trace=true", "trace_limit=3"]
    assert command(*arguments, *SMALL)[0] == 0
    traces = list(read(tmp_path / "run" / "traces.jsonl"))
    assert traces == [("tiny_open", index, "candidate") for index in range(3)]


def test_gates_and_comparisons_trace_every_decoder(command, tmp_path):
    own = ["experiment=quality_gate", "tasks=[bleu]", "task.limit=2", "trace=true", "trace_limit=1"]
    assert command(*own, *SMALL)[0] == 0
    assert [name for _, _, name in read(tmp_path / "run" / "traces.jsonl")] == ["baseline", "candidate"]
    shutil.rmtree(tmp_path / "run")
    own = ["experiment=compare", "tasks=[tiny_mmlu]", "decoders=[eb]", "task.limit=2", "timed_items=0"]
    assert command(*own, "trace=true", "trace_limit=1", *SMALL)[0] == 0
    names = [name for _, _, name in read(tmp_path / "run" / "traces.jsonl")]
    assert names == ["baseline, 16 steps", "eb"]
