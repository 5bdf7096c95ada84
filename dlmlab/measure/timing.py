"""Time decoding: counted tokens, a synchronised clock, peak memory, and settings that take turns."""

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
    """Counts of generated tokens, never the prompts', and of what they cost, pooled over requests.

    Attributes:
        canvas: All positions of the canvases, the performance log's definition.
        answer: Tokens before the first end token.
        non_eos: Tokens that are no end token, at whatever position.
        forwards: Forward passes, each row of a pass counted once.
        positions: Positions that the passes computed, the prompts' among them.
        full_passes: Full-pass equivalents: each row's computed positions divided by its length.
    """

    canvas: int
    answer: int
    non_eos: int
    forwards: int
    positions: int = 0
    full_passes: float = 0.0

    @property
    def tokens_per_forward(self) -> float:
        """Return the canvas tokens that a row's forward pass commits, on average."""
        return self.canvas / self.forwards


class Timing(NamedTuple):
    """One timed run over all requests.

    Attributes:
        seconds: Wall time, from the first admission to the last answer.
        ledger: The tokens, and what they cost.
        steps: The steps; none where the loop doesn't report them.
        most_steps: Forward passes of the slowest row.
        peak_bytes: Peak memory in bytes, see `peak_memory`.
        tokens: The canvas of each request.
        ran_over: Positions that the model's passes ran over: the ledger's, and what was computed for nothing: padding,
            shapes that were rounded up, passes that were begun ahead and dropped. 0 where the model doesn't count.
    """

    seconds: float
    ledger: Ledger
    steps: Sequence[StepTiming]
    most_steps: int
    peak_bytes: int
    tokens: Sequence[Sequence[int]]
    ran_over: int = 0

    @property
    def for_nothing(self) -> float | None:
        """Return the share of the positions that were computed for nothing; None where the model doesn't count."""
        return 1 - self.ledger.positions / self.ran_over if self.ran_over else None


class TimingFile:
    """`timings.jsonl` of a run: gets a line as soon as a job is timed. A job that an earlier start of the run
    timed stays so.
    """

    def __init__(self, folder: Path):
        self._journal = Journal(folder / TIMINGS)
        self._journal.warn("what they told is timed again")
        try:
            self._timings = {str(entry["name"]): _timing(entry) for entry in self._journal.entries}
        except (KeyError, TypeError, ValueError) as error:
            path = self._journal.path
            raise UserError(f"{path} was written by other code ({error!r}): choose another folder") from error

    def keep(self, key: Hashable, turn: int, job: Callable[[], Timing], part: str = "") -> Timing:
        """Return the timing of a job's turn; time it where no earlier start of the run did. For `take_turns`.

        Args:
            key: The job's key.
            turn: The round, counted from 0.
            job: Does the work and returns its timing.
            part: Tells jobs of the same key apart.
        """
        name = f"{part} {key} turn {turn}".lstrip()
        if name not in self._timings:
            self._timings[name] = job()
            self._journal.append({"name": name, **self._timings[name]._asdict()})
        return self._timings[name]


def _timing(entry: Mapping[str, Any]) -> Timing:
    told = {key: entry[key] for key in Timing._fields if key in entry}  # an earlier version's has less
    return Timing(**{**told, "ledger": Ledger(*told["ledger"]), "steps": [StepTiming(*tick) for tick in told["steps"]]})


class Spread(NamedTuple):
    """The median and the extremes of repeated measurements of one figure."""

    median: float
    low: float
    high: float


def time_decode(
    model: Any, requests: Sequence[Request], generation: Generation, batch_size: int, seed: int = 0
) -> Timing:
    """Decode the requests against the clock; every canvas is computed, none is shared or remembered.

    Args:
        model: The model.
        requests: The canvases to fill.
        generation: How canvases are laid out and scheduled.
        batch_size: Canvases that go through the model at once.
        seed: The run's seed.

    Raises:
        UserError: The batch doesn't fit the device.
    """
    batch = Batch(batch_size, halve=False)
    steps: list[StepTiming] = []
    reset_peak_memory(model.device)
    before = getattr(model, "ran_over", 0)  # other models need not count
    begun = clock(model.device)
    outputs = list(decode(model, requests, generation, batch_size=batch, seed=seed, share=False, on_step=steps.append))
    seconds = clock(model.device) - begun
    outputs.sort(key=lambda output: output.index)
    tokens, forwards = [output.tokens for output in outputs], [output.forwards for output in outputs]
    ledger = count(model, tokens, forwards)._replace(
        positions=sum(output.positions for output in outputs),
        full_passes=sum(output.full_passes for output in outputs),
    )
    ran_over = getattr(model, "ran_over", 0) - before
    return Timing(seconds, ledger, steps, max(forwards), peak_memory(model.device), tokens, ran_over)


def count(model: Any, canvases: Sequence[Sequence[int]], forwards: Iterable[int]) -> Ledger:
    """Return the ledger of filled canvases.

    Args:
        model: The model, which knows its end tokens.
        canvases: The tokens of each canvas.
        forwards: The forward passes of each.
    """
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
    """Run the jobs in turns, so that a drift of the machine meets all alike.

    Every round runs every job once, every other round backwards.

    Args:
        jobs: The jobs by key.
        rounds: The number of rounds.
        on_done: Called with a job's key after each of its turns.
        keep: Runs a job of a turn; see `TimingFile`.

    Returns:
        The results of each job, one a round.
    """
    answers: dict[Key, list[Value]] = {key: [] for key in jobs}
    for turn in range(rounds):
        for key in list(jobs)[:: -1 if turn % 2 else 1]:
            answers[key].append(keep(key, turn, jobs[key]))
            on_done(key)
    return answers


def spread(values: Iterable[float]) -> Spread:
    """Return the median and the extremes."""
    ordered = list(values)
    return Spread(float(np.median(ordered)), min(ordered), max(ordered))


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the value below which so many percent lie, interpolated.

    Args:
        values: Values in any order, at least one.
        percent: From 0 to 100.
    """
    return float(np.percentile(values, percent))


def clock(device: torch.device) -> float:
    """Wait until the device is idle, and return seconds on a clock of which only differences have a meaning."""
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
    """Return the most bytes in use: allocated on a GPU; on a CPU resident in the process, Python and torch included.

    On a GPU that includes what recorded passes write to, which the allocator counts as free once they are recorded.
    """
    if device.type == "cuda":
        number = torch.cuda.current_device() if device.index is None else device.index
        own = (each for each in torch.cuda.memory_snapshot() if each["device"] == number)
        recorded = (each for each in own if each["segment_pool_id"] != (0, 0))
        unseen: int = sum(each["total_size"] - each["allocated_size"] for each in recorded)
        return torch.cuda.max_memory_allocated(device) + unseen
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource  # which Windows lacks

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
