"""What does a cache save, and what does it do to answers?

    python -m benchmarks.caching                     both tables of docs/caches.md
    python -m benchmarks.caching limit=60 picture=docs/images/caches.png

The tiny model. First a canvas of 256 positions (`canvas`) at blocks of 32, batch 1, in turns: seconds with each cache,
against what its full-pass equivalents alone would save. Goal: prefix and dual save at least half of that; the rest is
the passes' fixed cost. Then the tasks tiny_humaneval and tiny_mmlu (`limit` items of each) at blocks of 8, 16 and 32:
the share of answers that are those without a cache, and the paired difference of the score with its 95 % interval.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure
from omegaconf import OmegaConf

from benchmarks.common import compose, exit_status, mark, show
from dlmlab.decoder.baseline import Baseline
from dlmlab.decoder.threshold import Threshold
from dlmlab.generation import encode
from dlmlab.loop.batch import Batch
from dlmlab.measure.stats import compare_right
from dlmlab.measure.timing import Timing, spread, take_turns, time_decode
from dlmlab.picture.plots import save
from dlmlab.policy import Policy
from dlmlab.record.samples import Sample
from dlmlab.run import build, conf
from dlmlab.run.evaluate import Decoding, evaluate
from dlmlab.run.samples import score_of
from dlmlab.task.base import Task
from dlmlab.tracking import Cell, Table
from dlmlab.types import Generation, Request

CANVAS, BLOCK, ROUNDS, PROMPTS = 256, 32, 3, 2
BLOCKS = (8, 16, 32)
TASKS = ("tiny_humaneval", "tiny_mmlu")
GOALS = ("prefix", "dual")
LEAST = 0.5
MARGIN = 0.05
MARKS = "so^vD<>Pp*hX"
OWN = ("canvas=", "limit=", "picture=")


class Point(NamedTuple):
    """A cache's score, 0 to 1, and what it computed for an item."""

    name: str
    full_passes: float
    score: float


def main(overrides: Sequence[str]) -> bool:
    """Measure, print, and say whether the goal is kept."""
    own = OmegaConf.from_dotlist([text for text in overrides if text.startswith(OWN)])
    cfg = compose([text for text in overrides if not text.startswith(OWN)])
    model = build.model(cfg)
    names = [name for name in conf.options("cache") if name != build.NO_CACHE]
    caches = {name: build.cache(cfg, name=name) for name in (build.NO_CACHE, *names)}
    caches = {name: cache for name, cache in caches.items() if not cache.keeps or cache.needs in model.keeps}
    kept = speed(cfg, model, caches, int(own.get("canvas", CANVAS)))
    tasks = [build.task(cfg, name, limit=own.get("limit")) for name in TASKS]
    points = {block: answers(cfg, model, caches, tasks, block) for block in BLOCKS}
    if own.get("picture"):
        picture(points, Path(own.picture))
    return kept


def speed(cfg: Any, model: Any, caches: dict[str, Policy], canvas: int) -> bool:
    """Time a long canvas with each cache, and say whether the goal is kept."""
    generation = Generation(canvas, min(BLOCK, canvas), canvas // 2)
    items = build.task(cfg, TASKS[0]).items()[:PROMPTS]
    prompts = [encode(model, item.prompt, canvas, item.id) for item in items]

    def job(cache: Policy) -> Timing:
        requests = [Request(index, prompt, Baseline(), cache=cache) for index, prompt in enumerate(prompts)]
        return time_decode(model, requests, generation, 1)

    jobs = {name: partial(job, cache) for name, cache in caches.items()}
    timings = take_turns(jobs, ROUNDS)
    usual, rows, kept = timings[build.NO_CACHE], list[list[Cell]](), True
    for name, runs in timings.items():
        ledger = runs[0].ledger
        share = ledger.full_passes / usual[0].ledger.full_passes
        ratio = spread(own.seconds / other.seconds for own, other in zip(runs, usual, strict=True))
        told = ""
        if name in GOALS:
            fast = 1 - ratio.median >= LEAST * (1 - share)
            kept, told = kept and fast, mark(fast)
        seconds = spread(run.seconds for run in runs).median
        took = f"{ratio.median:.2f} ({ratio.low:.2f}–{ratio.high:.2f})"
        rows.append([name, ledger.forwards, ledger.positions, f"{share:.3f}", f"{seconds:.2f}", took, told])
    columns = ["cache", "forwards", "positions", "share of full passes", "seconds", "share of seconds", "goal"]
    show(Table(f"A canvas of {canvas} at blocks of {generation.block_length}, {generation.steps} steps", columns, rows))
    return kept


def answers(cfg: Any, model: Any, caches: dict[str, Policy], tasks: Sequence[Task], block: int) -> list[Point]:
    """Decode the tasks with each cache at a block length, say what changes, and return the first task's points."""
    rows, points = [], list[Point]()
    for task in tasks:
        own = build.generation(cfg, task)
        if own.gen_length % block:
            continue
        generation = Generation(own.gen_length, block, own.gen_length, confidence_dtype="float64")
        rules = {cache_name: Threshold(0.9) for cache_name in caches}
        found = {
            each: evaluate(model, task, {each: rules[each]}, generation, Decoding(Batch(8), caches=caches))[each]
            for each in caches
        }
        if task is tasks[0]:
            points = [Point(each, cost(found[each], "full_passes"), score_of(found[each])["score"]) for each in caches]
        rows += [row(task.name, each, found[each], found[build.NO_CACHE]) for each in caches]
    columns = ["task", "cache", "same answers", "score", "difference", "95 % interval", "forwards", "full passes"]
    note = "threshold 0.9; scores and differences in points of 100; forwards and full-pass equivalents an item."
    show(Table(f"What caches do to answers, blocks of {block}", columns, rows, note))
    return points


def cost(samples: Sequence[Sample], name: str) -> float:
    """A figure's mean over the samples."""
    return float(sum(getattr(each, name) for each in samples) / len(samples))


def picture(points: Mapping[int, Sequence[Point]], path: Path) -> None:
    """Draw the score against the full-pass equivalents, a panel for each block length."""
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    panels = figure.subplots(1, len(points), sharey=True)
    for panel, (block, own) in zip(panels, points.items(), strict=True):
        for point, mark_ in zip(own, MARKS, strict=False):
            panel.plot(point.full_passes, 100 * point.score, mark_, label=point.name, markersize=8, alpha=0.7)
        panel.set(title=f"blocks of {block}", xlabel="full-pass equivalents an item")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper")
    panels[0].set_ylabel(f"{TASKS[0]}, score")
    save(figure, path)


def row(task: str, name: str, samples: Sequence[Sample], usual: Sequence[Sample]) -> list[Any]:
    """One cache at one task."""
    right, theirs = ([sample.score == 1 for sample in each] for each in (samples, usual))
    same = sum(own.tokens == other.tokens for own, other in zip(samples, usual, strict=True)) / len(samples)
    against = compare_right(theirs, right, MARGIN)
    took = [f"{cost(samples, key):.2f}" for key in ("forwards", "full_passes")]
    interval = f"{100 * against.ci_low:+.1f} … {100 * against.ci_high:+.1f}"
    score = f"{100 * sum(right) / len(right):.1f}"
    return [task, name, f"{same:.0%}", score, f"{100 * (against.difference or 0):+.1f}", interval, *took]


if __name__ == "__main__":
    sys.exit(exit_status(main))
