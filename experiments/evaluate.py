"""How good is one decoder at one task? A score with its interval, what went wrong, and what it cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from omegaconf import DictConfig

from dlmlab.memo import switch, use
from dlmlab.policy import Policy
from dlmlab.record.samples import Sample
from dlmlab.rule import Rule
from dlmlab.run import build
from dlmlab.run.begin import begin
from dlmlab.run.check import TRACED, check_fit, gathered
from dlmlab.run.resume import OBJECTIVES
from dlmlab.run.samples import cost_of, count_tokens, evaluation_tables, score_of, verdict
from dlmlab.task.base import Task
from dlmlab.tracking import Report
from dlmlab.types import Generation

if TYPE_CHECKING:
    from dlmlab.run.rescore import Saved

KINDS: Mapping[str, Any] = TRACED


class Parts(NamedTuple):
    """What is decoded, by which rule and with which cache, and how its canvases are filled."""

    rule: Rule
    cache: Policy
    task: Task
    generation: Generation


def check(cfg: DictConfig) -> Parts:
    """Return the decoder and the task: the one that is chosen, else the model's HumanEval.

    Raises:
        UserError: one of them can't be had, or the task doesn't fit the model.
    """
    with gathered() as errors:
        with errors:
            rule = build.decoder(cfg)
            cache = build.cache(cfg, [rule])
        with errors:
            task = build.task(cfg, cfg.task.get("name") or build.role(cfg, "humaneval"))
            generation = build.generation(cfg, task)
            check_fit(cfg, task, generation)
    return Parts(rule, cache, task, generation)


def run(cfg: DictConfig, parts: Parts) -> tuple[float | None, ...]:
    """Decode every item of the task and score it.

    Returns:
        The score and the forward passes an item, which a search may weigh against each other.
    """
    rule, cache, task, generation = parts
    with begin(cfg, build.model(cfg), [task]) as run:
        [samples] = run.evaluate(task, {"candidate": rule}, generation, {"candidate": cache}).values()
        found = report_fields(run.model, samples, run.computed)
        report = Report(
            title=f"Evaluation: {task.name}",
            question=f"How well does {rule} do {task.name} with {build.model_name(cfg)}?",
            settings={
                "model": build.model_name(cfg),
                "decoder": str(rule),
                "cache": str(cache),
                "generation": str(generation),
                "n": len(samples),
                "batch_size": str(run.batch),
                "memo": use(switch("memo", cfg.memo), rule, generation, cache),
            },
            **found,
        )
        run.publish(report)
    return tuple(found["summary"][name] for name in OBJECTIVES)


def report_fields(model: Any, samples: Sequence[Sample], computed: int | None) -> dict[str, Any]:
    """Return what the samples say, in a Report's fields.

    Args:
        model: what is known of it: the tokens that end an answer.
        samples: of one decoder, scored.
        computed: canvases that went through the model, where it is known.
    """
    figures = score_of(samples) | cost_of(samples, count_tokens(model, samples))
    forwards = {"asked": sum(sample.forwards for sample in samples), "computed": computed}
    return {
        "tables": evaluation_tables(figures, samples),
        "verdict": verdict(figures),
        "results": {**figures, "forwards": forwards},
        "summary": figures,
    }


def recompute(saved: Saved) -> dict[str, Any]:
    """Return what must stand in the results of a run that left these samples; see `dlmlab.verify`."""
    return report_fields(saved.model, saved.samples, saved.results["forwards"]["computed"])
