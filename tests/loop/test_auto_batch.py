"""batch_size=auto: the size that is fastest and fits, by trying."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from dlmlab.decoder.baseline import Baseline
from dlmlab.decoder.credit import Credit
from dlmlab.decoder.threshold import Threshold
from dlmlab.errors import UserError
from dlmlab.generation import decode, generate
from dlmlab.loop.auto_batch import MOST, search
from dlmlab.loop.batch import Batch
from dlmlab.loop.row import Row
from dlmlab.rule import Rule
from dlmlab.types import Generation, Request
from tests.fakes import FakeModel, SmallDevice

GENERATION = Generation(gen_length=8, block_length=4, steps=4)
REQUESTS = [Request(position, (position % 7,) * (1 + position % 5), Baseline()) for position in range(100)]


@pytest.mark.parametrize(
    ("room", "most", "chosen"),
    [(1000, 100, 100), (1000, 64, 64), (1000, 1, 1), (37, 100, 36), (1, 100, 1), (2, 9, 2), (3, 9, 3), (64, 100, 64)],
)
def test_where_more_is_always_faster_the_largest_that_fits(room: int, most: int, chosen: int) -> None:
    size, rates = search(lambda size: float(size) if size <= room else 0.0, most)
    assert size == chosen
    assert size >= min(room, most) - max(1, min(room, most) // 8)
    assert max(rates) <= most


def test_growing_ends_where_it_gains_nothing() -> None:
    size, rates = search(lambda size: float(min(size, 10)), 1000)
    assert size == 16
    assert list(rates) == [1, 2, 4, 8, 16, 32]


def test_where_nothing_fits() -> None:
    assert search(lambda size: 0.0, 8) == (0, {1: 0.0})


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A small device whose clock is the one that a batch size is chosen by."""

    def make(**options: Any) -> SmallDevice:
        model = SmallDevice(**options)
        monkeypatch.setattr("dlmlab.loop.auto_batch.time", SimpleNamespace(perf_counter=lambda: model.seconds))
        return model

    return make


def test_the_largest_that_fits_is_chosen_and_said(device: Any, capfd: pytest.CaptureFixture[str]) -> None:
    model, batch = device(room=20, least=1000.0), Batch("auto")
    found = list(decode(model, REQUESTS, GENERATION, batch_size=batch))
    assert 18 <= batch.size <= 20
    [chosen] = batch.log
    assert chosen["size"] == batch.size
    assert chosen["canvases per second"][32] == 0.0
    error = capfd.readouterr().err
    assert error.startswith(
        f"batch_size=auto: {batch.size} (canvases a second in one step, by size: 1: 0.001, 2: 0.002"
    )
    assert "32: no room" in error
    assert error.count("\n") == 1
    calm = decode(FakeModel(), REQUESTS, GENERATION, batch_size=1)
    by_index = {each.index: each for each in calm}
    assert {each.index: each for each in found} == by_index
    assert str(batch) == f"auto: {batch.size}"


def test_a_batch_that_is_no_faster_is_not_chosen(device: Any) -> None:
    batch = Batch("auto")
    list(decode(device(room=1000, least=8.0), REQUESTS, GENERATION, batch_size=batch))
    assert batch.size == 8


def test_a_cpu_s_batch_is_bounded_and_none_is_larger_than_what_waits(device: Any) -> None:
    for number in (100, 5):
        batch, model = Batch("auto"), device(room=1000, least=1000.0)
        list(decode(model, REQUESTS[:number], GENERATION, batch_size=batch))
        assert batch.size == max(model.batches) == min(number, MOST["cpu"])


def test_it_is_tried_once_for_the_same_canvases_and_again_for_others(device: Any) -> None:
    model, batch = device(room=1000, least=1000.0), Batch("auto")
    for generation, times in ((GENERATION, 1), (GENERATION, 1), (Generation(12, 4, 3), 2)):
        list(decode(model, REQUESTS, generation, batch_size=batch))
        assert len(batch.log) == times


def test_the_longest_canvases_and_the_rule_that_needs_most_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[tuple[type[Rule], int]] = []

    def note(model: Any, rows: Sequence[Row], share: bool) -> None:
        assert not share
        tried.append((type(rows[0].request.rule), len(rows[0].tokens)))

    monkeypatch.setattr("dlmlab.loop.auto_batch.advance", note)
    rules = [Threshold(0.5), Credit(0.9, 0.5, 1.0, 0.5), Baseline()]
    some = [Request(position, (1,) * length, rules[position]) for position, length in enumerate((1, 3, 2))]
    list(decode(FakeModel(), some, GENERATION, batch_size="auto"))
    assert tried[0] == (Credit, 3 + GENERATION.gen_length)


def test_halving_after_the_choice_lasts(device: Any) -> None:
    model, batch = device(room=16, least=1000.0), Batch("auto")
    list(decode(model, REQUESTS, GENERATION, batch_size=batch))
    model.room = 10
    list(decode(model, REQUESTS, GENERATION, batch_size=batch))
    list(decode(model, REQUESTS, GENERATION, batch_size=batch))
    assert [each["size"] for each in batch.log] == [16, 8]


def test_where_not_even_one_fits(device: Any) -> None:
    with pytest.raises(UserError, match=r"out of memory: a single canvas does not fit the device \(20.00 MiB more"):
        list(decode(device(room=0), REQUESTS, GENERATION, batch_size="auto"))


def test_from_python() -> None:
    prompts, own = [[1], [1, 2, 3], [1, 2], [4] * 6], {"gen_length": 8, "block_length": 4, "steps": 4}
    usual = generate(FakeModel(), prompts, Baseline(), **own)
    assert generate(FakeModel(), prompts, Baseline(), **own, batch_size="auto") == usual
    assert list(decode(FakeModel(), [], GENERATION, batch_size="auto")) == []
