"""What does a step cost besides the model's forward pass, by decoder?

    python -m benchmarks.overhead

Every decoder of conf/decoder/ fills the same canvases, in turns, in batches of the largest of `batch_sizes`. Time is
outside where neither the transformer nor its head is at work; memory is what tensors hold then, the model's weights
aside. Goal: at most 15 % of a step's time for the baseline and the chosen decoder.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor
from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks.common import compose, exit_status, mark, prepare, show
from dlmlab.denoise import StepTiming
from dlmlab.denoiser import Query
from dlmlab.errors import UserError
from dlmlab.generation import decode
from dlmlab.measure.timing import clock, spread, take_turns
from dlmlab.paths import CONF
from dlmlab.rule import Rule
from dlmlab.run import build
from dlmlab.tracking import Cell, Table
from dlmlab.types import Generation, Request

MOST_OUTSIDE = 0.15
INSIDE = "forward"


class Cost(NamedTuple):
    """A run's steps: how many, their seconds, and the seconds of these that lie outside the forward passes."""

    steps: int
    seconds: float
    outside: float


def main(overrides: Sequence[str]) -> bool:
    """Measure, print, and say whether the goal is kept."""
    cfg = compose(overrides)
    rules = {name: rule for name in decoders() if (rule := usable(partial(build.decoder, cfg, name))) is not None}
    chosen = build.decoder(cfg)
    own_name = next((name for name, rule in rules.items() if rule == chosen), str(chosen))
    rules[own_name] = chosen
    model, prompts, generation = prepare(cfg)
    batch = max(cfg.batch_sizes)
    jobs = {name: partial(cost, model, prompts, generation, rule, batch) for name, rule in rules.items()}
    take_turns(jobs, cfg.warmup)
    costs = take_turns(jobs, cfg.repeats)

    rows: list[list[Cell]] = []
    kept = True
    for name, runs in costs.items():
        share = spread(run.outside / run.seconds for run in runs)
        goal = ""
        if name in ("baseline", own_name):
            kept &= share.median <= MOST_OUTSIDE
            goal = f"≤ {MOST_OUTSIDE:.0%} {mark(share.median <= MOST_OUTSIDE)}"
        memory = memory_outside(model, prompts[:batch], generation, rules[name], batch)
        rows.append(
            [
                name,
                runs[0].steps,
                f"{1e3 * spread(run.seconds / run.steps for run in runs).median:.2f}",
                f"{1e3 * spread(run.outside / run.steps for run in runs).median:.2f}",
                f"{share.median:.1%}",
                f"{share.low:.1%}–{share.high:.1%}",
                f"{memory / 1e6:.2f}",
                goal,
            ]
        )
    columns = ["decoder", "steps", "ms/step", "outside, ms", "share", "lowest–highest", "outside, MB", "goal"]
    show(Table(f"Outside the forward pass, batch {batch}, {cfg.model.path}", columns, rows))
    return kept


def decoders() -> list[str]:
    """What conf/decoder/ holds."""
    return sorted(path.stem for path in (CONF / "decoder").glob("*.yaml"))


def usable(make: Callable[[], Rule]) -> Rule | None:
    """The rule; None where the model has no calibration for it."""
    try:
        return make()
    except UserError:
        return None


class Watched:
    """A model that notes the time it spends inside its passes."""

    works_ahead = False  # passes that begin ahead would go past `hidden`; on a GPU users' loop is quicker than this

    def __init__(self, model: Any):
        self._model, self.seconds = model, 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def hidden(self, query: Query) -> Tensor:
        """The model's, noted."""
        return self._note(self._model.hidden, query)

    def head(self, hidden_ND: Tensor) -> Tensor:
        """The model's, noted."""
        return self._note(self._model.head, hidden_ND)

    def _note(self, work: Callable[..., Tensor], *inputs: Any) -> Tensor:
        begun = clock(self._model.device)
        with record_function(INSIDE):
            made = work(*inputs)
        self.seconds += clock(self._model.device) - begun
        return made


def fill(
    model: Any, prompts: Sequence[tuple[int, ...]], generation: Generation, rule: Rule, batch: int
) -> list[StepTiming]:
    """Decode the prompts, and tell the steps."""
    ticks: list[StepTiming] = []
    requests = [Request(index, prompt, rule) for index, prompt in enumerate(prompts)]
    for _ in decode(model, requests, generation, batch_size=batch, share=False, on_step=ticks.append):
        pass
    return ticks


def cost(model: Any, prompts: Sequence[tuple[int, ...]], generation: Generation, rule: Rule, batch: int) -> Cost:
    """The time of every step, and of what lies outside its forward pass."""
    watched = Watched(model)
    ticks = fill(watched, prompts, generation, rule, batch)
    seconds = sum(tick.seconds for tick in ticks)
    return Cost(len(ticks), seconds, seconds - watched.seconds)


def memory_outside(
    model: Any, prompts: Sequence[tuple[int, ...]], generation: Generation, rule: Rule, batch: int
) -> int:
    """The most bytes that tensors made since the start hold outside the forward passes, from torch's profiler."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # it writes about itself to stderr
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        fill(Watched(model), prompts, generation, rule, batch)
    events = profiler.profiler.kineto_results.events()
    device = model.device.type.upper()
    changes = (each for each in events if each.name() == "[memory]" and each.device_type().name == device)
    inside = sorted((each.start_ns(), each.end_ns()) for each in events if each.name() == INSIDE)
    held, most, span = 0, 0, 0
    for at, change in sorted((each.start_ns(), each.nbytes()) for each in changes):
        held += change
        while span < len(inside) and inside[span][1] < at:
            span += 1
        if span == len(inside) or at < inside[span][0]:
            most = max(most, held)
    return most


if __name__ == "__main__":
    sys.exit(exit_status(main))
