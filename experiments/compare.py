"""Which decoder wins, on what, by how much? Decoders at their defaults, on the same items of one model.

    python run.py experiment=compare 'decoders=[localleap,threshold]' 'tasks=[tiny_open]'

Every decoder runs at its authors' setting, where its config names one (`published`), and is compared, item by item,
with a baseline that has `baseline_steps`. Rates are timed apart from the scores, in turns and with every canvas
computed. A decoder's AUP (`dlmlab.measure.aup`) is that of the curve from the baseline to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from omegaconf import DictConfig

from dlmlab import settings as kinds
from dlmlab.errors import UserError
from dlmlab.generation import encode
from dlmlab.measure.aup import aup
from dlmlab.measure.stats import compare_right
from dlmlab.measure.timing import spread, take_turns, time_decode
from dlmlab.picture.plots import draw
from dlmlab.policy import Policy
from dlmlab.record.samples import Sample
from dlmlab.rule import Rule
from dlmlab.run import build, conf, protocol
from dlmlab.run.begin import Run, begin
from dlmlab.run.check import check_fit, decoders
from dlmlab.run.comparison import answer, beside_published, comparison_table, published_table, summary_of, token_table
from dlmlab.run.conf import plain
from dlmlab.run.kinds import SPREAD, TRACED, gathered
from dlmlab.run.protocol import Protocol
from dlmlab.run.samples import cost_of, count_tokens, score_of, scorings_of
from dlmlab.settings import Fraction, NonNegativeInt, PositiveInt, fits, list_of, one_of
from dlmlab.task.base import Task
from dlmlab.tracking import Report
from dlmlab.types import Generation, Request

KINDS: Mapping[str, Any] = {
    **TRACED,
    **SPREAD,
    "decoders": list_of(str),
    "caches": list_of(str) | None,
    "tasks": list_of(str) | None,
    "baseline_steps": PositiveInt,
    "margin": Fraction,
    "timed_items": NonNegativeInt,
    "timed_rounds": PositiveInt,
}

if TYPE_CHECKING:
    from dlmlab.run.rescore import Saved

UNTIMED = {"tokens_per_second": None, "speedup": None}


class Parts(NamedTuple):
    """What is compared.

    Attributes:
        tasks: The tasks.
        settings: How canvases are filled, by task.
        published: The same as each decoder's authors have it, by task and decoder.
        references: The same with the baseline's steps, by task.
        rules: The decoders by name, once more for each cache.
        baseline: The rule that they are held against.
        caches: By the names of decoders that have one.
    """

    tasks: list[Task]
    settings: dict[str, Generation]
    published: dict[str, dict[str, Generation]]
    references: dict[str, Generation]
    rules: dict[str, Rule]
    baseline: Rule
    caches: dict[str, Policy]


def check(cfg: DictConfig) -> Parts:
    """Return the decoders and the tasks.

    Raises:
        UserError: There are no such ones, or they don't go with the settings or the model.
    """
    rules = dict[str, Rule]()
    with gathered() as errors:
        with errors:
            rules, caches = with_caches(cfg, decoders(cfg, cfg.decoders))
            baseline = build.decoder(cfg, "baseline")
        tasks = list[Task]()
        settings, references = dict[str, Generation](), dict[str, Generation]()
        published = dict[str, dict[str, Generation]]()
        with errors:
            kinds.check("tasks", plain(cfg.tasks), list_of(one_of(conf.options("task"))) | None)
            tasks = scored_tasks(cfg)
        for task in tasks:
            with errors:
                own = settings[task.name] = build.generation(cfg, task)
                check_fit(cfg, task, own)
                published[task.name] = {name: build.as_published(cfg, name.partition(" + ")[0], own) for name in rules}
                if fits(cfg.baseline_steps, PositiveInt):
                    references[task.name] = slowly(own, own.gen_length if cfg.get("protocol") else cfg.baseline_steps)
    return Parts(tasks, settings, published, references, rules, baseline, caches)


def run(cfg: DictConfig, parts: Parts) -> None:
    """Decode and score every task with every decoder.

    Args:
        cfg: The run's config.
        parts: What `check` returned.
    """
    with begin(cfg, parts.tasks) as run:
        points: list[dict[str, Any]] = []
        for task in parts.tasks:
            own, slow = parts.published[task.name], parts.references[task.name]
            usual = f"baseline, {slow.steps} steps"
            jobs = {usual: (parts.baseline, slow)} | {name: (rule, own[name]) for name, rule in parts.rules.items()}
            ran_with = {name: setting(rule, generation) for name, (rule, generation) in jobs.items()}
            samples = decoded(run, task, jobs, parts.caches)
            speeds = time_all(run, task, jobs, parts.caches)
            points += points_of(run.model, samples, cfg.margin, speeds, ran_with, best_of(cfg, task.name))
        report = Report(
            title=f"Decoders compared — {build.model_name(cfg)}",
            question=f"Which of {len(parts.rules)} decoders wins, on what, by how much?",
            settings={name: f"steps {own.steps}, gen_length {own.gen_length}, block_length {own.block_length}"
                      for name, own in parts.settings.items()} | {"batch_size": str(run.batch)},
            pictures=draw(run.folder, points),
            **report_fields(points, protocol.of(cfg)),
        )  # fmt: skip
        run.publish(report)


def with_caches(cfg: DictConfig, rules: Mapping[str, Rule]) -> tuple[dict[str, Rule], dict[str, Policy]]:
    """Return every decoder with each of `caches`, and the cache of those that have one, by the name of the pair.

    Args:
        cfg: The run's config, whose chosen cache is taken where `caches` names none.
        rules: The decoders, by name.

    Raises:
        UserError: There is no such cache, or it doesn't go with a decoder.
    """
    kinds.check("caches", plain(cfg.caches), list_of(one_of(conf.options("cache"))) | None)
    pairs, caches = dict[str, Rule](), dict[str, Policy]()
    chosen = conf.labels()["cache"]
    for cache_name in cfg.caches or [chosen]:
        cache = build.cache(cfg, rules.values(), None if cache_name == chosen else cache_name)
        named = {build.with_cache(name, cache_name): rule for name, rule in rules.items()}
        pairs |= named
        caches |= dict.fromkeys(named, cache) if cache.keeps else {}
    return pairs, caches


def decoded(
    run: Run, task: Task, jobs: Mapping[str, tuple[Rule, Generation]], caches: Mapping[str, Policy]
) -> dict[str, list[Sample]]:
    """Return the task's samples by each decoder; decoders with the same settings go through the model together.

    Args:
        run: The run, into whose files the samples go.
        task: The task whose items are decoded.
        jobs: Each decoder and how it fills canvases, by name, the baseline first.
        caches: By the same names; a decoder that isn't there has none.
    """
    found = dict[str, list[Sample]]()
    for same in dict.fromkeys(generation for _, generation in jobs.values()):
        rules = {name: rule for name, (rule, generation) in jobs.items() if generation == same}
        found |= run.evaluate(task, rules, same, caches)
    return {name: found[name] for name in jobs}


def setting(rule: Rule, generation: Generation) -> str:
    """Return what a decoder ran with, in words: its schedule, if it has one, and the softmax's precision.

    Args:
        rule: The decoder.
        generation: How it filled canvases.
    """
    steps = f"{generation.steps} steps, " if rule.scheduled else ""
    return steps + generation.confidence_dtype


def report_fields(points: Sequence[Mapping[str, Any]], published: Protocol | None) -> dict[str, Any]:
    """Return what the points say, beside a protocol's published rows where there is one, in a Report's fields.

    Args:
        points: The points of all tasks, each task's baseline first; see `points_of`.
        published: The protocol that the run follows; None without one.
    """
    tasks = {task: [each for each in points if each["task"] == task] for task in (each["task"] for each in points)}
    beside = [] if published is None else beside_published(published, points)
    return {
        "tables": [
            comparison_table(points),
            token_table(points),
            *([published_table(published, beside)] if published else []),
        ],
        "verdict": " ".join(answer(task, own) for task, own in tasks.items()),
        "results": {"points": points, "published": beside},
        "summary": {key: value for task, own in tasks.items() for key, value in summary_of(task, own).items()},
    }


def recompute(saved: Saved) -> dict[str, Any]:
    """Return what must stand in the results of a run that left these samples (`dlmlab.verify`).

    Speeds are taken as they were recorded.
    """
    points: list[dict[str, Any]] = []
    for task in dict.fromkeys(each["task"] for each in saved.results["points"]):
        recorded = {each["name"]: each for each in saved.results["points"] if each["task"] == task}
        speeds = {name: {key: each[key] for key in UNTIMED} for name, each in recorded.items()}
        samples = {name: saved.of(task, name) for name in recorded}
        settings = {name: each["setting"] for name, each in recorded.items()}
        points += points_of(saved.model, samples, saved.cfg.margin, speeds, settings, best_of(saved.cfg, task))
    return report_fields(points, protocol.of(saved.cfg))


def slowly(own: Generation, steps: int) -> Generation:
    """Return the same canvas with the baseline's steps.

    Args:
        own: How the task's canvases are filled.
        steps: The steps that are wanted; the canvas's positions are the most that it can have.

    Raises:
        UserError: The canvas's blocks can't share them.
    """
    steps = min(own.gen_length, steps)
    if steps % own.blocks:
        raise UserError(f"baseline_steps={steps} is not divisible by the {own.blocks} blocks: choose a multiple")
    return replace(own, steps=steps)


def scored_tasks(cfg: DictConfig) -> list[Task]:
    """Return the tasks that are named, else the one that is chosen, else those of the model whose answers have a score.

    Raises:
        UserError: A named or chosen task's answers have no score, or there is no task.
    """
    named = cfg.tasks or ([cfg.task.name] if "_target_" in cfg.task else [])
    tasks = [build.task(cfg, name) for name in named or (cfg.model.get("tasks") or {}).values()]
    if not tasks:
        raise UserError("model.tasks has no task: choose some with 'tasks=[…]'")
    without = [task for task in tasks if task.score(task.items()[0], "") is None]
    if named and without:
        raise UserError(f"tasks has {without[0].name!r}, whose answers have no score of their own: leave it out")
    return [task for task in tasks if task not in without]


def time_all(
    run: Run, task: Task, jobs: Mapping[str, tuple[Rule, Generation]], caches: Mapping[str, Policy]
) -> dict[str, dict[str, Any]]:
    """Measure canvas tokens per second of each decoder, in turns, after a warm-up; the speedup is of runs of one round.

    Args:
        run: The run; its config says on how many items and in how many rounds, and its files keep the timings.
        task: The task whose first items are decoded.
        jobs: Each decoder and how it fills canvases, by name, the baseline first.
        caches: By the same names; a decoder that isn't there has none.

    Returns:
        By name, the spread over the rounds of `tokens_per_second` and of `speedup`; empty where no item is timed.
    """
    cfg, model = run.cfg, run.model
    items = task.items()[: cfg.timed_items]
    if not items:
        return {}

    def requests(name: str, rule: Rule, generation: Generation) -> list[Request]:
        return [
            Request(place, encode(model, item.prompt, generation.gen_length, item.id), rule, cache=caches.get(name))
            for place, item in enumerate(items)
        ]

    timed = {
        name: partial(time_decode, model, requests(name, rule, generation), generation, run.batch.size, cfg.seed)
        for name, (rule, generation) in jobs.items()
    }
    take_turns(timed, 1)
    keep = partial(run.timings.keep, part=task.name)
    rates = {
        name: [timing.ledger.canvas / timing.seconds for timing in each]
        for name, each in take_turns(timed, cfg.timed_rounds, keep=keep).items()
    }
    usual = next(iter(rates.values()))
    return {
        name: {
            "tokens_per_second": spread(each)._asdict(),
            "speedup": spread(own / its for own, its in zip(each, usual, strict=True))._asdict(),
        }
        for name, each in rates.items()
    }


def points_of(
    model: Any,
    samples: Mapping[str, Sequence[Sample]],
    margin: float,
    speeds: Mapping[str, Mapping[str, Any]],
    settings: Mapping[str, str],
    best: float | None = None,
) -> list[dict[str, Any]]:
    """Return a point for each of a task's decoders, of which the first is the baseline.

    Args:
        model: What is known of it: the tokens that end an answer.
        samples: Each decoder's samples of the same items, by name, the baseline first.
        margin: The largest loss that counts as none, as a fraction.
        speeds: What `time_all` returned; a decoder that isn't there was not timed.
        settings: What each decoder ran with, see `setting`.
        best: A protocol's best score in points of 100, for AUP; None is the best of the points.
    """
    reference = next(iter(samples.values()))
    points = [
        point(model, name, each, reference, margin, speeds.get(name, UNTIMED)) | {"setting": settings[name]}
        for name, each in samples.items()
    ]
    add_aup(points, best)
    return points


def point(
    model: Any,
    name: str,
    samples: Sequence[Sample],
    reference: Sequence[Sample],
    margin: float,
    speed: Mapping[str, Any],
) -> dict[str, Any]:
    """Return all that is known of a decoder at a task.

    Args:
        model: What is known of it: the tokens that end an answer.
        name: What the decoder is called.
        samples: Its samples.
        reference: The baseline's, of the same items in the same order; the very same sequence for the baseline itself.
        margin: The largest loss that counts as none, as a fraction.
        speed: Its `tokens_per_second` and `speedup`, None each where it was not timed.
    """
    theirs, own = ([sample.score == 1 for sample in each] for each in (reference, samples))
    tokens = count_tokens(model, samples)
    cost = cost_of(samples, tokens)
    return {
        "name": name,
        "task": samples[0].task,
        "role": "baseline" if samples is reference else "",
        **score_of(samples),
        "scorings": scorings_of(samples),
        "forwards": cost["forwards per item"],
        "positions": cost["positions per item"],
        "full_passes": cost["full-pass equivalents per item"],
        "tokens_per_forward": cost["canvas tokens per forward"],
        "counted": tokens,
        "passes": sum(sample.forwards for sample in samples),
        **speed,
        "speedup in forwards": sum(each.forwards for each in reference) / sum(each.forwards for each in samples),
        "against_baseline": asdict(compare_right(theirs, own, margin)),
    }


def best_of(cfg: DictConfig, task: str) -> float | None:
    """Return the best score that AUP weighs by, in points of 100, where the protocol has one for a task.

    Args:
        cfg: The run's config, which may follow a protocol.
        task: The task's name.
    """
    published = protocol.of(cfg)
    return published.y_max.get(task) if published else None


def add_aup(points: Sequence[dict[str, Any]], best: float | None = None) -> None:
    """Give the points of a task, the baseline first, the area under the curve from the baseline to each.

    Args:
        points: The points, each of which gets `aup`.
        best: The highest score in points of 100 that anything reached at the task; None is the best of the points.
    """
    best = 100 * max(each["score"] for each in points) if best is None else best
    start, *_ = pairs = [(each["tokens_per_forward"], 100 * each["score"]) for each in points]
    for each, pair in zip(points, pairs, strict=True):
        each["aup"] = aup({start, pair}, best) if best else 0.0
