"""What a speed figure is made of: counted tokens, a synchronised clock, peak memory, and settings that take turns."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import psutil
import torch

from dlmlab.denoise import StepTiming
from dlmlab.errors import UserError
from dlmlab.generation import answer_length, decode
from dlmlab.loop.batch import Batch
from dlmlab.record.folder import TIMINGS
from dlmlab.record.journal import Journal
from dlmlab.types import Generation, Request

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Ledger(NamedTuple):
    """Generated tokens, never the prompts', and what they cost, pooled over requests.

    canvas: all places, the performance log's definition. answer: tokens before the first end token. non_eos: tokens
    that are no end token, wherever they stand. forwards: forward passes, each row of a pass counted once. positions:
    those that the passes computed, prompts' among them. full_passes: the same as passes over whole rows.
    """

    canvas: int
    answer: int
    non_eos: int
    forwards: int
    positions: int = 0
    full_passes: float = 0.0

    @property
    def tokens_per_forward(self) -> float:
        """Canvas tokens that a row's forward pass commits, on average."""
        return self.canvas / self.forwards


class Timing(NamedTuple):
    """One timed run over all requests.

    seconds: wall time, from the first admission to the last answer. steps: see `dlmlab.denoise.StepTiming`; none where
    the loop has no steps to tell. most_steps: forward passes of the slowest row. peak_bytes: see `peak_memory`.
    """

    seconds: float
    ledger: Ledger
    steps: Sequence[StepTiming]
    most_steps: int
    peak_bytes: int
    tokens: Sequence[Sequence[int]]


class TimingFile:
    """`timings.jsonl` of a run: a line as soon as a job is timed. One that an earlier sitting has timed stays so."""

    def __init__(self, folder: Path):
        self._journal = Journal(folder / TIMINGS)
        self._journal.warn("what they told is timed again")
        try:
            self._timings = {str(entry["name"]): _timing(entry) for entry in self._journal.entries}
        except (KeyError, TypeError, ValueError) as error:
            path = self._journal.path
            raise UserError(f"{path} was written by other code ({error!r}): choose another folder") from error

    def keep(self, key: Hashable, turn: int, job: Callable[[], Timing], part: str = "") -> Timing:
        """What a job's turn came to, for `take_turns`. part: what tells jobs of the same key apart."""
        name = f"{part} {key} turn {turn}".lstrip()
        if name not in self._timings:
            self._timings[name] = job()
            self._journal.append({"name": name, **self._timings[name]._asdict()})
        return self._timings[name]


def _timing(entry: Mapping[str, Any]) -> Timing:
    told = {key: entry[key] for key in Timing._fields}
    return Timing(**{**told, "ledger": Ledger(*told["ledger"]), "steps": [StepTiming(*tick) for tick in told["steps"]]})


class Spread(NamedTuple):
    """Repeated measurements of one figure."""

    median: float
    low: float
    high: float


def time_decode(
    model: Any, requests: Sequence[Request], generation: Generation, batch_size: int, seed: int = 0
) -> Timing:
    """Decode the requests against the clock; every canvas is computed, none is shared or remembered.

    Raises UserError for a batch that doesn't fit the device.
    """
    batch = Batch(batch_size, halve=False)
    steps: list[StepTiming] = []
    reset_peak_memory(model.device)
    begun = clock(model.device)
    outputs = list(decode(model, requests, generation, batch_size=batch, seed=seed, share=False, on_step=steps.append))
    seconds = clock(model.device) - begun
    outputs.sort(key=lambda output: output.index)
    tokens, forwards = [output.tokens for output in outputs], [output.forwards for output in outputs]
    ledger = count(model, tokens, forwards)._replace(
        positions=sum(output.positions for output in outputs),
        full_passes=sum(output.full_passes for output in outputs),
    )
    return Timing(seconds, ledger, steps, max(forwards), peak_memory(model.device), tokens)


def count(model: Any, canvases: Sequence[Sequence[int]], forwards: Iterable[int]) -> Ledger:
    """The ledger of filled canvases."""
    return Ledger(
        canvas=sum(len(tokens) for tokens in canvases),
        answer=sum(answer_length(model, tokens) for tokens in canvases),
        non_eos=sum(token not in model.end_token_ids for tokens in canvases for token in tokens),
        forwards=sum(forwards),
    )


def take_turns(
    jobs: Mapping[Key, Callable[[], Value]],
    rounds: int,
    on_done: Callable[[Key], None] = lambda key: None,
    keep: Callable[[Key, int, Callable[[], Value]], Value] = lambda key, turn, job: job(),
) -> dict[Key, list[Value]]:
    """Each job's answers. Every round runs every job once, every other round backwards: a drift meets all alike.

    keep: how a job of a turn is run; see `TimingFile`.
    """
    answers: dict[Key, list[Value]] = {key: [] for key in jobs}
    for turn in range(rounds):
        for key in list(jobs)[:: -1 if turn % 2 else 1]:
            answers[key].append(keep(key, turn, jobs[key]))
            on_done(key)
    return answers


def spread(values: Iterable[float]) -> Spread:
    """Median and extremes."""
    ordered = list(values)
    return Spread(float(np.median(ordered)), min(ordered), max(ordered))


def percentile(values: Sequence[float], percent: float) -> float:
    """The value below which so many percent lie, interpolated."""
    return float(np.percentile(values, percent))


def clock(device: torch.device) -> float:
    """Seconds on a clock that only differences mean something of, read once the device is idle."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def reset_peak_memory(device: torch.device) -> None:
    """Let `peak_memory` count from now on. Only Linux can do so for a process; elsewhere it counts from its start."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: torch.device) -> int:
    """The most bytes in use: allocated on a GPU; on a CPU resident in the process, Python and torch included."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource  # which Windows lacks

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
