"""How good is one decoder at one task? A score with its interval, what went wrong, and what it cost.

A multiple choice of lm-eval's, which no decoder answers, is done as `experiment=likelihood` does it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from omegaconf import DictConfig

from dlmlab.measure import audit
from dlmlab.measure.audit import Audited
from dlmlab.memo import use
from dlmlab.picture.audit import draw
from dlmlab.policy import Policy
from dlmlab.record.folder import LIKELIHOODS
from dlmlab.record.samples import Sample
from dlmlab.rule import Rule
from dlmlab.run import build
from dlmlab.run.begin import begin
from dlmlab.run.check import check_fit
from dlmlab.run.kinds import SPREAD, TRACED, gathered
from dlmlab.run.resume import OBJECTIVES
from dlmlab.run.samples import (
    Evaluated,
    all_items,
    beats_empty,
    cost_of,
    count_tokens,
    evaluated,
    evaluation_tables,
    score_of,
    share,
    verdict,
)
from dlmlab.settings import PositiveInt, switch
from dlmlab.task.base import Task
from dlmlab.task.lm_eval import LmEval
from dlmlab.tracking import Report
from dlmlab.types import Generation
from experiments import likelihood
from experiments.likelihood import KINDS as BY_LIKELIHOOD

if TYPE_CHECKING:
    from dlmlab.run.rescore import Saved

KINDS: Mapping[str, Any] = {**TRACED, **SPREAD, **BY_LIKELIHOOD, "cache_audit": PositiveInt | None}


class Parts(NamedTuple):
    """What is decoded, by which rule and with which cache, and how its canvases are filled."""

    rule: Rule
    cache: Policy
    task: Task
    generation: Generation


def check(cfg: DictConfig) -> Parts | likelihood.Parts:
    """Return the decoder and the task: the one that is chosen, else the model's HumanEval.

    Raises:
        UserError: One of them can't be had, or the task doesn't fit the model.
    """
    with gathered() as errors:
        with errors:
            rule = build.decoder(cfg)
            cache = build.cache(cfg, [rule])
            if cfg.cache_audit is not None and not cache.keeps:
                errors.append(f"cache_audit={cfg.cache_audit} has no cache to look at: choose one, or leave it out")
            if cfg.cache_audit is not None and cfg.gpus is not None:
                errors.append(f"cache_audit={cfg.cache_audit} looks at one process's passes: leave gpus={cfg.gpus} out")
        with errors:
            task = build.task(cfg, cfg.task.get("name") or build.role(cfg, "humaneval"), answered_by=None)
            if isinstance(task, LmEval) and task.way == "likelihood":
                return likelihood.Parts(task)
            generation = build.generation(cfg, task)
            check_fit(cfg, task, generation)
    return Parts(rule, cache, task, generation)


def run(cfg: DictConfig, parts: Parts | likelihood.Parts) -> tuple[float | None, ...] | None:
    """Decode every item of the task and score it.

    Args:
        cfg: The run's config.
        parts: What `check` returned; of a multiple choice by likelihood, the task alone.

    Returns:
        The score and the forward passes an item, which a search may weigh against each other; None by likelihood.
    """
    if isinstance(parts, likelihood.Parts):
        likelihood.run(cfg, parts)
        return None
    rule, cache, task, generation = parts
    with begin(cfg, [task]) as run:
        audited = run.model = Audited(run.model, cfg.cache_audit) if cfg.cache_audit else run.model
        [samples] = run.evaluate(task, {"candidate": rule}, generation, {"candidate": cache}).values()
        seen = audit.summary(audited.audits) if isinstance(audited, Audited) else {}
        decoder = build.described(rule, cache)
        of = Evaluated(task.name, build.model_name(cfg), decoder, all_items(task), beats_empty(task, samples))
        found = report_fields(run.model, samples, run.computed, of, seen)
        report = Report(
            title=f"Evaluation: {task.name}",
            question=f"How well does {decoder} do {task.name} with {of.model}?",
            settings={
                "task": of.task,
                "model": of.model,
                "decoder": of.decoder,
                "generation": str(generation),
                "items": share(len(samples), of.items),
                "batch_size": str(run.batch),
                "memo": use(switch("memo", cfg.memo), rule, generation, cache),
            },
            pictures=draw(run.folder, seen),
            **found,
        )
        run.publish(report)
    return tuple(found["summary"][name] for name in OBJECTIVES)


def report_fields(
    model: Any, samples: Sequence[Sample], computed: int | None, of: Evaluated, audited: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what the samples say, in a Report's fields.

    Args:
        model: What is known of it: the tokens that end an answer.
        samples: Samples of one decoder, scored.
        computed: Canvases that went through the model; None where it is not known, as after a resume.
        of: What the samples are of.
        audited: What an audit of the cache has found (`dlmlab.measure.audit`); empty where there was none.
    """
    figures = score_of(samples) | cost_of(samples, count_tokens(model, samples))
    forwards = {"asked": sum(sample.forwards for sample in samples), "computed": computed}
    return {
        "tables": [*evaluation_tables(figures, samples, of), *audit.tables(audited)],
        "verdict": verdict(figures, of),
        "results": {
            **figures,
            "forwards": forwards,
            "of_items": of.items,
            "beats_empty": of.beats_empty,
            **({"cache_audit": audited} if audited else {}),
        },
        "summary": figures,
    }


def recompute(saved: Saved) -> dict[str, Any]:
    """Return what must stand in the results of a run that left these samples; see `dlmlab.verify`."""
    if (saved.folder / LIKELIHOODS).exists():
        return likelihood.recompute(saved)
    results = saved.results
    seen = results.get("cache_audit", {})
    return report_fields(saved.model, saved.samples, results["forwards"]["computed"], evaluated(results), seen)
