"""Traces: played back they give the canvas, and recording one changes nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dlmlab.decoder.baseline import Baseline
from dlmlab.decoder.credit import Credit
from dlmlab.decoder.eb import EB
from dlmlab.decoder.klass import KLASS
from dlmlab.decoder.localleap import LocalLeap
from dlmlab.decoder.saber import Saber
from dlmlab.denoise import denoise
from dlmlab.record.traces import Trace, TraceFile, read, trace_of
from dlmlab.rule import Rule
from dlmlab.types import Generation, Output, Request
from tests.decoder.steps import NAMES, rule_of
from tests.fakes import EOS, EOT, MASK, FakeModel
from tests.test_properties import small_llada

GENERATION = Generation(gen_length=12, block_length=4, steps=6)
RULES: Sequence[Rule] = [
    Baseline(), LocalLeap(0.5, 0.3, 2), LocalLeap(0.4, 0.2, 1, "all"), EB(0.5), KLASS(0.5, 0.1, 1), Saber(2, 2),
    Credit(0.7, 0.8, 0.2, 0.9),
]  # fmt: skip
WAYS: dict[str, dict[str, Any]] = {
    "alone": {"batch_size": 1, "share": False},
    "shared": {"batch_size": 16},
    "memo": {"batch_size": 3, "memo": {}},
}


def run(traced: bool, batch_size: int = 8, **how: Any) -> list[Output]:
    prompts = [(1, 2), (1, 2), (3, 4, 5)]
    pairs = [(prompt, rule) for prompt in prompts for rule in RULES]
    waiting = [Request(position, prompt, rule, traced) for position, (prompt, rule) in enumerate(pairs)]
    return sorted(denoise(FakeModel(), waiting, GENERATION, batch_size, **how), key=lambda output: output.index)


def play(output: Output) -> tuple[list[int], list[int]]:
    """The canvas and the pass that each token came from, by what the trace says alone."""
    canvas, step_of = [MASK] * len(output.tokens), [0] * len(output.tokens)
    for number, moment in enumerate(output.trace):
        block = canvas[moment.begin : moment.begin + len(moment.tokens)]
        assert [token == MASK for token in block] == [math.isfinite(value) for value in moment.confidences]
        for position in moment.commit:
            assert math.isfinite(moment.confidences[position])
            canvas[moment.begin + position] = moment.tokens[position]
        for position in moment.revoke:
            assert block[position] != MASK
            canvas[moment.begin + position] = MASK
        for position in {*moment.commit, *moment.revoke}:
            step_of[moment.begin + position] = number
    return canvas, step_of


@pytest.mark.parametrize("way", WAYS)
def test_a_trace_played_back_is_the_output(way: str) -> None:
    for output in run(True, **WAYS[way]):
        assert len(output.trace) == output.forwards
        assert play(output) == (output.tokens, output.step_of)


@pytest.mark.parametrize("name", NAMES)
def test_every_decoder_of_the_lab_is_traced(name: str) -> None:
    """A small LLaDA, since it serves rules that ask for attention and tokens beside the canvas as well."""
    requests = [Request(index, prompt, rule_of(name), True) for index, prompt in enumerate([(1, 2), (3, 4, 5)])]
    for output in denoise(small_llada(), requests, GENERATION, 2):
        assert play(output) == (output.tokens, output.step_of)
        assert len(trace_of(small_llada(), output, name, "").steps) == output.forwards
        before = -len(requests[output.index].prompt)
        for moment in output.trace:
            assert all(token >= 0 for token, value in zip(moment.tokens, moment.confidences, strict=True) if value >= 0)
            assert all(before <= begin < end <= GENERATION.gen_length for begin, end in moment.computed)


@pytest.mark.parametrize("way", WAYS)
def test_a_trace_is_what_it_would_be_alone_and_changes_nothing(way: str) -> None:
    traced = run(True, **WAYS[way])
    assert [output.trace for output in traced] == [output.trace for output in run(True, 1, share=False)]
    assert [(output.tokens, output.step_of) for output in traced] == [
        (output.tokens, output.step_of) for output in run(False, **WAYS[way])
    ]
    assert not any(output.trace for output in run(False, **WAYS[way]))


def test_marks_say_why_localleap_commits() -> None:
    found = {"anchor": 0, "neighbour": 0}
    for output in run(True)[1:3]:
        for moment in output.trace:
            assert moment.marks.keys() == found.keys()
            assert set(moment.marks["neighbour"]) <= set(moment.commit) - set(moment.marks["anchor"])
            for name, positions in moment.marks.items():
                found[name] += len(positions)
    assert all(found.values()), "nothing was marked, so that nothing was tested"


def words(index: int, decoder: str = "eb") -> Trace:
    return trace_of(FakeModel(), run(True)[3], decoder, "\u2028 <b>\n", task="t", index=index)


def test_a_trace_in_words_without_a_tokenizer() -> None:
    output = run(True)[3]
    trace = words(0)
    assert trace.tokens == [str(token) for token in output.tokens]
    assert (trace.gen_length, trace.block_length) == (12, 4)
    assert trace.end_tokens == [str(EOS), str(EOT)]
    first, last = trace.steps[0], trace.steps[-1]
    assert (first["block"], last["block"]) == (0, 2)
    assert all(isinstance(token, str) for token in first["tokens"])
    assert first["confidence"] == [round(value, 4) for value in output.trace[0].confidences]
    assert [token is None for token in last["tokens"]] == [value is None for value in last["confidence"]]
    assert None in [token for step in trace.steps for token in step["tokens"]]


def test_a_file_is_sorted_and_a_torn_line_costs_itself(tmp_path: Path) -> None:
    file = TraceFile(tmp_path, 2)
    file.finish()
    assert not file.path.exists()
    hostile = (replace(words(2), steps=steps) for steps in ([3], [{}], [{"block": "0"}]))
    for trace in (words(1), words(0, "b"), *hostile, words(0, "a"), words(1)):
        file.add(trace)
    with file.path.open("a") as torn:
        torn.write('{"task": "t", "dec')
    file.finish()
    lines = [json.loads(line) for line in file.path.read_text().split("\n")[:-1]]
    assert [(each["index"], each["decoder"]) for each in lines] == [(0, "a"), (0, "b"), (1, "eb")]
    assert read(file.path)["t", 1, "eb"] == words(1)
