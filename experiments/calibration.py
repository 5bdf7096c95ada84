"""Which setting of a decoder is the fastest that keeps the baseline's quality?

All settings and the baseline are decoded as one pool, in which the same canvas is computed once. A setting is chosen
in two steps, on different items, since the best of many looks better than it is: those that lose no more than the
margin on the first part of the items are shortlisted, the fastest first; non-inferiority of these is tested on the
rest, with Holm's correction for their number. The fastest that passes is recommended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import numpy as np
from omegaconf import DictConfig, OmegaConf

from dlmlab.generation import encode
from dlmlab.measure.selection import ALPHA, Choice, Trial, choose, halves
from dlmlab.measure.stats import compare_right, proportion_interval
from dlmlab.measure.timing import spread, take_turns, time_decode
from dlmlab.memo import use
from dlmlab.picture.plots import draw
from dlmlab.policy import Policy
from dlmlab.record.files import write_text
from dlmlab.record.samples import Sample
from dlmlab.rule import Rule
from dlmlab.run import build, shown
from dlmlab.run.begin import Run, begin
from dlmlab.run.check import check_fit
from dlmlab.run.evaluate import evaluate
from dlmlab.run.grid import BASELINE, SYMBOLS, Setting, grid
from dlmlab.run.kinds import gathered
from dlmlab.run.samples import detail_tables
from dlmlab.settings import Fraction, Limits, NonNegativeInt, PositiveInt, fits, switch
from dlmlab.task.base import Task
from dlmlab.task.once import ScoredOnce
from dlmlab.tracking import Cell, Report, Table
from dlmlab.types import Generation, Request

if TYPE_CHECKING:
    from dlmlab.run.rescore import Saved

PATCH = "localleap.yaml"
NOTHING_RIGHT = (
    " No setting has anything right, so that none can be told from another: choose a task that the model can do."
)
KINDS: Mapping[str, Any] = {
    "calibration.margin": Fraction,
    "calibration.split": Annotated[float, Limits(0.1, 0.9)],
    "calibration.shortlist": PositiveInt,
    "calibration.timed_items": NonNegativeInt,
    "calibration.timed_rounds": PositiveInt,
}


class Parts(NamedTuple):
    """What is calibrated.

    Attributes:
        settings: The grid.
        task: The task.
        generation: How its canvases are filled.
        baseline: The rule that settings are held against.
        cache: That of all but the baseline.
    """

    settings: list[Setting]
    task: Task
    generation: Generation
    baseline: Rule
    cache: Policy


def check(cfg: DictConfig) -> Parts:
    """Return the grid and the task: the one that is asked for, else the model's functions.

    Raises:
        UserError: The decoder won't take the grid, or the task does not go with it or the model.
    """
    with gathered() as errors:
        with errors:
            settings, baseline = grid(cfg), build.decoder(cfg, BASELINE)
            cache = build.cache(cfg, [setting.rule for setting in settings])
        if cfg.generation.temperature:
            errors.append(
                f"generation.temperature={cfg.generation.temperature}: forward passes can be shared at 0 only"
            )
        with errors:
            task = build.task(cfg, cfg.task.get("name") or build.role(cfg, "humaneval"))
            generation = build.generation(cfg, task)
            check_fit(cfg, task, generation)
            if fits(cfg.calibration.split, KINDS["calibration.split"]):
                halves(len(task.items()), cfg.calibration.split, cfg.seed)
    return Parts(settings, task, generation, baseline, cache)


def run(cfg: DictConfig, parts: Parts) -> None:
    """Decode the grid, judge every setting, choose one.

    Args:
        cfg: The run's config.
        parts: What `check` returned.
    """
    settings, task, generation, baseline, cache = parts
    rules = {BASELINE: baseline} | {setting.name: setting.rule for setting in settings}
    with begin(cfg, [task]) as run:
        how = run.decoding(generation)
        caches = {setting.name: cache for setting in settings}
        how = replace(how, memo=how.memo or {}, caches=caches)  # the settings' passes are much the same
        samples = evaluate(run.model, ScoredOnce(task), rules, generation, how)
        choice, points = judge(cfg, settings, samples)
        speed = time_chosen(run, parts, rules, choice.chosen)
        if choice.chosen:
            write_patch(run, task, next(point for point in points if point["role"] == "chosen"))
        report = Report(
            title=f"{type(settings[0].rule).__name__} calibration sweep — {build.model_name(cfg)}",
            question=f"Which of {len(settings)} settings is the fastest that keeps the baseline's quality in "
            f"{task.name}?",
            settings={
                "steps": generation.steps,
                "gen_length": generation.gen_length,
                "block_length": generation.block_length,
                "items": f"{len(samples[BASELINE])} of {task.name}",
                "decoder": str(settings[0].rule),
                "cache": str(cache),
                "batch_size": str(run.batch),
                "memo": use(switch("memo", cfg.memo), settings[0].rule, generation, cache),
            },
            pictures=draw(run.folder, points),
            **report_fields(cfg, settings, samples, run.computed, speed),
        )
        run.publish(report)


def judge(
    cfg: DictConfig, settings: Sequence[Setting], samples: Mapping[str, Sequence[Sample]]
) -> tuple[Choice, list[dict[str, Any]]]:
    """Return the setting that is chosen, and all that is known of each, the baseline first.

    Args:
        cfg: The run's config.
        settings: The grid's settings.
        samples: Samples of the same items, by setting's name, the baseline's among them.
    """
    own = cfg.calibration
    first, second = halves(len(samples[BASELINE]), own.split, cfg.seed)
    trials = {name: trial(each, samples[BASELINE]) for name, each in samples.items()}
    different = {setting.name: trials[setting.name] for setting in settings if not setting.repeated}
    choice = choose(trials[BASELINE], different, first, second, own.margin, own.shortlist)
    values: dict[str, Mapping[str, Any]] = {BASELINE: {}} | {setting.name: setting.values for setting in settings}
    points = [point(name, each, trials, own.margin, choice) for name, each in values.items()]
    for each in points:
        each["forwards"] = float(np.mean([sample.forwards for sample in samples[each["name"]]]))
    return choice, points


def report_fields(
    cfg: DictConfig,
    settings: Sequence[Setting],
    samples: Mapping[str, Sequence[Sample]],
    computed: int | None,
    speed: Mapping[str, Mapping[str, float]],
) -> dict[str, Any]:
    """Return what the samples say, in a Report's fields.

    Args:
        cfg: The run's config.
        settings: The grid's settings.
        samples: Samples of the same items, by setting's name, the baseline's among them.
        computed: Canvases that went through the model; None where it is not known, as after a resume.
        speed: What `time_chosen` returned.
    """
    choice, points = judge(cfg, settings, samples)
    usual = samples[BASELINE]
    first, second = halves(len(usual), cfg.calibration.split, cfg.seed)
    different = sum(not setting.repeated for setting in settings)
    forwards = {"asked": sum(each.forwards for own in samples.values() for each in own), "computed": computed}
    return {
        "tables": [
            calibration_table(usual[0].task, settings, points, len(usual[0].tokens)),
            choice_table(choice, points, different, cfg.calibration.margin, len(first), len(second)),
            forwards_table(forwards),
            *([speed_table(speed)] if speed else []),
            *detail_tables({BASELINE: usual}),
        ],
        "verdict": recommendation(choice) + ("" if any(each["score"] for each in points) else NOTHING_RIGHT),
        "results": {
            "forwards": forwards,
            "points": points,
            "chosen": choice.chosen,
            "confirmed": choice.confirmed,
            "items_needed": choice.items_needed,
            "canvas_tokens_per_second": speed,
        },
        "summary": {
            "chosen": choice.chosen,
            "items": len(usual),
            "forwards asked": forwards["asked"],
            "forwards computed": forwards["computed"],
        },
    }


def recompute(saved: Saved) -> dict[str, Any]:
    """Return what must stand in the results of a run that left these samples (`dlmlab.verify`).

    Speeds are taken as they were recorded.
    """
    settings, task = grid(saved.cfg), saved.samples[0].task
    samples = {name: saved.of(task, name) for name in (BASELINE, *(setting.name for setting in settings))}
    computed, speed = saved.results["forwards"]["computed"], saved.results["canvas_tokens_per_second"]
    return report_fields(saved.cfg, settings, samples, computed, speed)


def trial(samples: Sequence[Sample], baseline: Sequence[Sample]) -> Trial:
    """Return a setting's answers; for a task without scores, those are right that are the baseline's.

    Args:
        samples: The setting's samples.
        baseline: The baseline's, of the same items in the same order.
    """
    right = [
        sample.score == 1 if sample.score is not None else sample.text == other.text
        for sample, other in zip(samples, baseline, strict=True)
    ]
    cost = [sample.full_passes or sample.forwards for sample in samples]  # older samples don't tell the former
    return Trial(np.array(right), np.array(cost))


def point(
    name: str, values: Mapping[str, Any], trials: Mapping[str, Trial], margin: float, choice: Choice
) -> dict[str, Any]:
    """Return all that is known of a setting.

    Args:
        name: The setting's name.
        values: Its parameters; empty for the baseline.
        trials: The answers by setting's name, the baseline's among them.
        margin: The largest loss that counts as none, as a fraction.
        choice: What the answers support.
    """
    own, baseline = trials[name], trials[BASELINE]
    low, high = proportion_interval(int(own.right.sum()), len(own.right))
    return {
        "name": name,
        "role": BASELINE if name == BASELINE else "chosen" if name == choice.chosen else "",
        **values,
        "score": float(own.right.mean()),
        "ci_low": low,
        "ci_high": high,
        "full_passes": float(own.cost.mean()),
        "speedup": float(baseline.cost.sum() / own.cost.sum()),
        "against_baseline": asdict(compare_right(baseline.right.tolist(), own.right.tolist(), margin)),
    }


def calibration_table(
    task: str, settings: Sequence[Setting], points: Sequence[Mapping[str, Any]], gen_length: int
) -> Table:
    """Return the performance log's columns first, then what it lacks.

    Args:
        task: The task's name.
        settings: The grid's settings.
        points: What is known of the baseline, then of each setting in the same order.
        gen_length: Positions of a canvas.
    """
    baseline, *others = points
    score = "pass@1" if "humaneval" in task else "score"
    keys = list(settings[0].values)
    rows: list[list[Cell]] = []
    for setting, each in zip(settings, others, strict=True):
        against = each["against_baseline"]
        rows.append(
            [
                *map(two_decimals, setting.values.values()),
                f"{each['score']:.3f}",
                lost(each),
                against["point_pass"],
                f"{-against['ci_high']:+.3f} … {-against['ci_low']:+.3f}",
                against["verdict"],
                f"{each['forwards']:.2f}",
                f"{each['full_passes']:.2f}",
                f"{gen_length / each['forwards']:.2f}",
                f"{each['speedup']:.2f}×",
                setting.same_as,
                each["role"],
            ]
        )
    columns = [*(SYMBOLS.get(key, key) for key in keys), score, "diff", "gate", "95 % of diff", "verdict"]
    columns += [
        "forwards",
        "full-pass equivalents",
        "tokens per forward",
        "speedup in full passes",
        "same rule as",
        "choice",
    ]
    note = (
        f"Baseline {score} = {baseline['score']:.3f} at {baseline['forwards']:.2f} forwards an item. This table alone "
        "is the performance log's: fractions of 1, and diff is what a setting loses, so that + is a loss; elsewhere "
        "are points of 100, and + is a gain. Interval and verdict are for each setting by itself, not corrected for "
        "their number."
    )
    return Table("Settings", columns, rows, note)


def two_decimals(value: Any) -> str:
    """Return a parameter, with the performance log's two decimals where they say it all."""
    short = f"{value:.2f}" if isinstance(value, float) else str(value)
    return short if isinstance(value, float) and float(short) == value else str(value)


