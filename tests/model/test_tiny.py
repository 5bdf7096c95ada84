"""On the trained model that ships with the package, the loop gives what the plain reference gives."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from omegaconf import OmegaConf

import dlmlab
from dlmlab.generation import encode
from dlmlab.measure.reference import RULES, reference
from dlmlab.model.llada import LLaDAModelLM
from dlmlab.task.tiny.choice import QUESTIONS
from dlmlab.task.tiny.code import FUNCTIONS
from dlmlab.task.tiny.exercise import draw_held_out
from dlmlab.task.tiny.open_prompt import MANY_ANSWERS, ONE_ANSWER
from dlmlab.types import Generation
from tests.decoder.steps import rule_of

CONF = Path(__file__).resolve().parents[2] / "conf"
GENERATION = Generation(gen_length=32, block_length=16, steps=16)
PARAMETERS = {
    "baseline": {},
    "threshold": {"threshold": 0.9},
    "localleap": {"kappa": 0.9, "tau": 0.75, "radius": 4},
    "localleap_paper": {"kappa": 0.9, "tau": 0.75, "radius": 4},
}


@cache
def tiny() -> LLaDAModelLM:
    return dlmlab.load(OmegaConf.load(CONF / "model" / "tiny.yaml").path, dtype="float32", device="cpu")


@cache
def held_out_prompts() -> list[list[int]]:
    """A prompt of each kind of question, function and open prompt."""
    exercises = draw_held_out((*QUESTIONS, *FUNCTIONS, *ONE_ANSWER, *MANY_ANSWERS), per_kind=1, seed=0)
    return [list(encode(tiny(), one.prompt, GENERATION.gen_length, one.prompt)) for one in exercises]


@pytest.mark.parametrize("name", sorted(RULES))
def test_the_loop_is_the_reference_one_by_one_and_in_padded_batches(name: str) -> None:
    prompts, rule = held_out_prompts(), rule_of(name)
    assert len({len(prompt) for prompt in prompts}) > 3
    plain = [reference(tiny(), [prompt], GENERATION, name, **PARAMETERS[name]) for prompt in prompts]
    expected = [(found.tokens[0], found.forwards[0]) for found in plain]
    for batch_size in (1, 8):
        outputs = dlmlab.generate(
            tiny(), prompts, rule, gen_length=32, block_length=16, steps=16, batch_size=batch_size
        )
        assert [(output.tokens, output.forwards) for output in outputs] == expected
    padded = reference(tiny(), prompts[:8], GENERATION, name, **PARAMETERS[name])
    assert list(zip(padded.tokens, padded.forwards, strict=True)) == expected[:8]
