"""Caches in whole runs: resumed, verified, traced, calibrated and gated, on a small random checkpoint."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import asdict

import pytest

import dlmlab
from dlmlab.cache.prefix import Prefix
from dlmlab.decoder.localleap import LocalLeap
from dlmlab.record.samples import read_samples
from dlmlab.record.traces import read
from dlmlab.run.cli import INTERRUPTED
from dlmlab.verify import verify
from tests.experiments.fakes import Bench, Words

BLOCK, CANVAS = Words.block_length, Words.gen_length


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("bench"))


def ranges(trace):
    return [[tuple(part) for part in step["computed"]] for step in trace.steps]


def test_an_evaluation_follows_and_its_traces_show_what_each_pass_computed(bench):
    run = bench.folder / "traced"
    own = ["experiment=evaluate", "decoder=baseline", "cache=dual", "trace=true", "trace_limit=2"]
    assert bench(*own, f"hydra.run.dir={run}") == 0
    found = verify(run)
    assert not found.problems
    for sample in read_samples(run):
        prompt = len(sample.prompt.split()) + 1  # the chat template's
        assert sample.positions == 2 * (prompt + CANVAS) + (sample.forwards - 2) * BLOCK
        assert sample.full_passes == sample.positions / (prompt + CANVAS)
    for trace in read(run / "traces.jsonl").values():
        prompt = len(trace.prompt.split()) + 1
        first, *rest = ranges(trace)
        assert first == [(-prompt, CANVAS)]
        assert rest == [[(0, BLOCK)]] * 3 + [[(-prompt, CANVAS)]] + [[(BLOCK, CANVAS)]] * 3


@pytest.mark.parametrize("cache", ["prefix", "d2cache"])
def test_a_run_that_is_cut_off_goes_on_to_the_same_samples(bench, cache, monkeypatch):
    own = ["experiment=evaluate", "decoder=threshold", f"cache={cache}", "batch_size=3", "memo=off"]
    whole, cut = bench.folder / f"{cache} whole", bench.folder / f"{cache} cut"
    assert bench(*own, f"hydra.run.dir='{whole}'") == 0
    real = Words.score

    def score(self, item, text):
        if text and item.id == "words/2":  # among the first; scored once, since two signals would end the process
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)  # until the main thread has seen it
        return real(self, item, text)

    with monkeypatch.context() as patch:
        patch.setattr(Words, "score", score)
        assert bench(*own, f"hydra.run.dir='{cut}'") == INTERRUPTED
    assert 0 < len(read_samples(cut)) < len(read_samples(whole))
    assert bench(*own, f"resume='{cut}'") == 0
    assert list(map(asdict, read_samples(cut))) == list(map(asdict, read_samples(whole)))


def test_a_calibration_decodes_every_setting_with_the_cache_and_the_baseline_without(bench):
    run = bench.folder / "calibration"
    grid = ["grid.kappa=[0.02,0.09]", "grid.tau=[0.012]", "grid.radius=[1]"]
    own = ["decoder=localleap", "cache=prefix", "task.limit=8", "calibration.margin=0.9", "calibration.timed_items=0"]
    assert bench("experiment=calibration", *grid, *own, f"hydra.run.dir={run}") == 0
    model = dlmlab.load(str(bench.model), device="cpu", dtype="float32")
    decoders = {sample.decoder for sample in read_samples(run)}
    assert len(decoders) == 3
    settings = {"gen_length": CANVAS, "block_length": BLOCK, "steps": Words.steps}
    for sample in read_samples(run):
        if sample.decoder == "baseline":
            assert sample.full_passes == sample.forwards
            continue
        kappa = 0.02 if "0.02" in sample.decoder else 0.09
        [alone] = dlmlab.generate(model, [sample.prompt], LocalLeap(kappa, 0.012, 1), cache=Prefix(), **settings)
        assert (sample.tokens, sample.positions) == (alone.tokens, alone.positions)
        assert sample.full_passes < sample.forwards


def test_a_gate_s_candidate_has_the_cache_and_its_baseline_has_none(command, tmp_path):
    own = ["experiment=quality_gate", "cache=dual", "tasks=[bleu]", "task.limit=3", "memo=off"]
    assert command(*own, "device=cpu", "tracking=terminal")[0] in (0, 3)
    baseline, candidate = (
        [sample for sample in read_samples(tmp_path / "run") if sample.decoder == name]
        for name in ("baseline", "candidate")
    )
    assert len(baseline) == len(candidate) == 3
    assert all(sample.full_passes == sample.forwards for sample in baseline)
    assert all(sample.full_passes < sample.forwards for sample in candidate)
    assert not verify(tmp_path / "run").problems