def choice_table(
    choice: Choice, points: Sequence[Mapping[str, Any]], rules: int, margin: float, first: int, second: int
) -> Table:
    """Return the shortlist and what became of it.

    Args:
        choice: What the answers support.
        points: What is known of the baseline and of each setting.
        rules: How many settings are different rules.
        margin: The largest loss that counts as none, as a fraction.
        first: The number of items that settings were shortlisted on.
        second: The number of items that confirm.
    """
    gain = {each["name"]: shown.points(each["against_baseline"]["difference"], "+") for each in points}
    rows: list[list[Cell]] = [
        [name, gain[name], f"{p:.4f}", p <= ALPHA, name == choice.chosen] for name, p in choice.confirmed.items()
    ]
    how = (
        f"Of {rules} different rules, these are the fastest that lose no more than {100 * margin:g} points of 100 on "
        f"{first} items drawn at random and have more right than any faster one; the p values are of non-inferiority "
        f"on the other {second}, with Holm's correction for the shortlist, and pass up to {ALPHA:.3f}. Difference: of "
        "all items, in points of 100; + is a gain."
    )
    return Table("Choice", ["setting", "difference", "p", "confirmed", "recommended"], rows, how)


def recommendation(choice: Choice) -> str:
    """Return the setting to take, or why there is none and what would help."""
    if choice.chosen:
        return f"Recommended: {choice.chosen}."
    if not choice.confirmed:
        return "None is recommended: no setting is both faster than the baseline and within the margin."
    if choice.items_needed:
        return (
            f"None is recommended: that would take about {choice.items_needed} items if the rates stayed as they are."
        )
    return "None is recommended: all lose the margin or more on the items that confirm."


