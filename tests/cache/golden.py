"""What published code answered with its caches on the tiny checkpoint (tests/data/caches), and what we answer.

A case of the data holds the decoder, the cache, the settings, the prompt's token ids, the filled canvas (`tokens`), the
pass that committed each position (`step_of`), and the ranges of positions that each pass computed. It is a part of the
published cases, one a setting. Their `factor` is `factor_published` here, and two cases of d2cache hang on
slips of the code: `AS_PUBLISHED`. Passes of dInfer that commit nothing are left out. Logits are every eighth of the
vocabulary's.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from dlmlab.cache.d2cache import certainty_density
from dlmlab.decoder.topk import top_k
from dlmlab.denoise import denoise
from dlmlab.model.llada import LLaDAModelLM
from dlmlab.model.loader import load
from dlmlab.policy import Policy
from dlmlab.rule import Decision, Rule, Step
from dlmlab.types import Generation, Output, Request
from tests.decoder.steps import rule_of

DATA = Path(__file__).parents[1] / "data" / "caches"
TINY = Path(__file__).parents[2] / "dlmlab" / "model" / "tiny" / "v1"
METHODS = sorted(path.stem for path in DATA.glob("*.json"))
AS_PUBLISHED = ("d2cache/2/Sentence-14", "d2cache/5/StrChain-26")
"""Cases in which the published code computes other positions than `variant="paper"`."""


@cache
def tiny_model() -> LLaDAModelLM:
    """The published weights in float32."""
    return load(str(TINY), dtype="float32", device="cpu")


def cases(method: str) -> list[dict[str, Any]]:
    """A method's cases."""
    found: list[dict[str, Any]] = json.loads((DATA / f"{method}.json").read_text())["cases"]
    return found


def logits(method: str) -> dict[tuple[str, int], tuple[slice, torch.Tensor]]:
    """Published logits by case and pass: the canvas's positions, and a row for each."""
    found = {}
    for key, values in np.load(DATA / f"{method}.npz").items():
        case, number, positions = key.split("|")
        begin, end = positions.removeprefix("positions").split(":")
        found[case, int(number.removeprefix("pass"))] = slice(int(begin), int(end)), torch.from_numpy(values)
    return found


def policy_of(case: dict[str, Any]) -> Policy:
    """The policy of a case, which is its file's only one."""
    parameters = dict(case["cache"])
    module = import_module(f"dlmlab.cache.{parameters.pop('name')}")
    [own] = [
        each
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, Policy) and each.__module__ == module.__name__
    ]
    return own(**parameters)


def decoder_of(told: dict[str, Any]) -> Rule:
    """The decoder of a case's name and parameters."""
    parameters = dict(told)
    if parameters["name"] == "certainty_prior":
        return CertaintyPrior(parameters["sigma"])
    name = parameters.pop("name").replace("factor", "factor_published")
    return replace(rule_of(name), **parameters)  # type: ignore[type-var]


@dataclass(frozen=True)
class CertaintyPrior(Rule):
    """d2Cache's decoder: commits the position of the highest confidence × certainty density; knows one block alone."""

    sigma: float

    def initial_state(self, block_length: int, vocab_size: int, like: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (torch.zeros(block_length, dtype=torch.bool),)

    def __call__(self, step: Step) -> Decision:
        [certain_BK] = step.state
        density = [certainty_density(certain_K.numpy(), self.sigma) for certain_K in certain_BK]
        score_BK = torch.where(step.eligible_BK, step.confidence_BK * torch.from_numpy(np.stack(density)), -torch.inf)
        commit_BK = top_k(score_BK, 1)
        return Decision(commit_BK, state=(certain_BK | commit_BK,))


def generation_of(case: dict[str, Any]) -> Generation:
    """The settings of a case; float64 tells positions apart whose confidences are 1 but for 1e-8."""
    return Generation(**case["generation"], confidence_dtype="float64")


def answer(case: dict[str, Any], rule: Rule | None = None) -> Output:
    """What we decode, with a trace."""
    rule = rule or decoder_of(case["decoder"])
    request = Request(0, tuple(case["prompt"]), rule, traced=True, cache=policy_of(case))
    [output] = denoise(tiny_model(), [request], generation_of(case), 1)
    return output


class Heard(list[Step]):
    """Steps; a list that a rule may hold, whose fields must be hashable."""

    __hash__ = object.__hash__  # type: ignore[assignment]


@dataclass(frozen=True)
class Listening(Rule):
    """Another rule, whose steps are kept."""

    rule: Rule
    steps: Heard = field(default_factory=Heard)
    needs_logits: ClassVar[bool] = True

    @property
    def sees_canvas(self) -> bool:  # type: ignore[override]
        return self.rule.sees_canvas

    def initial_state(self, block_length: int, vocab_size: int, like: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.rule.initial_state(block_length, vocab_size, like)

    def __call__(self, step: Step) -> Decision:
        self.steps.append(step)
        return self.rule(step)


def ranges(computed: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """A pass's ranges, as a trace has them."""
    return [(begin, end) for begin, end in computed]
