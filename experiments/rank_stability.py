"""Does who wins depend on how the question is put? Decoders × templates (× examples), paired (arXiv:2606.29228).

    python run.py experiment=rank_stability task=tiny_mmlu 'decoders=[baseline,threshold]' 'templates=[plain,brief]'

A template is a file of conf/template/. The order of every pair of decoders is judged by a paired bootstrap over items.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from omegaconf import DictConfig

from dlmlab import settings as kinds
from dlmlab.errors import UserError
from dlmlab.measure.ranking import compare_orders
from dlmlab.policy import Policy
from dlmlab.record.samples import Sample
from dlmlab.rule import Rule
from dlmlab.run import build, conf
from dlmlab.run.begin import begin
from dlmlab.run.check import check_fit, decoders
from dlmlab.run.samples import score_of
from dlmlab.settings import NonNegativeInt, PositiveInt, list_of, one_of
from dlmlab.task.base import Task
from dlmlab.tracking import Cell, Report, Table
from dlmlab.types import Generation

if TYPE_CHECKING:
    from dlmlab.run.rescore import Saved

KINDS: Mapping[str, Any] = {
    "decoders": list_of(str),
    "templates": list_of(str),
    "num_fewshot": list_of(NonNegativeInt) | None,
    "resamples": PositiveInt,
}
Grid = Mapping[str, Mapping[str, Sequence[Sample]]]
"""Samples by condition and decoder."""


class Parts(NamedTuple):
    """What is decoded.

    Attributes:
        tasks: The task by condition.
        rules: The decoders by name.
        generation: How canvases are filled.
        cache: That of every decoder.
    """

    tasks: dict[str, Task]
    rules: dict[str, Rule]
    generation: Generation
    cache: Policy


def check(cfg: DictConfig) -> Parts:
    """Return the task under every condition, and the decoders.

    Raises:
        UserError: Fewer than two decoders or conditions, a template that there isn't, or a task without scores.
    """
    kinds.check("templates", conf.plain(cfg.templates), list_of(one_of(conf.options("template"))))
    rules = decoders(cfg, cfg.decoders)
    cache = build.cache(cfg, rules.values())
    names = conditions(cfg)
    if len(rules) < 2 or len(names) < 2:
        raise UserError(f"{len(rules)} decoders under {len(names)} conditions have no order: give two of each")
    tasks = {condition: build.task(cfg, name) for condition, name in names.items()}
    first = next(iter(tasks.values()))
    if first.score(first.items()[0], "") is None:
        raise UserError(f"task={first.name} has answers without a score: choose another")
    generation = build.generation(cfg, first)
    for task in tasks.values():
        check_fit(cfg, task, generation)
    return Parts(tasks, rules, generation, cache)


def conditions(cfg: DictConfig) -> dict[str, str]:
    """Return the task's names under every condition, see `dlmlab.run.build.task`, by the condition's."""
    own = cfg.task.get("name") or build.role(cfg, "humaneval")
    shots = [f"@{number}" for number in cfg.num_fewshot] if cfg.num_fewshot else [""]
    return {f"{template}{shot}": f"{own}@{template}{shot}" for template in cfg.templates for shot in shots}


def run(cfg: DictConfig, parts: Parts) -> None:
    """Decode and score the items by every decoder under every condition.

    Args:
        cfg: The run's config.
        parts: What `check` returned.
    """
    with begin(cfg, list(parts.tasks.values())) as run:
        caches = dict.fromkeys(parts.rules, parts.cache)
        grid = {name: run.evaluate(task, parts.rules, parts.generation, caches) for name, task in parts.tasks.items()}
        report = Report(
            title=f"Rank stability: {cfg.task.get('name')}",
            question=f"Does the order of {len(parts.rules)} decoders hold under {len(grid)} ways to ask?",
            settings={
                "model": build.model_name(cfg),
                "generation": str(parts.generation),
                "cache": str(parts.cache),
                "batch_size": str(run.batch),
            },
            **report_fields(cfg, grid),
        )
        run.publish(report)


def report_fields(cfg: DictConfig, grid: Grid) -> dict[str, Any]:
    """Return what the samples say, in a Report's fields.

    Args:
        cfg: The run's config: its decoders, resamples and seed.
        grid: Samples by condition and decoder, of the same items everywhere.
    """
    names = list(cfg.decoders)
    score_CDN = np.array([[[each.score for each in row[name]] for name in names] for row in grid.values()], dtype=float)
    found = compare_orders(score_CDN, names, cfg.resamples, cfg.seed)
    scores = {condition: {name: score_of(row[name])["score"] for name in names} for condition, row in grid.items()}
    flipped = found["flipped"]
    verdict = (
        f"The order {VERDICTS[found['verdict']]}; {100 * flipped['share']:.0f} % of the pairs change sign (95 % "
        f"interval {100 * flipped['ci_low']:.0f} … {100 * flipped['ci_high']:.0f} %, {score_CDN.shape[-1]} items)."
    )
    return {
        "tables": [pair_table(list(grid), found["pairs"]), score_table(grid, names)],
        "verdict": verdict,
        "results": {
            "conditions": list(grid),
            "scores": scores,
            "pairs": found["pairs"],
            "flipped": flipped,
            "order": found["verdict"],
        },
        "summary": {"flipped": flipped["share"], "order": found["verdict"]},
    }


VERDICTS = {"holds": "holds", "flips": "does not hold", "inconclusive": "is not shown to hold with so few items"}


def pair_table(names: Sequence[str], pairs: Sequence[Mapping[str, Any]]) -> Table:
    """Return a table with a row for each pair of decoders: the difference with its interval under each condition.

    Args:
        names: The conditions.
        pairs: The pairs as `dlmlab.measure.ranking.compare_orders` returns them.
    """
    rows: list[list[Cell]] = []
    for pair in pairs:
        ends = zip(pair["differences"], pair["low"], pair["high"], strict=True)
        cells = [f"{100 * gap:+.1f} ({100 * low:+.1f} … {100 * high:+.1f})" for gap, low, high in ends]
        rows.append([f"{pair['first']} − {pair['second']}", *cells, pair["verdict"]])
    note = "Differences in points of 100, with 95 % intervals of a paired bootstrap over the items."
    return Table("Does the order hold?", ["decoders", *names, "verdict"], rows, note)


def score_table(grid: Grid, names: Sequence[str]) -> Table:
    """Return a table with a row for each decoder: its score with its interval under each condition.

    Args:
        grid: Samples by condition and decoder.
        names: The decoders.
    """
    rows: list[list[Cell]] = []
    for name in names:
        each = [score_of(row[name]) for row in grid.values()]
        cells = [f"{100 * own['score']:.1f} ({100 * own['ci_low']:.1f} … {100 * own['ci_high']:.1f})" for own in each]
        rows.append([name, *cells])
    return Table("Scores", ["decoder", *grid], rows)


def recompute(saved: Saved) -> dict[str, Any]:
    """Return what must stand in the results of a run that left these samples; see `dlmlab.verify`."""
    names = conditions(saved.cfg)
    grid = {condition: {name: saved.of(task, name) for name in saved.cfg.decoders} for condition, task in names.items()}
    return report_fields(saved.cfg, grid)
