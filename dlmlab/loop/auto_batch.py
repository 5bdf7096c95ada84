"""Find the batch size that fills canvases fastest by trying it on the device: `batch_size=auto`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from dlmlab.loop.batch import SMALLER, Batch, give_back, no_room
from dlmlab.loop.row import Row
from dlmlab.loop.step import advance
from dlmlab.types import Generation, Request

MOST = {"cpu": 64, "cuda": 1024}
"""Largest batch size that is tried, by the device's type."""
GAIN = 1.03
"""Least ratio of rates by which a larger batch must be faster; less is the clock's noise, and not worth the memory."""
TIMED = 3
"""Steps of each size that are timed, after one that isn't; their median counts."""


def choose(batch: Batch, model: Any, by_length: Sequence[Request], generation: Generation, seed: int = 0) -> None:
    """Set the batch's size for these requests, and say so; once for requests of the same kind.

    Their first step is what is tried: no other has longer rows or more masked positions.

    Args:
        batch: The batch whose size is set.
        model: The model that decodes.
        by_length: The requests, longest first.
        generation: How canvases are laid out and scheduled.
        seed: The run's seed.

    Raises:
        UserError: Not even one canvas fits.
    """
    rules = {request.rule.kind: request.rule for request in by_length}
    longest = len(by_length[0].prompt)
    wanted = (generation, longest, frozenset(rules), len(by_length))
    if batch.chosen_for == wanted:
        return
    hungriest = max(rules.values(), key=lambda rule: (rule.drafts, rule.needs_logits, rule.revokes, rule.measures))
    requests = [replace(request, rule=hungriest) for request in by_length[: MOST[model.device.type]]]
    size, rates = search(partial(canvases_per_second, model, requests, generation, seed), len(requests))
    batch.size, batch.chosen_for = size, wanted
    batch.log.append({"size": size, "longest prompt": longest, "canvases per second": rates})
    shown = ", ".join(f"{tried}: {rate:.4g}" if rate else f"{tried}: no room" for tried, rate in rates.items())
    print(f"batch_size=auto: {size} (canvases a second in one step, by size: {shown})", file=sys.stderr)


def search(rate: Callable[[int], float], most: int) -> tuple[int, dict[int, float]]:
    """Find the size with the highest rate.

    The size doubles as long as that gains. Where room ends it, the gap is halved until it is an eighth.

    Args:
        rate: Returns a size's rate; 0 for one that doesn't fit.
        most: The largest size to try.

    Returns:
        The best size, and the rate of every size that was tried.
    """
    best, size, too_large = 0, 1, most + 1
    rates: dict[int, float] = {}
    while size not in rates:
        rates[size] = rate(size)
        if not rates[size]:
            too_large = size
        elif rates[size] > GAIN * rates.get(best, 0.0):
            best = size
        else:
            break
        if too_large > most:
            size = min(2 * best, most)
        elif too_large - best > max(1, best // 8):
            size = (best + too_large) // 2
    return best, dict(sorted(rates.items()))


@torch.inference_mode()
def canvases_per_second(model: Any, requests: Sequence[Request], generation: Generation, seed: int, size: int) -> float:
    """Return how many canvases a step of the first `size` requests advances in a second; 0 where the device has
    no room.

    Args:
        model: The model.
        requests: The canvases to fill, at least `size` of them.
        generation: How canvases are laid out, scheduled and scored.
        seed: The run's seed.
        size: How many canvases go through the model at once.
    """
    seconds = []
    try:
        for _ in range(1 + TIMED):
            rows = [Row(request, generation, model, seed) for request in requests[:size]]
            for row in rows:  # the first step has no drafts yet, and is to be as dear as the dearest
                row.drafts = [np.full(row.width, -1)] * row.request.rule.drafts
            begun = time.perf_counter()
            advance(model, rows, share=False)  # ends with a copy that waits for the device
            seconds.append(time.perf_counter() - begun)
    except torch.OutOfMemoryError as error:
        reason = str(error)
    else:
        return size / float(np.median(seconds[1:]))
    give_back()
    if size == 1:
        raise no_room("a single canvas", reason, SMALLER)
    return 0.0
