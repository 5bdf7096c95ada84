"""The roofline from end to end, on a small random checkpoint; and its arithmetic, on numbers made up."""

from __future__ import annotations

import re

import pytest

from dlmlab.measure import roofline
from dlmlab.measure.profiling import REST, RULE, PartTime
from dlmlab.measure.typical_pass import typical_places
from dlmlab.types import Generation
from experiments.roofline import split
from tests.experiments.fakes import Bench

QUICK = ["experiment=roofline", "generation.gen_length=16", "generation.steps=8", "repeats=2", "prompt_length=8"]


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("bench"))


@pytest.fixture(autouse=True)
def small_machine(monkeypatch):
    monkeypatch.setitem(roofline.SIDE, "cpu", 256)
    monkeypatch.setitem(roofline.COPY_BYTES, "cpu", 2**22)


def test_floor_step_parts_and_picture(bench, capfd):
    assert bench(*QUICK, "batch_sizes=[1,2]", f"hydra.run.dir={bench.folder / 'run'}") == 0
    results = bench.results("run")
    assert [step["batch"] for step in results["steps"]] == [1, 2]
    for step in results["steps"]:
        assert step["ratio"] == pytest.approx(step["p50"] / step["floor"])
        assert step["floor"] == max(step["compute_floor"], step["memory_floor"])
        assert sum(part["busy"] + part["idle"] for part in step["parts"]) == pytest.approx(step["p50"])
        assert len(step["durations"]) == 2 * 8
        outside = max(0.0, step["p50"] - step["pass"]) / step["p50"]
        assert step["outside_the_model"] == pytest.approx(outside)
        assert (bench.folder / "run" / f"trace_batch_{step['batch']}.json.gz").exists()
    one, two = results["steps"]
    assert two["flops"] == 2 * one["flops"]
    assert two["weight_bytes"] == one["weight_bytes"]
    titles = [table["title"] for table in results["tables"]]
    assert titles == [
        "Steps against their floors",
        "Ceilings, measured",
        "Where a step goes, batch 1",
        "Where a step goes, batch 2",
    ]
    assert (bench.folder / "run" / "where_a_step_goes.png").read_bytes().startswith(b"\x89PNG")
    assert re.fullmatch(r"At batch 1 a step takes [\d.]+ × its floor .*; at batch 2 .*\.", results["verdict"])
    assert results["labels"]["decoder"] == "baseline"
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("cache", "computed"), [("dual", 4), ("prefix", 8)])
def test_with_a_cache_the_steps_are_those_over_a_block(bench, cache, computed):
    own = ["generation.block_length=4", "generation.steps=16", f"cache={cache}", "batch_sizes=[2]"]
    assert bench(*QUICK, *own, f"hydra.run.dir={bench.folder / cache}") == 0
    [step] = bench.results(cache)["steps"]
    assert len(step["durations"]) == 2 * (4 * 3 if cache == "dual" else 3)  # a block's first pass renews more
    assert {part["name"] for part in step["parts"]} == {"attention", "MLP", "LM head and confidence", REST, RULE}
    bench(*QUICK, *own[:2], "batch_sizes=[2]", f"hydra.run.dir={bench.folder / 'whole'}")
    [whole] = bench.results("whole")["steps"]
    assert step["flops"] < whole["flops"] * (computed + 4) / 24
    assert step["weight_bytes"] > whole["weight_bytes"]  # and the keys and values of 24 positions


BAD = {
    "cache=dual generation.steps=1": r"cache=dual: no step computes what a block's second pass does .* more generation",
    "cache=dkv": r"cache=dkv: its passes differ from each other, and none stands for all: set cache=dual",
    "batch_sizes=8": r"batch_sizes=8 is not a non-empty list",
    "prompt_length=0": r"prompt_length=0 is not a positive integer",
    "repeats=x": r"repeats='x' is not a positive integer",
    "decoder=localleap_paper": r"decoder=localleap_paper: a roofline is of the baseline",
    "prompt_length=60": r"prompt has 60 tokens, with gen_length=16 more than the model's context",
}


@pytest.mark.parametrize("argument", BAD)
def test_bad_input_is_one_line(bench, capfd, argument):
    assert bench(*QUICK, *argument.split()) == 1
    errors = capfd.readouterr().err
    assert re.fullmatch(r"error: .+\n", errors), errors
    assert re.search(BAD[argument], errors)


def test_the_median_step_s_places():
    assert typical_places(Generation(64, 64, 16)) == 34  # between the 36 and the 32 of the middle steps
    assert typical_places(Generation(64, 32, 16)) == 18
    assert typical_places(Generation(64, 64, 1)) == 64


def test_the_pass_is_shared_out_as_profiled_and_the_loop_has_the_rest():
    spent = {"MLP": PartTime(2.0, 1.0), "head": PartTime(1.0, 0.0), RULE: PartTime(1.0, 9.0)}
    assert split(spent, 10.0, 8.0) == {"MLP": PartTime(4.0, 2.0), "head": PartTime(2.0, 0.0), RULE: PartTime(0.2, 1.8)}
    faster = split(spent, 2.0, 8.0)
    assert sum(map(sum, faster.values())) == pytest.approx(2.0)
    assert faster[RULE] == (0.0, 0.0)
