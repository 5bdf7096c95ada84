"""How good is one decoder at one task? A score with its interval, what went wrong, and what it cost."""

from __future__ import annotations

from omegaconf import DictConfig

from dlmlab import build
from dlmlab.batch import Batch
from dlmlab.denoise import Tick
from dlmlab.evaluate import SampleFile, evaluate
from dlmlab.manifest import manifest
from dlmlab.memo import switch, use
from dlmlab.samples import cost_of, count_tokens, evaluation_tables, score_of, verdict
from dlmlab.tracking import Report


def run(cfg: DictConfig) -> tuple[float | None, float]:
    """Decode every item of `task`, of the model's HumanEval unless one is chosen, with `decoder`, and score it.

    Returns the score and the forward passes an item, which a search may weigh against each other.
    """
    task = build.task(cfg, cfg.task.get("name") or cfg.model.tasks.humaneval)
    generation = build.generation(cfg, task)
    rule = build.decoder(cfg)
    traces = build.traces(cfg)
    model = build.model(cfg)
    batch = Batch(cfg.batch_size)
    made = manifest(cfg, model, [task]) | {"batch": batch.log}
    file, ticks = SampleFile(build.folder()), list[Tick]()
    samples = evaluate(
        model, task, rule, generation, decoder="candidate", batch_size=batch, seed=cfg.seed,
        memo=build.memo(cfg, model, generation), traces=traces, on_sample=file.add, on_step=ticks.append,
    )  # fmt: skip
    file.finish()
    traces.finish()
    figures = score_of(samples) | cost_of(samples, count_tokens(model, samples))
    forwards = {"asked": sum(tick.rows for tick in ticks), "computed": sum(tick.computed for tick in ticks)}
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
        tables=evaluation_tables(figures, samples),
        verdict=verdict(figures),
        results={**figures, "forwards": forwards},
        summary=figures,
    )
    build.publish(cfg, "evaluate", made, report)
    return figures["score"], figures["forwards per item"]
