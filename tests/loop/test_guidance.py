"""Classifier-free guidance: a second canvas for each row, whose prompt is masked."""

from __future__ import annotations

import pytest
import torch

from dlmlab.cache.dual import Dual
from dlmlab.denoise import denoise
from dlmlab.errors import UserError
from dlmlab.generation import decode
from dlmlab.types import Generation, Output, Request
from tests import golden
from tests.decoder.steps import NAMES, rule_of
from tests.fakes import MASK, FakeModel

PROMPTS = [(3, 1), (4, 1, 5, 9, 2), (6,), (5, 3, 5, 8)]


def run(name: str, model: FakeModel, generation: Generation, size: int) -> list[Output]:
    requests = [Request(index, prompt, rule_of(name)) for index, prompt in enumerate(PROMPTS)]
    return sorted(denoise(model, requests, generation, size), key=lambda output: output.index)  # type: ignore[arg-type]


def guided(model: FakeModel, prompt: tuple[int, ...], scale: float, length: int) -> list[int]:
    """One token a pass, the surest."""
    row = torch.tensor([*prompt, *[MASK] * length])
    for _ in range(length):
        blind = row.clone()
        blind[: len(prompt)] = MASK
        with_prompt, without = model(torch.stack((row, blind))).logits
        logits = with_prompt + scale * (with_prompt - without)
        probability = logits.softmax(-1)
        logits[:, MASK] = -torch.inf
        token = logits.argmax(-1)
        confidence = probability.gather(-1, token[:, None])[:, 0].masked_fill(row != MASK, -1.0)
        place = confidence.argmax()
        row[place] = token[place]
    return row[len(prompt) :].tolist()


@pytest.mark.parametrize("scale", [0.0, 0.5, 2.0])
def test_logits_are_extrapolated_from_those_without_a_prompt(scale: float) -> None:
    model = FakeModel()
    outputs = run("baseline", model, Generation(10, 10, 10, cfg_scale=scale), 3)
    assert [output.tokens for output in outputs] == [guided(model, prompt, scale, 10) for prompt in PROMPTS]


@pytest.mark.parametrize("name", [name for name in NAMES if not rule_of(name).shadows])
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_a_row_gets_what_it_gets_alone_and_pays_twice(name: str, temperature: float) -> None:
    generation = Generation(12, 6, 8, temperature=temperature, cfg_scale=1.5)
    model = FakeModel()
    alone = run(name, model, generation, 1)
    assert run(name, FakeModel(fused=temperature > 0), generation, 3) == alone
    if not rule_of(name).cuts:
        own = [output.full_passes / 2 for output in alone]
        assert own == [round(passes) for passes in own]
        assert sum(own) == model.canvases / 2


def test_the_next_pass_that_begins_ahead_sees_both_canvases() -> None:
    generation = Generation(12, 6, 12, cfg_scale=1.5, confidence_dtype="float64")
    expected = run("baseline", FakeModel(), generation, 4)
    assert run("baseline", FakeModel(fused=True), generation, 4) == expected


def test_what_keeps_one_canvas_is_refused() -> None:
    generation = Generation(8, 8, 8, cfg_scale=1.0)
    cached = [Request(0, (1, 2), rule_of("baseline"), cache=Dual())]
    with pytest.raises(UserError, match="cache Dual keeps one canvas for a row, .* set cache=none"):
        list(decode(golden.tiny(), cached, generation, batch_size=1))
    with pytest.raises(UserError, match=r"WINO needs tokens beside the canvas, .* set generation.cfg_scale=0"):
        list(decode(golden.tiny(), [Request(0, (1, 2), rule_of("wino"))], generation, batch_size=1))
