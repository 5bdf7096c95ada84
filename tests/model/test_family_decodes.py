"""Published decodes of Dream, SDAR and LLaDA2, token for token and pass for pass, alone and together, by any cache."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlmlab.cache.dual import Dual
from dlmlab.cache.exact import Exact
from dlmlab.cache.prefix import Prefix
from dlmlab.decoder.baseline import Baseline
from dlmlab.decoder.dynamic import Dynamic
from dlmlab.decoder.editing import Editing
from dlmlab.decoder.entropy import Entropy
from dlmlab.decoder.margin import Margin
from dlmlab.decoder.scheduled_threshold import ScheduledThreshold
from dlmlab.decoder.sequential import Sequential
from dlmlab.denoise import denoise
from dlmlab.errors import UserError
from dlmlab.generation import decode
from dlmlab.loop.row import Row
from dlmlab.model.llada import LLaDAModelLM
from dlmlab.model.loader import load
from dlmlab.policy import Policy
from dlmlab.rule import Rule
from dlmlab.types import Generation, Output, Request

DATA = Path(__file__).parents[1] / "data" / "families"
NO_END = 10**9
TIED = "entropy, filtered by top_p 0.9, top_k not named, so 50"
"""Of sure tokens alone, so that entropies are 0 alike: which of them comes first torch.topk decides there, and here the
leftmost does.
"""

Setting = tuple[Rule, Generation, tuple[int, ...]]
"""A decoder, its settings, and the tokens that end an answer."""


@cache
def model_of(name: str) -> LLaDAModelLM:
    mask = json.loads((DATA / name / "decodes.json").read_text())["mask_token_id"]
    return load(str(DATA / name), device="cpu", mask_token_id=mask)


def entries(name: str) -> list[dict[str, Any]]:
    return list(json.loads((DATA / name / "decodes.json").read_text())["decodes"])


def dream(settings: dict[str, Any]) -> Setting:
    rules: dict[str, Rule] = {"maskgit_plus": Baseline(), "topk_margin": Margin(), "entropy": Entropy()}
    if settings["alg"] == "confidence_threshold":
        rules["confidence_threshold"] = ScheduledThreshold(settings["threshold"])
    length, filters = settings["max_new_tokens"], {"top_k": settings.get("top_k", 50), "top_p": settings.get("top_p")}
    schedule = "even" if settings["alg"] == "confidence_threshold" else "timesteps"
    generation = Generation(length, length, settings["steps"], schedule=schedule, tempered=True, **filters)
    return rules[settings["alg"]], generation, (NO_END,)


def blockwise(settings: dict[str, Any], steps: int) -> Generation:
    blocks = -(-settings["gen_length"] // settings["block_length"])
    return Generation(
        settings["gen_length"],
        settings["block_length"],
        steps * blocks,
        canvas="growing",
        top_k=settings.get("top_k"),
    )


def sdar(settings: dict[str, Any]) -> Setting:
    strategy = settings["remasking_strategy"]
    if strategy == "low_confidence_dynamic":
        rule: Rule = Dynamic(settings["confidence_threshold"])
    else:
        rule = Sequential() if strategy == "sequential" else Baseline()
    ends = tuple(settings.get("stopping_criteria_idx", [NO_END]))
    return rule, blockwise(settings, settings["denoising_steps"]), ends


def llada2(settings: dict[str, Any]) -> Setting:
    if "editing_threshold" in settings:
        rule: Rule = Editing(settings["threshold"], settings["editing_threshold"], settings["max_post_steps"])
    else:
        rule = Dynamic(settings["threshold"])
    return rule, blockwise(settings, settings["steps"]), (settings["eos_id"],)


READ: dict[str, Callable[[dict[str, Any]], Setting]] = {"dream": dream, "sdar": sdar, "llada2": llada2}
DECODES = [(name, entry) for name in READ for entry in entries(name) if entry["name"] != TIED]
GROWN = [(name, entry) for name, entry in DECODES if name != "dream"]


def named(name: str, entry: dict[str, Any]) -> str:
    return f"{name}: {entry['name']}"


def outputs(
    monkeypatch: pytest.MonkeyPatch, name: str, entry: dict[str, Any], others: int, policy: Policy | None = None
) -> list[Output]:
    """What an entry's prompts come to beside so many other prompts."""
    rule, generation, ends = READ[name](entry["settings"])
    model = model_of(name)
    monkeypatch.setattr(model, "end_token_ids", ends)
    prompts = [*entry["prompts"], *([7 + other] * (3 + 2 * other) for other in range(others))]
    requests = [Request(index, tuple(prompt), rule, cache=policy) for index, prompt in enumerate(prompts)]
    found = sorted(denoise(model, requests, generation, 4), key=lambda output: output.index)
    return found[: len(entry["prompts"])]


