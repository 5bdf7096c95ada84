"""Golden decodes of published code, on the tiny checkpoint in double or single precision (tests/data)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache as once
from pathlib import Path
from typing import Any, NamedTuple

import dlmlab
from dlmlab.denoise import denoise
from dlmlab.model.llada import LLaDAModelLM
from dlmlab.policy import Policy
from dlmlab.rule import Rule
from dlmlab.types import Generation, Output, Request

DATA = Path(__file__).parent / "data"
TINY = Path(dlmlab.__file__).parent / "model" / "tiny" / "v1"


class Golden(NamedTuple):
    """What published code made of a prompt. step_of: the pass that committed each token; None where it wasn't kept."""

    prompt: tuple[int, ...]
    generation: Generation
    parameters: Mapping[str, Any]
    tokens: list[int]
    forwards: int
    step_of: list[int] | None = None


@once
def tiny() -> LLaDAModelLM:
    return dlmlab.load(str(TINY), dtype="float32", device="cpu")


def rules(name: str) -> Iterator[Golden]:
    """The cases of tests/data/rules."""
    for case in json.loads((DATA / "rules" / f"{name}.json").read_text())["cases"]:
        settings = {key: case[key] for key in ("gen_length", "block_length", "steps", "confidence_dtype")}
        yield Golden(
            tuple(case["prompt"]),
            Generation(**settings, **case.get("options", {})),
            case["params"],
            case["output"],
            case["forwards"],
        )


def decoders(name: str, **settings: Any) -> Iterator[Golden]:
    """The cases of tests/data/decoders, whose softmax is in double precision where they don't say that it isn't.

    Ours makes no pass that commits nothing.

    settings: of `Generation`, besides.
    """
    for case in json.loads((DATA / "decoders" / f"{name}.json").read_text())["cases"]:
        parameters = {key: value for key, value in case["decoder"].items() if key != "name"}
        yield Golden(
            tuple(case["prompt"]),
            Generation(**{"confidence_dtype": "float64"} | case["generation"] | settings),
            parameters,
            case["tokens"],
            case["forwards"]["full"] + case["forwards"]["partial"] - case["forwards"]["idle"],
            None if case["forwards"]["idle"] else case["step_of"],
        )


def decoded(cases: Sequence[Golden], rule_list: Sequence[Rule], cache: Policy | None = None) -> list[Output]:
    """What the loop makes of the cases, a batch at a time where their settings are the same."""
    found = dict[int, Output]()
    for generation in dict.fromkeys(case.generation for case in cases):
        requests = [
            Request(index, case.prompt, rule, cache=cache)
            for index, (case, rule) in enumerate(zip(cases, rule_list, strict=True))
            if case.generation == generation
        ]
        found |= {output.index: output for output in denoise(tiny(), requests, generation, 4)}
    return [found[index] for index in range(len(cases))]


def check(cases: Sequence[Golden], rule_list: Sequence[Rule], cache: Policy | None = None) -> None:
    """Hold the loop to golden decodes: tokens, forward passes, and which of them committed what."""
    for case, output in zip(cases, decoded(cases, rule_list, cache), strict=True):
        assert output.tokens == case.tokens
        assert output.forwards == case.forwards
        assert case.step_of is None or output.step_of == case.step_of
