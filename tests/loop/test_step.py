"""One step. A model that works while the host goes on is asked ahead, and nothing but time comes of that."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from dlmlab.decoder.baseline import Baseline
from dlmlab.decoder.localleap import LocalLeap
from dlmlab.decoder.random import Random
from dlmlab.decoder.saber import Saber
from dlmlab.decoder.threshold import Threshold
from dlmlab.denoise import StepTiming, denoise
from dlmlab.denoiser import Query
from dlmlab.loop.finite import Changes
from dlmlab.loop.row import Row
from dlmlab.rule import Rule
from dlmlab.types import Generation, Output, Request
from tests.fakes import OUT_OF_MEMORY, FakeModel, ReadyFake, SmallDevice

PROMPTS = [(1, 2, 3), (4,), (5, 6, 7, 8, 9), (1, 2, 3), (3, 3), (8, 1, 8, 1), (2,), (7, 7, 7)]


@pytest.fixture(autouse=True)
def plain_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fake model has no kernel for its logits."""
    monkeypatch.setattr("dlmlab.loop.propose.in_one_pass", lambda generation, rule: False)


def run(
    model: FakeModel, rules: list[Rule], batch_size: int, temperature: float, share: bool
) -> tuple[list[Output], list[StepTiming]]:
    ticks: list[StepTiming] = []
    generation = Generation(gen_length=12, block_length=4, steps=6, temperature=temperature)
    waiting = [
        Request(position, prompt, rules[position % len(rules)], traced=True) for position, prompt in enumerate(PROMPTS)
    ]
    found = denoise(model, waiting, generation, batch_size, share=share, on_step=ticks.append)
    return sorted(found, key=lambda output: output.index), ticks


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("temperature", [0.0, 0.7])
@pytest.mark.parametrize("batch_size", [1, 3, 8])
@pytest.mark.parametrize(
    "rules",
    [[Baseline()], [LocalLeap(0.9, 0.7, 2), LocalLeap(0.5, 0.3, 4)], [Random()], [Saber(2, 2)], [Baseline(), Random()]],
    ids=["baseline", "localleap", "noise", "revokes", "two kinds"],
)
def test_who_is_asked_ahead_answers_the_same_and_computes_no_more(
    rules: list[Rule], batch_size: int, temperature: float, share: bool
) -> None:
    plain, ahead = FakeModel(), FakeModel(fused=True)
    outputs, ticks = run(plain, rules, batch_size, temperature, share)
    found, found_ticks = run(ahead, rules, batch_size, temperature, share)
    assert found == outputs
    assert (ahead.canvases, len(ahead.batches)) == (plain.canvases, len(plain.batches))
    assert [tick[1:] for tick in found_ticks] == [tick[1:] for tick in ticks]


def test_a_pass_is_under_way_before_the_step_before_it_is_written_down(monkeypatch: pytest.MonkeyPatch) -> None:
    model = FakeModel(fused=True)
    passes: list[int] = []
    commit = Row.commit

    def watched(row: Row, *told: Any) -> None:
        passes.append(len(model.batches))
        commit(row, *told)

    monkeypatch.setattr(Row, "commit", watched)
    run(model, [Baseline()], 8, 0.0, share=False)
    assert passes == [begun for begun in (2, 3, 4, 5, 6, 6) for _ in range(8)], "at the last step the rows are full"


class Crowded(FakeModel):
    """A fake model that finds no room in the middle of its second pass over more than three canvases."""

    def hidden(self, query: Query) -> Any:
        if sum(size > 3 for size in self.batches) == 1 and len(query.tokens_BL) > 3:
            raise torch.OutOfMemoryError(OUT_OF_MEMORY)
        return super().hidden(query)


@pytest.mark.parametrize("rule", [Baseline(), Saber(2, 2), Random()])
def test_a_step_whose_next_pass_finds_no_room_is_undone_whole(rule: Rule) -> None:
    (plain, _), (found, _) = (run(model, [rule], 8, 0.7, share=False) for model in (FakeModel(), Crowded(fused=True)))
    assert found == plain
    assert all(len(output.trace) == output.forwards for output in found)


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_a_device_without_room_gets_fewer_and_the_answers_stay(temperature: float) -> None:
    small = SmallDevice(room=3, fused=True)
    outputs, _ = run(FakeModel(), [Random()], 8, temperature, share=False)
    assert run(small, [Random()], 8, temperature, share=False)[0] == outputs


@pytest.mark.parametrize(
    ("rule", "seen"),
    [(Baseline(), ["begin", "arrived"] * 3 + ["arrived"]), (Threshold(1.0), ["arrived", "begin"] * 7 + ["arrived"])],
    ids=["keeps to its quota", "may fill a block"],
)
def test_a_pass_begins_before_the_tokens_arrive_where_no_block_can_be_full(
    rule: Rule, seen: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    happened, begin, arrived = list[str](), ReadyFake.begin, Changes.arrived

    def noted_begin(ready: ReadyFake) -> None:
        happened.append("begin")
        begin(ready)

    def noted_arrived(changes: Changes) -> list[np.ndarray]:
        happened.append("arrived")
        return arrived(changes)

    monkeypatch.setattr(ReadyFake, "begin", noted_begin)
    monkeypatch.setattr(Changes, "arrived", noted_arrived)
    list(denoise(FakeModel(fused=True), [Request(0, (1, 2, 3), rule)], Generation(8, 8, 4), 1))
    assert happened == seen
