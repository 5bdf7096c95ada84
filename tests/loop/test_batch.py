"""Out of memory: the batch is halved, and no row is lost, decoded twice or changed by it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dlmlab.decoder.baseline import Baseline
from dlmlab.decoder.klass import KLASS
from dlmlab.decoder.localleap import LocalLeap
from dlmlab.decoder.random import Random
from dlmlab.decoder.threshold import Threshold
from dlmlab.denoise import StepTiming, denoise
from dlmlab.errors import UserError
from dlmlab.generation import decode
from dlmlab.loop.batch import Batch, no_room
from dlmlab.measure.timing import time_decode
from dlmlab.rule import Rule
from dlmlab.types import Generation, Output, Request
from tests.fakes import OUT_OF_MEMORY, FakeModel, SmallDevice

GENERATION = Generation(gen_length=12, block_length=4, steps=6)
WARM = Generation(gen_length=12, block_length=4, steps=6, temperature=0.7)
PROMPTS = [(position % 19, *range(position % 5)) for position in range(20)]
RULES = [Baseline(), Threshold(0.4), LocalLeap(0.5, 0.3, 2), Random(), KLASS(0.6, 0.01, 2)]


def requests(rules: list[Rule]) -> list[Request]:
    return [Request(position, prompt, rules[position % len(rules)]) for position, prompt in enumerate(PROMPTS)]


def run(model: Any, rules: list[Rule], generation: Generation, batch: int | Batch, **options: Any) -> list[Output]:
    return list(denoise(model, requests(rules), generation, batch, **options))


@pytest.mark.parametrize("generation", [GENERATION, WARM], ids=["greedy", "warm"])
@pytest.mark.parametrize("rules", [RULES, RULES[1:2], RULES[3:4]], ids=["all", "threshold", "random"])
@pytest.mark.parametrize("memo", [True, False], ids=["memo", "no memo"])
def test_halving_changes_nothing_but_the_batch(rules: list[Rule], generation: Generation, memo: bool) -> None:
    calm = run(FakeModel(), rules, generation, 16, memo={} if memo else None)
    batch, ticks = Batch(16), list[StepTiming]()
    model = SmallDevice(room=3)
    found = run(model, rules, generation, batch, memo={} if memo else None, on_step=ticks.append)
    assert sorted(found, key=lambda each: each.index) == sorted(calm, key=lambda each: each.index)
    assert len(found) == len({each.index for each in found}) == len(PROMPTS)
    assert sum(tick.rows for tick in ticks) == sum(each.forwards for each in found), "a step was counted twice"
    assert batch.size <= 3
    assert [each["size"] for each in batch.log] == [each["out of memory at"] // 2 for each in batch.log]


def test_it_says_so_once_for_each_halving_and_stays_there(caplog: pytest.LogCaptureFixture) -> None:
    batch, model = Batch(16), SmallDevice(room=7)
    run(model, [Baseline()], GENERATION, batch)
    assert [each["size"] for each in batch.log] == [8, 4]
    numbers = "20.00 MiB more were needed, 12.31 MiB of 11.76 GiB are free"
    assert caplog.messages == [
        f"out of memory with a batch of 16 ({numbers}): going on with 8",
        f"out of memory with a batch of 8 ({numbers}): going on with 4",
    ]
    assert [size for size in model.batches if size > 7] == [16, 8]
    assert str(batch) == "16: 4"


def test_where_nothing_fits_the_numbers_are_told() -> None:
    with pytest.raises(UserError, match=r"a batch of 1 .*20.00 MiB more were needed, 12.31 MiB of 11.76 GiB are free"):
        run(SmallDevice(room=0), [Baseline()], GENERATION, 8)


def test_a_speed_is_not_measured_at_another_batch_than_it_says() -> None:
    model = SmallDevice(room=3)
    with pytest.raises(UserError, match=r"a batch of 4 does not fit .*: lower batch_size or batch_sizes"):
        time_decode(model, requests([Baseline()]), GENERATION, 4)


def test_another_error_is_not_taken_for_a_lack_of_memory() -> None:
    class Broken(FakeModel):
        def head(self, hidden_ND: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("not this one")

    with pytest.raises(RuntimeError, match="not this one"):
        run(Broken(), [Baseline()], GENERATION, 8)


def test_the_failed_step_s_tensors_are_gone_when_it_is_done_again() -> None:
    """On a GPU, what the failed step holds would be missing from its second try."""
    import weakref

    held: list[weakref.ref[torch.Tensor]] = []

    def work(part: list[int]) -> int:
        assert all(each() is None for each in held)
        tensor = torch.zeros(len(part))
        held.append(weakref.ref(tensor))
        if len(part) > 2:
            raise torch.OutOfMemoryError(OUT_OF_MEMORY)
        return int(tensor.sum()) + len(part)

    assert sum(Batch(8).each([1] * 11, work)) == 11


@pytest.mark.parametrize("size", [0, -1, 1.5, True, None, "many", "8"])
def test_what_is_no_batch_size(size: Any) -> None:
    with pytest.raises(UserError, match=r"batch_size=.* is (not a|neither a) positive integer"):
        list(decode(FakeModel(), requests([Baseline()]), GENERATION, batch_size=size))


def test_a_message_without_numbers_is_passed_on() -> None:
    assert "(HIP out of memory)" in str(no_room("it", "HIP out of memory\nand more", "shrink"))
