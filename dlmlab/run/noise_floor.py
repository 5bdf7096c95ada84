"""The noise floor: how many answers change with what should not matter, without any decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dlmlab.denoiser import Layout, Query
from dlmlab.loop.batch import Batch
from dlmlab.record.samples import Sample
from dlmlab.rule import Rule
from dlmlab.run.begin import Run
from dlmlab.run.evaluate import evaluate
from dlmlab.run.shown import points
from dlmlab.task.base import Task
from dlmlab.tracking import Table
from dlmlab.types import Generation

USUAL, NOISE = "unshared", ("batch 1", "padded", "other precision")
"""What the noise floor's samples are by: the baseline as it is, and with what should not matter."""
PADDING = 24
"""Columns by which the noise floor widens the padding."""


def decode(run: Run, task: Task, rule: Rule, generation: Generation, name: str, **changes: Any) -> list[Sample]:
    """Decode and score a task with every canvas computed, under a name.

    Args:
        run: The run, into whose files the samples go.
        task: The task whose items are decoded.
        rule: The decoder.
        generation: How canvases are filled.
        name: What the samples' decoder is called.
        **changes: Other fields of `Decoding`, or another `model`.
    """
    model = changes.pop("model", run.model)
    how = replace(run.decoding(), share=False, traces=None, **changes)
    return evaluate(model, task, {name: rule}, generation, how)[name]


def noise_floor(run: Run, task: Task, rule: Rule, generation: Generation) -> list[dict[str, Any]]:
    """Return the share of prompts whose baseline answer changes with what should not matter.

    Args:
        run: The run, into whose files the samples go.
        task: The task whose items are decoded.
        rule: The baseline.
        generation: How canvases are filled.

    Returns:
        A row for each of `NOISE`, see `changed`.
    """
    single, padded, precise = NOISE
    other = replace(generation, confidence_dtype=other_dtype(generation))
    others = {
        f"batch 1 and {run.batch.size}": decode(run, task, rule, generation, single, batch=Batch(1)),
        f"{PADDING} more columns of padding": decode(run, task, rule, generation, padded, model=Padded(run.model)),
        "confidence in float32 and float64": decode(run, task, rule, other, precise),
    }
    usual = decode(run, task, rule, generation, USUAL)
    return [changed(name, usual, samples) for name, samples in others.items()]


def changed(name: str, usual: Sequence[Sample], samples: Sequence[Sample]) -> dict[str, Any]:
    """Return a row of the noise floor.

    Args:
        name: What differs, in words.
        usual: The baseline's samples.
        samples: Those with what differs, of the same items in the same order.
    """
    return {"name": name, "changed": 1 - share_same(usual, samples), "n": len(samples)}


def other_dtype(generation: Generation) -> str:
    """The precision of confidence that is not in use."""
    return "float64" if generation.confidence_dtype == "float32" else "float32"


def share_same(first: Sequence[Sample], second: Sequence[Sample]) -> float:
    """Return the share of items with the same tokens.

    Args:
        first: Samples, at least one.
        second: Samples of the same items in the same order.
    """
    return sum(a.tokens == b.tokens for a, b in zip(first, second, strict=True)) / len(first)


class Padded:
    """A model whose rows all have more padding than they need."""

    works_ahead = False  # passes that begin ahead would go past `hidden`

    def __init__(self, model: Any):
        self._model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def hidden(self, query: Query) -> Tensor:
        """`hidden` of the same positions, in rows wider by PADDING columns."""
        tokens_BL, real_BL, wanted_N = query[:3]
        if real_BL is None:
            real_BL = torch.ones_like(tokens_BL, dtype=torch.bool)
        if wanted_N is not None:
            wanted_N = wanted_N + wanted_N // tokens_BL.shape[1] * PADDING
        wider_BL = F.pad(tokens_BL, (0, PADDING), value=self._model.config.pad_token_id)
        layout = query.layout
        if layout is not None:
            layout = Layout(
                F.pad(layout.position_BL, (0, PADDING)), F.pad(layout.seen_BLL, (0, PADDING, 0, PADDING), value=False)
            )
        wider = Query(wider_BL, F.pad(real_BL, (0, PADDING)), wanted_N, layout=layout)
        return self._model.hidden(wider)  # type: ignore[no-any-return]


def noise_table(noise: Sequence[dict[str, Any]]) -> Table:
    """Return a table of what changes without a decoder."""
    rows = [[row["name"], f"{points(row['changed'])} %", row["n"]] for row in noise]
    return Table("Noise floor: baseline answers that change between", ["", "changed", "items"], rows)
