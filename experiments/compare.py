"""Which decoder wins, on what, by how much? Decoders at their defaults, on the same items of one model.

    python run.py experiment=compare 'decoders=[localleap,threshold]' 'tasks=[tiny_open]'

Every decoder is compared, item by item, with a baseline that has `baseline_steps`. Rates are timed apart from the
scores, in turns and with every canvas computed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from omegaconf import DictConfig

from dlmlab import build
from dlmlab.batch import Batch
from dlmlab.errors import UserError
from dlmlab.evaluate import Sample, SampleFile, evaluate, evaluate_all
from dlmlab.generation import encode
from dlmlab.manifest import manifest
from dlmlab.picture import quality_against_forwards, save
from dlmlab.samples import cost_of, count_tokens, score_of
from dlmlab.stats import compare_right
from dlmlab.task.base import Task
from dlmlab.timing import spread, take_turns, time_decode
from dlmlab.tracking import Cell, Report, Table
from dlmlab.types import Generation, Request, Rule, check_number, check_positive_int


def run(cfg: DictConfig) -> None:
    """Decode and score every task with every decoder."""
    check(cfg)
    tasks = scored_tasks(cfg)
    settings = {task.name: build.generation(cfg, task) for task in tasks}
    references = {name: replace(own, steps=min(own.gen_length, cfg.baseline_steps)) for name, own in settings.items()}
    chosen = build.labels()["decoder"]  # its parameters may have been changed on the command line
    rules = {name: build.decoder(cfg, None if name == chosen else name) for name in cfg.decoders}
    baseline = build.decoder(cfg, "baseline")
    model = build.model(cfg)
    batch = Batch(cfg.batch_size)
    made = manifest(cfg, model, tasks) | {"batch": batch.log}
    file = SampleFile(build.folder())

    points: list[dict[str, Any]] = []
    pictures = []
    for task in tasks:
        own, slow = settings[task.name], references[task.name]
        how = {"batch_size": batch, "seed": cfg.seed, "on_sample": file.add}
        reference = evaluate(
            model,
            task,
            baseline,
            slow,
            decoder=f"baseline, {slow.steps} steps",
            memo=build.memo(cfg, model, slow),
            **how,
        )
        samples = evaluate_all(model, task, rules, own, memo=build.memo(cfg, model, own), **how)
        jobs = {reference[0].decoder: (baseline, slow)} | {name: (rule, own) for name, rule in rules.items()}
        rates = time_all(cfg, model, task, jobs, batch.size)
        found = [
            point(model, name, each, reference, cfg.margin, rates.get(name))
            for name, each in {reference[0].decoder: reference, **samples}.items()
        ]
        points += found
        pictures.append(save(quality_against_forwards(found), build.folder() / f"{task.name}.png"))
    file.finish()

    report = Report(
        title=f"Decoders compared — {cfg.model.path}",
        question=f"Which of {len(rules)} decoders wins, on what, by how much?",
        settings={name: f"steps {own.steps}, gen_length {own.gen_length}, block_length {own.block_length}"
                  for name, own in settings.items()} | {"batch_size": str(batch)},
        tables=[comparison_table(task.name, points) for task in tasks],
        results={"points": points},
        summary={f"{each['task']}/{each['name']}": each["score"] for each in points},
        pictures=pictures,
    )  # fmt: skip
    build.publish(cfg, "compare", made, report)


def check(cfg: DictConfig) -> None:
    """Raise UserError for settings that are wrong before anything is loaded."""
    check_positive_int("baseline_steps", cfg.baseline_steps)
    check_number("margin", cfg.margin, low=0, high=1)
    check_number("timed_items", cfg.timed_items, low=0)
    check_positive_int("timed_rounds", cfg.timed_rounds)
    if not cfg.decoders:
        raise UserError("decoders is empty: name some of conf/decoder/, such as decoders=[localleap,threshold]")


def scored_tasks(cfg: DictConfig) -> list[Task]:
    """The tasks that are named, or those of the model whose answers have a score."""
    tasks = [build.task(cfg, name) for name in cfg.tasks or cfg.model.tasks.values()]
    without = [task for task in tasks if task.score(task.items()[0], "") is None]
    if cfg.tasks and without:
        raise UserError(f"tasks has {without[0].name!r}, whose answers have no score of their own: leave it out")
    return [task for task in tasks if task not in without]


def time_all(
    cfg: DictConfig, model: Any, task: Task, jobs: Mapping[str, tuple[Rule, Generation]], batch_size: int
) -> dict[str, dict[str, float]]:
    """Canvas tokens per second of each decoder, in turns, after a warm-up."""
    items = task.items()[: cfg.timed_items]
    if not items:
        return {}

    def requests(rule: Rule, generation: Generation) -> list[Request]:
        return [
            Request(place, encode(model, item.prompt, generation.gen_length, item.id), rule)
            for place, item in enumerate(items)
        ]

    timed = {
        name: partial(time_decode, model, requests(rule, generation), generation, batch_size)
        for name, (rule, generation) in jobs.items()
    }
    take_turns(timed, 1)
    timings = take_turns(timed, cfg.timed_rounds)
    return {name: spread(t.ledger.canvas / t.seconds for t in each)._asdict() for name, each in timings.items()}


def point(
    model: Any,
    name: str,
    samples: Sequence[Sample],
    reference: Sequence[Sample],
    margin: float,
    rate: Mapping[str, float] | None,
) -> dict[str, Any]:
    """All that is known of a decoder at a task."""
    theirs, own = ([sample.score == 1 for sample in each] for each in (reference, samples))
    cost = cost_of(samples, count_tokens(model, samples))
    return {
        "name": name,
        "task": samples[0].task,
        "role": "baseline" if samples is reference else "",
        **score_of(samples),
        "forwards": cost["forwards per item"],
        "tokens_per_forward": cost["canvas tokens per forward"],
        "tokens_per_second": rate,
        "against_baseline": asdict(compare_right(theirs, own, margin)),
    }


def comparison_table(task: str, points: Sequence[Mapping[str, Any]]) -> Table:
    """A decoder a row; the baseline that they are compared with comes first."""
    rows: list[list[Cell]] = []
    for each in points:
        if each["task"] != task:
            continue
        against, rate = each["against_baseline"], each["tokens_per_second"]
        rows.append(
            [
                each["name"],
                f"{100 * each['score']:.1f}",
                f"{100 * each['ci_low']:.1f} … {100 * each['ci_high']:.1f}",
                f"{each['forwards']:.2f}",
                f"{each['tokens_per_forward']:.2f}",
                f"{rate['median']:.0f}" if rate else None,
                f"{100 * against['difference']:+.1f}" if each["role"] == "" else None,
                against["verdict"] if each["role"] == "" else None,
            ]
        )
    columns = [
        "decoder",
        "score",
        "95 % interval",
        "forwards",
        "tokens per forward",
        "tokens/s",
        "difference",
        "verdict",
    ]
    n = next(each["n"] for each in points if each["task"] == task)
    note = f"Scores in points of 100, {n} items; canvas tokens; difference and verdict against the first row."
    return Table(task, columns, rows, note)
