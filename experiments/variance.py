"""Which factor flips how many items, and how much of the score's variance does it explain (arXiv:2604.13413)?

    python run.py experiment=variance task=tiny_humaneval '+factors={model.dtype: [float32, bfloat16]}'

A factor is a setting of the config by its key (`seed`, `batch_size`, `device`, `model.dtype`, `model.quantization`,
`generation.confidence_dtype`), `cache` with names of conf/cache/, or `share`. Every combination decodes all the items
anew, with the config's cache where none is a factor.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dlmlab import settings as kinds
from dlmlab.errors import UserError
from dlmlab.loop.batch import Batch
from dlmlab.measure.factors import split
from dlmlab.policy import Policy
from dlmlab.record.samples import Sample
from dlmlab.rule import Rule
from dlmlab.run import build, conf
from dlmlab.run.begin import Run, begin
from dlmlab.run.check import check_fit
from dlmlab.run.evaluate import evaluate
from dlmlab.run.kinds import gathered
from dlmlab.run.samples import score_of
from dlmlab.settings import PositiveInt, list_of, one_of
from dlmlab.task.base import Task
from dlmlab.tracking import Cell, Report, Table

if TYPE_CHECKING:
    from dlmlab.run.rescore import Saved

KINDS: Mapping[str, Any] = {"factors": dict[str, list_of(Any)], "resamples": PositiveInt}  # type: ignore[misc]
MOST_CELLS = 64
SHARE = "share"
CACHE = "cache"
SETTINGS = ("seed", "batch_size", "device", "model", "generation", CACHE)
"""What a combination's decoding reads of its config: only these settings, and those in them, can be factors."""


class Parts(NamedTuple):
    """What is decoded.

    Attributes:
        task: The task.
        rule: The decoder.
        caches: The cache of each combination, by what it is called.
    """

    task: Task
    rule: Rule
    caches: dict[str, Policy]


def check(cfg: DictConfig) -> Parts:
    """Return the task and the decoder.

    Raises:
        UserError: A factor is no setting or has a single value, or there are too many combinations.
    """
    with gathered() as errors:
        with errors:
            rule = build.decoder(cfg)
        with errors:
            task = build.task(cfg, cfg.task.get("name") or build.role(cfg, "humaneval"))
            for cell in cells(cfg):
                check_fit(configured(cfg, cell), task, build.generation(configured(cfg, cell), task))
        with errors:
            if task.score(task.items()[0], "") is None:
                raise UserError(f"task={task.name} has answers without a score: choose another")
    return Parts(task, rule, {called(cell): cache_of(cfg, cell, rule) for cell in cells(cfg)})


def cells(cfg: DictConfig) -> list[dict[str, Any]]:
    """Return all combinations of the factors' values, the last factor varying fastest.

    Raises:
        UserError: See `check`.
    """
    factors: dict[str, list[Any]] = conf.plain(cfg.factors)
    if not factors or any(len(values) < 2 for values in factors.values()):
        raise UserError("factors has one with a single value, or none: give each two values, such as seed: [0, 1]")
    if CACHE in factors and (own := next((key for key in factors if key.startswith(f"{CACHE}.")), None)):
        raise UserError(f"factors has {CACHE} and {own}, but a cache by name keeps its own settings: leave one out")
    combined = [dict(zip(factors, values, strict=True)) for values in itertools.product(*factors.values())]
    if len(combined) > MOST_CELLS:
        raise UserError(f"factors makes {len(combined)} combinations, more than {MOST_CELLS}: leave some values out")
    return combined


def configured(cfg: DictConfig, cell: Mapping[str, Any]) -> DictConfig:
    """Return the config with a combination's values.

    Args:
        cfg: The run's config, which stays as it is.
        cell: The values by factor; those of `share` and `cache` are left out, since they are no settings of the config.

    Raises:
        UserError: A factor is no setting.
    """
    changed = cfg.copy()
    for key, value in cell.items():
        if key in (SHARE, CACHE):
            continue
        home, _, name = key.rpartition(".")
        unknown = UserError(
            f"factors has {key!r}, which is no setting of decoding: try batch_size, model.dtype or cache"
        )
        try:
            there = name in (OmegaConf.select(cfg, home) if home else cfg)
            if key.partition(".")[0] not in SETTINGS or not there or OmegaConf.is_dict(OmegaConf.select(cfg, key)):
                raise unknown
            OmegaConf.update(changed, key, value)
        except (OmegaConfBaseException, TypeError) as error:
            raise unknown from error
    return changed


def cache_of(cfg: DictConfig, cell: Mapping[str, Any], rule: Rule) -> Policy:
    """Return a combination's cache.

    Args:
        cfg: The run's config, whose cache is taken where none is a factor.
        cell: The combination's values by factor.
        rule: The decoder that runs with it.

    Raises:
        UserError: There is no such cache, or it doesn't go with the rule.
    """
    if CACHE in cell:
        kinds.check("factors.cache", cell[CACHE], one_of(conf.options("cache")))
    return build.cache(configured(cfg, cell), [rule], cell.get(CACHE))


