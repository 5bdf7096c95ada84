"""Orders under templates and variance by factor, from the command line, on the shipped model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dlmlab.verify import verify
from tests.documented import check_summary

COMMON = ["task=tiny_mmlu", "memo=off", "device=cpu", "tracking=terminal", "task.limit=4", "generation.gen_length=8",
          "generation.block_length=8", "generation.steps=2"]  # fmt: skip
RANK = ["experiment=rank_stability", "decoders=[baseline,threshold]", "templates=[plain,brief]", "resamples=50"]


def test_the_order_of_decoders_is_judged_under_templates(command, tmp_path: Path) -> None:
    status, shown, errors = command(*RANK, *COMMON)
    assert status == 0, errors
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["conditions"] == ["plain", "brief"]
    assert results["order"] in ("holds", "flips", "inconclusive")
    assert results["scores"].keys() == {"plain", "brief"}
    assert results["summary"].keys() == {"flipped", "order"}, "a decoder's name is in no key"
    assert results["flipped"]["share"] in (0.0, 1.0)
    assert "Does the order hold?" in shown
    lines = [json.loads(line) for line in (tmp_path / "run" / "samples.jsonl").read_text().splitlines()]
    prompts = {json.dumps(line).count("Answer briefly.") for line in lines}
    assert prompts == {0, 1}
    found = verify(tmp_path / "run")
    assert (found.problems, found.unchecked) == ([], [])
    check_summary(tmp_path / "run")


def test_factors_are_combined_and_none_flips_what_is_exact(command, tmp_path: Path) -> None:
    factors = "factors={batch_size: [1, 3], generation.confidence_dtype: [float32, float64]}"
    status, shown, errors = command(
        "experiment=variance", *COMMON, "decoder=threshold", "resamples=50", "~factors", f"+{factors}"
    )
    assert status == 0, errors
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert [row["factor"] for row in results["factors"]] == ["batch_size", "generation.confidence_dtype"]
    assert len(results["combinations"]) == 4
    assert results["factors"][0]["flipped"] == 0.0
    assert "Variance by factor" in shown
    found = verify(tmp_path / "run")
    assert (found.problems, found.unchecked) == ([], [])
    check_summary(tmp_path / "run")


def test_a_cache_is_a_factor(command, tmp_path: Path) -> None:
    typed = ["~factors", "+factors={cache: [none, dual]}", "resamples=50", "task.limit=2"]
    status, _, errors = command("experiment=variance", *COMMON, *typed, "decoder=baseline")
    assert status == 0, errors
    lines = [json.loads(line) for line in (tmp_path / "run" / "samples.jsonl").read_text().splitlines()]
    costs = {line["decoder"]: line["full_passes"] / line["forwards"] for line in lines}
    assert costs.keys() == {"cache=none", "cache=dual"}
    assert costs["cache=dual"] < costs["cache=none"] == 1
    found = verify(tmp_path / "run")
    assert (found.problems, found.unchecked) == ([], [])


def test_decoders_are_ranked_with_their_cache(command, tmp_path: Path) -> None:
    status, _, errors = command(*RANK, *COMMON, "cache=dual", "task.limit=2")
    assert status == 0, errors
    lines = [json.loads(line) for line in (tmp_path / "run" / "samples.jsonl").read_text().splitlines()]
    assert all(line["full_passes"] < line["forwards"] for line in lines if line["forwards"] > 1)
    assert {line["decoder"] for line in lines if line["forwards"] > 1} >= {"baseline"}


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ([*RANK, "templates=[plian,brief]"], "templates has 'plian', which is not one of"),
        ([*RANK, "templates=[plain]"], "2 decoders under 1 conditions have no order"),
        ([*RANK, "num_fewshot=[0,1]"], "num_fewshot=0, but task=tiny_mmlu takes no examples: leave num_fewshot out"),
        (["experiment=variance", "factors.seed=[1]"], "factors has one with a single value"),
        (["experiment=variance", "+factors.sede=[1,2]"], "factors has 'sede', which is no setting"),
        (["experiment=variance", "+factors.decoder=[eb,margin]"], "factors has 'decoder', which is no setting"),
        (["experiment=variance", "+factors={task.limit: [1,2]}"], "factors has 'task.limit', which is no setting"),
        (["experiment=variance", "+factors.model=[tiny,dream]"], "factors has 'model', which is no setting"),
        (["experiment=variance", "+factors.cache=[none,duel]"], "factors.cache='duel' is not one of"),
        (
            ["experiment=variance", "+factors={cache: [none, dkv], cache.full_every: [2, 4]}"],
            "factors has cache and cache.full_every, but a cache by name keeps its own settings: leave one out",
        ),
        (
            ["experiment=variance", "+factors.cache=[none,dual]", "decoder=freedave"],
            "a cache keeps one: turn the cache off",
        ),
    ],
)
def test_bad_input_is_one_line(command, typed: list[str], message: str) -> None:
    status, _, errors = command(*typed, *COMMON)
    assert status == 1
    assert message in errors
    assert errors.count("\n") == 1, errors