def lost(point: Mapping[str, Any]) -> str:
    """Return what a setting loses, as the performance log writes it."""
    return f"{0.0 - point['against_baseline']['difference']:+.3f}"


def forwards_table(forwards: Mapping[str, int | None]) -> Table:
    """Return a table of what sharing saved."""
    asked, computed = forwards["asked"], forwards["computed"]
    share = f"{computed / asked:.3f}" if computed is not None and asked else None
    return Table("Forward passes", ["asked for", "computed", "computed / asked for"], [[asked, computed, share]])


def time_chosen(run: Run, parts: Parts, rules: Mapping[str, Rule], chosen: str | None) -> dict[str, dict[str, float]]:
    """Measure canvas tokens per second of the baseline and the chosen setting, in turns, every canvas computed.

    Args:
        run: The run; its config says on how many items and in how many rounds, and its files keep the timings.
        parts: What `check` returned.
        rules: The decoders by setting's name, the baseline's among them.
        chosen: The chosen setting's name; None times the baseline alone.

    Returns:
        By name, the spread over the rounds; empty where no item is timed.
    """
    own, generation, model = run.cfg.calibration, parts.generation, run.model
    items = parts.task.items()[: own.timed_items]
    if not items:
        return {}
    prompts = [encode(model, item.prompt, generation.gen_length, item.id) for item in items]

    def job(name: str) -> Any:
        cache = None if name == BASELINE else parts.cache
        requests = [Request(place, prompt, rules[name], cache=cache) for place, prompt in enumerate(prompts)]
        time_decode(model, requests[:1], generation, run.batch.size, run.cfg.seed)
        return time_decode(model, requests, generation, run.batch.size, run.cfg.seed)

    names = [BASELINE, *([chosen] if chosen else [])]
    jobs = {name: partial(job, name) for name in names}
    timings = take_turns(jobs, own.timed_rounds, keep=run.timings.keep)
    return {name: spread(t.ledger.canvas / t.seconds for t in each)._asdict() for name, each in timings.items()}


