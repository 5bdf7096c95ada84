"""What does a cache save, and what does it do to answers?

    python -m benchmarks.caching                     both tables of docs/caches.md
    python -m benchmarks.caching limit=4 canvas=64

The tiny model. First a canvas of 256 positions (`canvas`) at blocks of 32, batch 1, in turns: seconds with each cache,
against what its positions alone would save. Goal: prefix and dual save at least half of that; the rest is the passes'
fixed cost. Then the tasks tiny_humaneval and tiny_mmlu (`limit` items of each) at blocks of 8, 16 and 32: the share of
answers that are those without a cache, and the paired difference of the score with its 95 % interval.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

from omegaconf import OmegaConf

from benchmarks.common import compose, exit_status, mark, show
from dlmlab.decoder.baseline import Baseline
from dlmlab.decoder.threshold import Threshold
from dlmlab.generation import encode
from dlmlab.loop.batch import Batch
from dlmlab.measure.stats import compare_right
from dlmlab.measure.timing import Timing, spread, take_turns, time_decode
from dlmlab.policy import Policy
from dlmlab.record.samples import Sample
from dlmlab.run import build
from dlmlab.run.evaluate import Decoding, evaluate
from dlmlab.task.base import Task
from dlmlab.tracking import Table
from dlmlab.types import Generation, Request

CANVAS, BLOCK, ROUNDS, PROMPTS = 256, 32, 3, 2
BLOCKS = (8, 16, 32)
TASKS = ("tiny_humaneval", "tiny_mmlu")
GOALS = ("prefix", "dual")
LEAST = 0.5
MARGIN = 0.05
OWN = ("canvas=", "limit=")


def main(overrides: Sequence[str]) -> bool:
    """Measure, print, and say whether the goal is kept."""
    own = OmegaConf.from_dotlist([text for text in overrides if text.startswith(OWN)])
    cfg = compose([text for text in overrides if not text.startswith(OWN)])
    model = build.model(cfg)
    names = [name for name in build.options("cache") if name != build.NO_CACHE]
    caches = {name: build.cache(cfg, name=name) for name in (build.NO_CACHE, *names)}
    kept = speed(cfg, model, caches, int(own.get("canvas", CANVAS)))
    tasks = [build.task(cfg, name, limit=own.get("limit")) for name in TASKS]
    for block in BLOCKS:
        answers(cfg, model, caches, tasks, block)
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
    usual, rows, kept = timings[build.NO_CACHE], [], True
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
    columns = ["cache", "forwards", "positions", "share of positions", "seconds", "share of seconds", "goal"]
    show(Table(f"A canvas of {canvas} at blocks of {generation.block_length}, {generation.steps} steps", columns, rows))
    return kept


def answers(cfg: Any, model: Any, caches: dict[str, Policy], tasks: Sequence[Task], block: int) -> None:
    """Decode the tasks with each cache at a block length, and say what changes."""
    rows = []
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
        rows += [row(task.name, each, found[each], found[build.NO_CACHE]) for each in caches]
    columns = ["task", "cache", "same answers", "score", "difference", "95 % interval", "forwards", "full passes"]
    note = "threshold 0.9; scores and differences in points of 100; forwards and full-pass equivalents an item."
    show(Table(f"What caches do to answers, blocks of {block}", columns, rows, note))


def row(task: str, name: str, samples: Sequence[Sample], usual: Sequence[Sample]) -> list[Any]:
    """One cache at one task."""
    right, theirs = ([sample.score == 1 for sample in each] for each in (samples, usual))
    same = sum(own.tokens == other.tokens for own, other in zip(samples, usual, strict=True)) / len(samples)
    against = compare_right(theirs, right, MARGIN)
    cost = [sum(getattr(each, key) for each in samples) / len(samples) for key in ("forwards", "full_passes")]
    interval = f"{100 * against.ci_low:+.1f} … {100 * against.ci_high:+.1f}"
    score = f"{100 * sum(right) / len(right):.1f}"
    return [task, name, f"{same:.0%}", score, f"{100 * against.difference:+.1f}", interval, *(f"{c:.2f}" for c in cost)]


if __name__ == "__main__":
    sys.exit(exit_status(main))
