"""On trained models that ship with the package, the loop gives what the plain reference gives."""

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
from dlmlab.task.tiny.exercise import Exercise, draw_held_out
from dlmlab.task.tiny.kinds import NEW_IN_V2
from dlmlab.task.tiny.open_prompt import MANY_ANSWERS, ONE_ANSWER
from dlmlab.types import Generation
from tests.decoder.steps import rule_of

CONF = Path(__file__).resolve().parents[2] / "conf"
PARAMETERS = {
    "baseline": {},
    "threshold": {"threshold": 0.9},
    "localleap": {"kappa": 0.9, "tau": 0.75, "radius": 4},
    "localleap_paper": {"kappa": 0.9, "tau": 0.75, "radius": 4},
}


@cache
def shipped(name: str) -> LLaDAModelLM:
    return dlmlab.load(OmegaConf.load(CONF / "model" / f"{name}.yaml").path, dtype="float32", device="cpu")


@cache
def held_out_prompts(name: str, kinds: tuple[type[Exercise], ...], gen_length: int) -> list[list[int]]:
    """A prompt of each kind of exercise."""
    exercises = draw_held_out(kinds, per_kind=1, seed=0)
    return [list(encode(shipped(name), one.prompt, gen_length, one.prompt)) for one in exercises]


def check(model: LLaDAModelLM, prompts: list[list[int]], generation: Generation, name: str) -> None:
    """Hold the loop to the reference, one by one and in batches of 8; and the reference to itself with padding."""
    assert len({len(prompt) for prompt in prompts}) > 3
    plain = [reference(model, [prompt], generation, name, **PARAMETERS[name]) for prompt in prompts]
    expected = [(found.tokens[0], found.forwards[0]) for found in plain]
    laid_out = {"gen_length": generation.gen_length, "block_length": generation.block_length, "steps": generation.steps}
    for batch_size in (1, 8):
        outputs = dlmlab.generate(model, prompts, rule_of(name), **laid_out, batch_size=batch_size)
        assert [(output.tokens, output.forwards) for output in outputs] == expected
    padded = reference(model, prompts[:8], generation, name, **PARAMETERS[name])
    assert list(zip(padded.tokens, padded.forwards, strict=True)) == expected[:8]


@pytest.mark.parametrize("name", sorted(RULES))
def test_the_loop_is_the_reference_one_by_one_and_in_padded_batches(name: str) -> None:
    generation = Generation(gen_length=32, block_length=16, steps=16)
    prompts = held_out_prompts("tiny", (*QUESTIONS, *FUNCTIONS, *ONE_ANSWER, *MANY_ANSWERS), generation.gen_length)
    check(shipped("tiny"), prompts, generation, name)


@pytest.mark.parametrize(("gen_length", "block_length"), [(64, 8), (64, 32), (256, 256)])
@pytest.mark.parametrize("name", sorted(RULES))
def test_so_it_is_on_longer_answers_whatever_the_block(name: str, gen_length: int, block_length: int) -> None:
    shortest = sorted(held_out_prompts("tiny_v2", tuple(NEW_IN_V2), gen_length), key=len)[:8]
    check(shipped("tiny_v2"), shortest, Generation(gen_length, block_length, steps=8), name)
