"""The published implementations' decodes of the reference checkpoint (tests/data/llada-parity)."""

from __future__ import annotations

import json
from collections import defaultdict
from functools import cache
from typing import Any, NamedTuple

from dlmlab.decoder.baseline import Baseline
from dlmlab.decoder.localleap import LocalLeap
from dlmlab.decoder.threshold import Threshold
from dlmlab.model.llada import LLaDAModelLM
from dlmlab.model.loader import load
from dlmlab.rule import Rule
from dlmlab.types import Generation
from tests.model.helpers import VECTORS

NAMES = {"low_confidence": "baseline", "low_confidence_batch": "baseline"}


class Decode(NamedTuple):
    """Prompts that one decoder decoded together; forwards where they were counted."""

    name: str
    parameters: dict[str, Any]
    generation: Generation
    prompts: list[list[int]]
    outputs: list[list[int]]
    forwards: int | None

    @property
    def rule(self) -> Rule:
        if self.name == "baseline":
            return Baseline()
        if self.name == "threshold":
            return Threshold(**self.parameters)
        return LocalLeap(**self.parameters, anchors="all" if self.name == "localleap_paper" else "scheduled")


@cache
def reference_model() -> LLaDAModelLM:
    return load(str(VECTORS), dtype="float32", device="cpu")


@cache
def decodes() -> list[Decode]:
    return [read(entry) for entry in json.loads((VECTORS / "decodes.json").read_text())]


def read(entry: dict[str, Any]) -> Decode:
    several = "prompts" in entry
    generation = Generation(
        entry["gen_length"],
        entry["block_length"],
        entry.get("steps", entry["gen_length"]),
        confidence_dtype="float64" if entry["rule"] in ("localleap_paper", "threshold") else "float32",
    )
    return Decode(
        NAMES.get(entry["rule"], entry["rule"]),
        {key: entry[key] for key in ("kappa", "tau", "radius", "threshold") if key in entry},
        generation,
        entry["prompts"] if several else [entry["prompt"]],
        entry["output"] if several else [entry["output"]],
        entry.get("forwards"),
    )


def by_setting() -> list[list[Decode]]:
    """Decodes of single prompts, those of one decoder, parameters and generation together."""
    alike = defaultdict[str, list[Decode]](list)
    for decode in decodes():
        if len(decode.prompts) == 1:
            alike[f"{decode.rule} {decode.generation}"].append(decode)
    return list(alike.values())
