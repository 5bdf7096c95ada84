"""The median step's forward pass by itself: its canvases, what a cache computes of them, its time, and its parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from dlmlab.decoder.baseline import Baseline
from dlmlab.loop.canvases import Canvases, Window
from dlmlab.loop.propose import propose
from dlmlab.loop.row import with_left
from dlmlab.measure.profiling import RULE, Job, Timeline
from dlmlab.measure.roofline import KeptRow
from dlmlab.measure.timing import clock
from dlmlab.policy import Plan, Policy, View
from dlmlab.types import Generation


def typical_places(generation: Generation) -> float:
    """Return how many positions of a row's active block are masked in the median step of its schedule."""
    steps = generation.steps // generation.blocks
    committed = np.cumsum([0, *(generation.quota(step) for step in range(steps - 1))])
    return float(np.median(generation.block_length - committed))


def middle(prompt: int, generation: Generation) -> int:
    """Return the first position of the middle block.

    Args:
        prompt: Tokens of the prompt.
        generation: How canvases are filled.
    """
    return prompt + generation.blocks // 2 * generation.block_length


def second_plan(cache: Policy, prompt: int, generation: Generation, config: Any) -> Plan:
    """Return what a row computes in the second pass of the middle block, and in all that follow it there.

    Args:
        cache: A steady one.
        prompt: Tokens of the prompt.
        generation: How canvases are filled.
        config: The model's, which says whether logits are shifted.
    """
    start, forwards = middle(prompt, generation), generation.steps // 2 + 1
    committed_L = np.append(np.full(prompt, -1), np.full(generation.gen_length, forwards))
    committed_L[prompt:start] = 0
    first = View(prompt, start, start + generation.block_length, 0, forwards - 1, committed_L)
    second = replace(first, step=1, forwards=forwards, last=cache.plan(first))
    plan = cache.plan(second)
    return with_left(plan, second) if getattr(config, "logits_shift", False) else plan


def typical_canvases(
    model: Any, prompts: Sequence[tuple[int, ...]], generation: Generation, cache: Policy | None
) -> Canvases:
    """Return canvases as the median step of the middle block sees them; with a cache, whose stores a pass has filled.

    Args:
        model: The model.
        prompts: Token ids, one prompt for each row of the batch.
        generation: How canvases are filled.
        cache: What decides which positions are computed; None for all.
    """
    masked = round(typical_places(generation))
    draws = torch.Generator(model.device).manual_seed(0) if generation.temperature > 0 else None
    windows = []
    for prompt in prompts:
        start = middle(len(prompt), generation)
        tokens_L = np.append(prompt, np.full(generation.gen_length, model.config.mask_token_id))
        tokens_L[len(prompt) : start + generation.block_length - masked] = 0
        windows.append(Window(tokens_L, start, draws))
    if cache is not None:
        everything = [
            window._replace(
                plan=Plan(np.ones(len(window.tokens), dtype=bool)), store=model.new_store(len(window.tokens))
            )
            for window in windows
        ]
        propose(model, Canvases.of(everything, generation.block_length, model.config), generation, Baseline())
        plans = [second_plan(cache, len(prompt), generation, model.config) for prompt in prompts]
        windows = [window._replace(plan=plan) for window, plan in zip(everything, plans, strict=True)]
    return Canvases.of(windows, generation.block_length, model.config)


def typical_row(
    model: Any, prompt: tuple[int, ...], generation: Generation, cache: Policy | None
) -> tuple[int, KeptRow | None]:
    """Return how many positions of a row such a pass computes, and what it takes over of the row.

    Args:
        model: The model.
        prompt: Token ids.
        generation: How canvases are filled.
        cache: What decides which positions are computed; None for all.
    """
    canvases, length = typical_canvases(model, [prompt], generation, cache), len(prompt) + generation.gen_length
    kept = None if canvases.kept is None else KeptRow(length, canvases.kept.stores[0].nbytes)
    return canvases.tokens_BL.shape[1], kept


def passing(model: Any, prompts: Sequence[tuple[int, ...]], generation: Generation, cache: Policy) -> Job:
    """Return passes like those that `time_passes` times, to be watched; what fills the stores is done already.

    Args:
        model: The model.
        prompts: Token ids, one prompt for each row of the batch.
        generation: How canvases are filled; its steps are as many as there are passes.
        cache: What decides which positions are computed.
    """
    canvases = typical_canvases(model, prompts, generation, cache)

    def job(marked: Any, timeline: Timeline) -> int:
        timeline.enter(RULE)
        for _ in range(generation.steps):
            propose(marked, canvases, generation, Baseline())
            timeline.enter(RULE)
        return generation.steps

    return job


def time_passes(model: Any, prompts: Sequence[tuple[int, ...]], generation: Generation, cache: Policy | None) -> float:
    """Return seconds of the median step's forward pass with its confidences: the mean of as many as there are steps.

    They run one after another. On a GPU none waits for the one before: between them is nothing.

    Args:
        model: The model.
        prompts: Token ids, one prompt for each row of the batch.
        generation: How canvases are filled; its steps are the passes that are timed.
        cache: What decides which positions are computed; None for all.
    """
    canvases = typical_canvases(model, prompts, generation, cache)
    begun = clock(model.device)
    for _ in range(generation.steps):
        propose(model, canvases, generation, Baseline())
    return (clock(model.device) - begun) / generation.steps
