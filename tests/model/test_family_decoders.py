"""Every decoder on every family's model: it fills a canvas, or a line says what doesn't go together."""

from __future__ import annotations

import pytest
import torch

from dlmlab.errors import UserError
from dlmlab.generation import decode
from dlmlab.model.llada import LLaDAModelLM
from dlmlab.model.loader import load
from dlmlab.types import Generation, Output, Request
from tests.decoder.steps import NAMES as DECODERS
from tests.decoder.steps import rule_of
from tests.model.families import MASK, save_family
from tests.model.families import NAMES as FAMILIES

GENERATION = Generation(12, 4, 12)
PROMPTS = [(1, 2, 3), (4, 5, 6, 7, 8)]


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LLaDAModelLM:
    folder = tmp_path_factory.mktemp(request.param)
    save_family(folder, request.param)
    return load(str(folder), device="cpu")


def answers(model: LLaDAModelLM, decoder: str, batch_size: int) -> list[Output]:
    requests = [Request(index, prompt, rule_of(decoder)) for index, prompt in enumerate(PROMPTS)]
    with torch.inference_mode():
        return sorted(decode(model, requests, GENERATION, batch_size=batch_size), key=lambda output: output.index)


@pytest.mark.parametrize("decoder", DECODERS)
def test_it_fills_a_canvas_or_is_refused_in_a_line(model: LLaDAModelLM, decoder: str) -> None:
    rule, config = rule_of(decoder), model.config
    in_blocks = config.canvas == "growing" or config.block_size
    if (in_blocks and (rule.sees_canvas or rule.cuts)) or (rule.shadows and not model.lays_out):
        with pytest.raises(UserError, match=f"^{type(rule).__name__} needs .*: choose another decoder$"):
            answers(model, decoder, 2)
        return
    together, alone = (answers(model, decoder, batch_size) for batch_size in (2, 1))
    assert [output.tokens for output in together] == [output.tokens for output in alone]
    for output in together:
        assert MASK not in output.tokens
        assert 0 < len(output.tokens) <= 12
        assert max(output.step_of) < output.forwards