def speed_table(speed: Mapping[str, Mapping[str, float]]) -> Table:
    """Tokens per second, timed apart."""
    rows: list[list[Cell]] = [[name, *(f"{each[key]:.1f}" for key in each)] for name, each in speed.items()]
    note = "Timed in turns on a few items, unshared and without the memo."
    return Table("Canvas tokens per second", ["setting", "median", "least", "most"], rows, note)


def write_patch(run: Run, task: Task, chosen: Mapping[str, Any]) -> None:
    """Write what to put into the model's config, with where it came from.

    Nothing is written for a decoder that doesn't take its values from there, or where the grid lacks some of them.

    Args:
        run: The run, into whose folder it goes.
        task: The task that it was calibrated on.
        chosen: What is known of the chosen setting, see `point`.
    """
    cfg, manifest = run.cfg, run.manifest
    taken = [key for key in SYMBOLS if OmegaConf.is_interpolation(cfg.decoder, key)]
    if not set(taken) <= chosen.keys() or not taken:
        return
    date, commit = manifest["started"].partition("T")[0], (manifest["git"] or {}).get("commit", "unknown")
    lines = [
        f"# Calibrated on {date}: {chosen['against_baseline']['n']} items of {task.name}, version {task.version};",
        f"# {shown.points(chosen['against_baseline']['difference'], '+')} points of 100 from a baseline of "
        f"{shown.points(chosen['against_baseline']['baseline'])}, + is a gain;",
        f"# {chosen['speedup']:.2f} × fewer forward passes;",
        f"# run {run.folder.name}, commit {commit[:12]}, weights {manifest['model']['fingerprint'][:16]}",
        "localleap:",
        f"  checkpoint: {cfg.model.path}",
        *(f"  {key}: {chosen[key]}" for key in taken),
    ]
    write_text(run.folder / PATCH, "\n".join(lines) + "\n")