def called(cell: Mapping[str, Any]) -> str:
    """Return what a combination's samples are called."""
    return " ".join(f"{key}={value}" for key, value in cell.items())


def run(cfg: DictConfig, parts: Parts) -> None:
    """Decode and score the items under every combination.

    Args:
        cfg: The run's config.
        parts: What `check` returned.
    """
    with begin(cfg, [parts.task]) as run:
        grid = {called(cell): decoded(run, parts, cell) for cell in in_turn(cells(cfg))}
        report = Report(
            title=f"Variance by factor: {parts.task.name}",
            question=f"Which factor flips how many items of {parts.task.name}, decoded by {parts.rule}?",
            settings={"model": build.model_name(cfg), "decoder": str(parts.rule), "combinations": len(grid)},
            **report_fields(cfg, grid),
        )
        run.publish(report)


def in_turn(combined: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Yield the combinations with those of one model and device side by side, since one is loaded at a time."""
    yield from sorted(
        combined, key=lambda cell: [str(value) for key, value in cell.items() if "model." in key or key == "device"]
    )


def decoded(run: Run, parts: Parts, cell: Mapping[str, Any]) -> list[Sample]:
    """Return the samples of one combination.

    Args:
        run: The run, into whose files they go.
        parts: What `check` returned.
        cell: The combination's values by factor.
    """
    own, name = configured(run.cfg, cell), called(cell)
    how = replace(
        run.decoding(),
        batch=Batch(own.batch_size),
        seed=own.seed,
        share=bool(cell.get(SHARE, True)),
        traces=None,
        caches={name: parts.caches[name]},
    )
    return evaluate(build.model(own), parts.task, {name: parts.rule}, build.generation(own, parts.task), how)[name]


def report_fields(cfg: DictConfig, grid: Mapping[str, Sequence[Sample]]) -> dict[str, Any]:
    """Return what the samples say, in a Report's fields.

    Args:
        cfg: The run's config: its factors, resamples and seed.
        grid: The samples by what their combination is called, see `called`.
    """
    factors: dict[str, list[Any]] = conf.plain(cfg.factors)
    scores = np.array([[each.score for each in grid[called(cell)]] for cell in cells(cfg)], dtype=float)
    shaped = scores.reshape(*(len(values) for values in factors.values()), -1)
    rows = split(shaped, list(factors), cfg.resamples, cfg.seed)
    figures = [{"combination": called(cell), **score_of(grid[called(cell)])} for cell in cells(cfg)]
    worst = max(rows, key=lambda row: float(row["flipped"]))
    verdict = (
        f"{worst['factor']} flips the most items, {100 * worst['flipped']:.1f} % of {scores.shape[-1]}."
        if worst["flipped"]
        else f"No factor flips any of {scores.shape[-1]} items."
    )
    return {
        "tables": [factor_table(rows), score_table(figures)],
        "verdict": verdict,
        "results": {"factors": rows, "combinations": figures},
        "summary": {f"{row['factor']}/{key}": row[key] for row in rows for key in ("flipped", "explained")},
    }


def factor_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return a table with a row for each factor."""

    def percent(row: Mapping[str, Any], key: str) -> str | None:
        if row[key] is None:
            return None
        return f"{100 * row[key]:.1f} % ({100 * row[f'{key}_low']:.1f} … {100 * row[f'{key}_high']:.1f})"

    body: list[list[Cell]] = [
        [row["factor"], row["levels"], percent(row, "flipped"), percent(row, "explained")] for row in rows
    ]
    note = (
        "Flipped: items whose score differs between two of the factor's values, all else being equal. Explained: the "
        "factor's share of the variance of the combinations' scores; empty where those are all equal. 95 % intervals."
    )
    return Table("Variance by factor", ["factor", "values", "items flipped", "variance explained"], body, note)


def score_table(figures: Sequence[Mapping[str, Any]]) -> Table:
    """Return a table with a row for each combination."""
    body: list[list[Cell]] = [
        [each["combination"], f"{100 * each['score']:.1f}", f"{100 * each['ci_low']:.1f} … {100 * each['ci_high']:.1f}"]
        for each in figures
    ]
    return Table("Scores", ["combination", "score", "95 % interval"], body)


def recompute(saved: Saved) -> dict[str, Any]:
    """Return what must stand in the results of a run that left these samples; see `dlmlab.verify`."""
    [task] = {sample.task for sample in saved.samples}
    return report_fields(saved.cfg, {called(cell): saved.of(task, called(cell)) for cell in cells(saved.cfg)})