def agree(found: list[Output], entry: dict[str, Any]) -> None:
    """The same tokens, as far as both go: ours end with the answer's last block, the published ones end otherwise."""
    for output, tokens in zip(found, entry["tokens"], strict=True):
        length = min(len(tokens), len(output.tokens))
        assert length >= min(len(tokens), 10)
        assert output.tokens[:length] == tokens[:length]
        assert output.forwards == entry["forwards"]


@pytest.mark.parametrize(("name", "entry"), DECODES, ids=[named(*each) for each in DECODES])
@pytest.mark.parametrize("others", [0, 3])
def test_it_decodes_as_published(
    monkeypatch: pytest.MonkeyPatch, name: str, entry: dict[str, Any], others: int
) -> None:
    agree(outputs(monkeypatch, name, entry, others), entry)


@pytest.mark.parametrize(("name", "entry"), GROWN, ids=[named(*each) for each in GROWN])
@pytest.mark.parametrize("policy", [Exact(), Prefix(), Dual()], ids=lambda policy: type(policy).__name__)
def test_a_cache_of_full_blocks_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, name: str, entry: dict[str, Any], policy: Policy
) -> None:
    found = outputs(monkeypatch, name, entry, 2, policy)
    agree(found, entry)
    plain = outputs(monkeypatch, name, entry, 2)
    assert sum(output.positions for output in found) <= sum(output.positions for output in plain)


def test_where_attention_sees_later_blocks_there_is_no_exact_cache() -> None:
    request = Request(0, (1, 2, 3), Baseline(), cache=Exact())
    with pytest.raises(
        UserError, match="Exact needs a model that keeps keys and values that are final with their block"
    ):
        list(decode(model_of("dream"), [request], Generation(8, 8, 8), batch_size=1))


def test_a_cache_computes_what_a_shifted_prediction_needs() -> None:
    """The output one to the left of the block predicts its first position."""
    row = Row(Request(0, (1, 2, 3), Baseline(), cache=Dual()), Generation(16, 8, 16), model_of("dream"), seed=0)
    row.commit(np.array([-1, 7, *[-1] * 6]), ())
    assert row.plan is not None
    assert np.flatnonzero(row.plan.computed).tolist() == list(range(2, 11))


@pytest.mark.parametrize("name", ["dream", "sdar", "llada2"])
def test_steps_above_the_length_and_chance_come_to_an_end(name: str) -> None:
    generation = Generation(12, 12, 40, schedule="chance", temperature=0.7, tempered=True, top_p=0.9)
    model = model_of(name)
    first, second = (
        [output.tokens for output in denoise(model, [Request(0, (1, 2), Baseline())], generation, 1, seed=seed)]
        for seed in (3, 3)
    )
    assert first == second
    assert model.config.mask_token_id not in first[0]


def test_what_a_canvas_says_is_the_familys_unless_given() -> None:
    model, request = model_of("sdar"), [Request(0, (1, 2, 3, 4, 5), Baseline())]
    grown, fixed = (
        next(iter(denoise(model, request, Generation(8, 4, 8, canvas=canvas), 1))) for canvas in (None, "fixed")
    )
    assert grown.tokens == fixed.tokens[: len(grown.tokens)]
    assert grown.positions < fixed.positions
