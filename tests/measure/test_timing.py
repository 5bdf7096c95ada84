"""Speed figures: what is counted, in which order settings run, and what the clock and the memory gauge see."""

from __future__ import annotations

import sys
from functools import partial
from types import SimpleNamespace

import pytest
import torch

import dlmlab
from dlmlab.cache.dual import Dual
from dlmlab.decoder.baseline import Baseline
from dlmlab.denoise import StepTiming
from dlmlab.measure.timing import (
    Ledger,
    Timing,
    TimingFile,
    count,
    peak_memory,
    percentile,
    reset_peak_memory,
    spread,
    take_turns,
    time_decode,
)
from dlmlab.types import Generation, Request
from tests.model.helpers import save_small

CPU = torch.device("cpu")
END, TURN = 7, 8


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    save_small(folder)
    return dlmlab.load(str(folder), dtype="float32", device="cpu")


def test_ledger_counts_canvas_answer_and_tokens_that_end_nothing():
    model = SimpleNamespace(end_token_ids=(END, TURN))
    canvases = [[1, 2, END, 3], [1, 2, 3, 4], [TURN, END, END, END]]
    ledger = count(model, canvases, forwards=[2, 4, 1])
    assert ledger == Ledger(canvas=12, answer=2 + 4 + 0, non_eos=3 + 4 + 0, forwards=7)
    assert ledger.tokens_per_forward == 12 / 7


def test_jobs_take_turns_and_every_other_round_runs_backwards():
    order = []
    jobs = {name: lambda name=name: order.append(name) or len(order) for name in "abc"}
    done = []
    answers = take_turns(jobs, 3, done.append)
    assert "".join(order) == "abccbaabc"
    assert done == order
    assert answers == {"a": [1, 6, 7], "b": [2, 5, 8], "c": [3, 4, 9]}


def test_spread_and_percentile():
    assert spread([3.0, 1.0, 2.0, 10.0]) == (2.5, 1.0, 10.0)
    assert percentile([1.0, 2.0, 3.0], 50) == 2.0
    assert percentile([0.0, 1.0], 99) == pytest.approx(0.99)


def test_a_timed_run_computes_every_canvas_and_tells_its_steps(model):
    requests = [Request(index, (5, 6, 7), Baseline()) for index in range(3)]
    timing = time_decode(model, requests, Generation(8, 8, 4), batch_size=2)
    assert [tick.rows for tick in timing.steps] == [2] * 4 + [1] * 4
    assert [tick.computed for tick in timing.steps] == [tick.rows for tick in timing.steps]
    assert timing.ledger.forwards == 12
    assert timing.ledger.canvas == 24
    assert timing.most_steps == 4
    assert timing.tokens[0] == timing.tokens[1] == timing.tokens[2]
    assert 0 < sum(tick.seconds for tick in timing.steps) <= timing.seconds


def test_answers_stand_in_the_order_of_the_requests(model):
    prompts = [(5,), (6, 7, 8), (9, 10)]
    generation = Generation(8, 8, 8)
    together = time_decode(model, [Request(i, p, Baseline()) for i, p in enumerate(prompts)], generation, batch_size=3)
    alone = [time_decode(model, [Request(0, p, Baseline())], generation, batch_size=1).tokens[0] for p in prompts]
    assert list(together.tokens) == alone


def test_peak_memory_sees_what_was_given_back():
    reset_peak_memory(CPU)
    before = peak_memory(CPU)
    torch.ones(2**26)  # 256 MiB, gone at once
    assert peak_memory(CPU) - before > 200e6


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux lets a process reset its peak")
def test_peak_memory_counts_from_the_reset():
    torch.ones(2**26)
    high = peak_memory(CPU)
    reset_peak_memory(CPU)
    assert high - peak_memory(CPU) > 200e6


def test_a_turn_that_was_timed_is_not_timed_again(tmp_path):
    calls = []

    def job():
        calls.append(None)
        return Timing(0.1 * len(calls), Ledger(4, 3, 3, 2), [StepTiming(0.1, 2, 1)], 2, 5, [[1, 2]])

    jobs = {"a": job, "b": job}
    first = take_turns(jobs, 1, keep=TimingFile(tmp_path).keep)
    again = take_turns(jobs, 2, keep=TimingFile(tmp_path).keep)
    assert len(calls) == 4
    assert {key: each[:1] for key, each in again.items()} == first
    assert take_turns(jobs, 2, keep=partial(TimingFile(tmp_path).keep, part="another task")) != again


def test_a_damaged_timing_is_timed_again(tmp_path, caplog):
    jobs = {"a": lambda: Timing(0.1, Ledger(4, 3, 3, 2), [], 2, 5, [[1, 2]])}
    take_turns(jobs, 1, keep=TimingFile(tmp_path).keep)
    path = tmp_path / "timings.jsonl"
    path.write_text(path.read_text().replace("0.1", "0.2"))
    assert take_turns(jobs, 1, keep=TimingFile(tmp_path).keep)["a"][0].seconds == 0.1
    assert "1 of 1 lines are damaged: what they told is timed again" in caplog.text


def test_what_padding_computes_is_counted_as_for_nothing(model):
    generation = Generation(gen_length=8, block_length=4, steps=8)
    requests = [Request(index, (2,) * length, Baseline(), cache=Dual()) for index, length in enumerate((3, 5))]
    alone = time_decode(model, requests, generation, 1)
    assert alone.ran_over == alone.ledger.positions == 2 * (11 + 13 + 2 * 3 * 4)
    assert alone.for_nothing == 0.0
    together = time_decode(model, requests, generation, 2)
    assert together.ledger == alone.ledger
    assert together.ran_over == 2 * 2 * (13 + 3 * 4)  # where a block begins the shorter row has two positions too few
    assert together.for_nothing == 1 - 96 / 100


def test_a_model_that_does_not_count_says_nothing_of_it():
    assert Timing(0.1, Ledger(4, 3, 3, 2, positions=8), [], 2, 5, [[1, 2]]).for_nothing is None


def test_peak_memory_of_a_gpu_counts_what_recorded_passes_write_to(monkeypatch):
    def segment(device, pool, total, allocated):
        return {"device": device, "segment_pool_id": pool, "total_size": total, "allocated_size": allocated}

    segments = [segment(0, (0, 0), 900, 50), segment(0, (0, 2), 80, 30), segment(1, (0, 3), 700, 0)]
    monkeypatch.setattr(torch.cuda, "memory_snapshot", lambda: segments)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 400)
    assert peak_memory(torch.device("cuda:0")) == 450
