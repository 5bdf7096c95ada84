"""How good is one decoder at one task? A score with its interval, what went wrong, and what it cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from dlmlab.denoise import StepTiming
from dlmlab.loop.batch import Batch
from dlmlab.memo import switch, use
from dlmlab.record.samples import Sample, SampleFile
from dlmlab.run import build
from dlmlab.run.check import TRACED, check_fit, gathered
from dlmlab.run.evaluate import evaluate
from dlmlab.run.resume import OBJECTIVES
from dlmlab.run.samples import computed_of, cost_of, count_tokens, evaluation_tables, score_of, verdict
from dlmlab.task.base import Task
from dlmlab.tracking import Report
from dlmlab.types import Generation

KINDS = TRACED

if TYPE_CHECKING:
    from dlmlab.verify import Saved


def run(cfg: DictConfig) -> tuple[float | None, ...]:
    """Decode every item of `task`, of the model's HumanEval unless one is chosen, with `decoder`, and score it.

    Returns the score and the forward passes an item, which a search may weigh against each other.
    """
    task, generation = chosen(cfg)
    rule = build.decoder(cfg)
    traces = build.traces(cfg)
    model = build.model(cfg)
    batch = Batch(cfg.batch_size)
    made = build.begin(cfg, model, [task]) | {"batch": batch.log}
    file, ticks = SampleFile(build.folder()), list[StepTiming]()
    samples = evaluate(
        model, task, rule, generation, decoder="candidate", batch_size=batch, seed=cfg.seed,
        memo=build.memo(cfg, model, generation), traces=traces, file=file, on_step=ticks.append,
    )  # fmt: skip
    file.finish()
    traces.finish()
    found = conclude(model, samples, computed_of(ticks, made))
    report = Report(
        title=f"Evaluation: {task.name}",
        question=f"How well does {rule} do {task.name} with {cfg.model.path}?",
        settings={
            "model": cfg.model.path,
            "decoder": str(rule),
            "generation": str(generation),
            "n": len(samples),
            "batch_size": str(batch),
            "memo": use(switch("memo", cfg.memo), rule, generation),
        },
        **found,
    )
    build.publish(cfg, "evaluate", made, report)
    return tuple(found["summary"][name] for name in OBJECTIVES)


def conclude(model: Any, samples: Sequence[Sample], computed: int | None) -> dict[str, Any]:
    """What the samples say, in a Report's fields. computed: canvases that went through the model, where it is known."""
    figures = score_of(samples) | cost_of(samples, count_tokens(model, samples))
    forwards = {"asked": sum(sample.forwards for sample in samples), "computed": computed}
    return {
        "tables": evaluation_tables(figures, samples),
        "verdict": verdict(figures),
        "results": {**figures, "forwards": forwards},
        "summary": figures,
    }


def follow(saved: Saved) -> dict[str, Any]:
    """What must stand in the results of a run that left these samples; see `dlmlab.verify`."""
    return conclude(saved.model, saved.samples, saved.results["forwards"]["computed"])


def check(cfg: DictConfig) -> None:
    """Raise UserError for a decoder or task that can't be had, and for a task that doesn't fit the model."""
    with gathered() as errors:
        with errors:
            build.decoder(cfg)
        with errors:
            check_fit(cfg, *chosen(cfg))


def chosen(cfg: DictConfig) -> tuple[Task, Generation]:
    """The task and how its canvases are filled."""
    task = build.task(cfg, cfg.task.get("name") or cfg.model.tasks.humaneval)
    return task, build.generation(cfg, task)
