"""Extract the results that runs hold: a row for each decoder at each task of a run, or for what was timed."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dlmlab.page.collect import Run

SYMBOLS = {"kappa": "κ", "tau": "τ", "radius": "W", "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "mu": "μ"}
GRID = ("kappa", "tau", "radius")
CANDIDATE, BASELINE, NOISE = "candidate", "baseline", "noise"


@dataclass
class Row:
    """A run's figures of one decoder at one task; None where the run doesn't say.

    Attributes:
        task: The task's name.
        decoder: The decoder's name.
        parameters: The decoder's numbers in a text, such as `τ=0.9`.
        series: The decoder's name in the run's samples.
        role: `baseline`, `chosen` by a calibration, or `noise`, a repetition whose differences are the noise floor.
        items: Names the items, equal for rows on the same ones.
        batch: The batch size at which it was timed.
        n: The number of items.
        right: How many of them are right.
        score: A fraction.
        low: Lower end of its 95 % interval, where the run has one.
        high: Upper end.
        forwards: Forward passes of an item.
        full_passes: To how many passes over its whole row they amount.
        tokens_per_forward: Canvas tokens for each forward pass.
        speed: Canvas tokens per second, at the batch size.
        values: Where the row is in a calibration's grid, by parameter.
        verdict: The verdict against the baseline.
        note: What the verdict rests on.
        samples: The run's samples of it.
    """

    task: str
    decoder: str
    parameters: str = ""
    series: str = ""
    role: str = ""
    items: str = ""
    batch: int | None = None
    n: int | None = None
    right: int | None = None
    score: float | None = None
    low: float | None = None
    high: float | None = None
    forwards: float | None = None
    full_passes: float | None = None
    tokens_per_forward: float | None = None
    speed: float | None = None
    values: dict[str, float] = field(default_factory=dict)
    verdict: str = ""
    note: str = ""
    samples: list[dict[str, Any]] = field(default_factory=list, repr=False)


def rows_of(run: Run) -> list[Row]:
    """Return a run's rows; one that names its choices alone where it has no other."""
    rows: dict[tuple[str, str], Row] = {}
    for sample in run.samples:
        row = rows.setdefault((sample["task"], sample["decoder"]), named(run, sample["task"], sample["decoder"]))
        row.samples.append(sample)
    for row in rows.values():
        count(row)
        if "gates" in run.results and row.series not in (BASELINE, CANDIDATE):
            row.role = NOISE
    for point in maps(run.results.get("points")):
        if "name" in point and not run.results.get("jobs"):  # a multirun's jobs have pages of their own
            task = str(point.get("task") or only_task(run))
            key = task, str(point["name"])
            add_point(rows.setdefault(key, named(run, *key)), point)
    for gate in maps(run.results.get("gates")):
        add_gate(run, rows, gate)
    for row in rows.values():
        row.items = items_of(run, row)
    return [*rows.values(), *timed(run)] or [bare(run)]


def items_of(run: Run, row: Row) -> str:
    """Return a name for the items of a row, equal for rows on the same items of the same data.

    Args:
        run: The run, whose manifest has the data's fingerprint.
        row: One of its rows; without samples its number of items stands for them.
    """
    data = run.manifest.get("data", {}).get(row.task)
    fingerprint = text(data.get("fingerprint")) if isinstance(data, Mapping) else ""
    ids = sorted(sample["id"] for sample in row.samples)
    return f"{fingerprint}{zlib.crc32(json.dumps(ids).encode()) if ids else row.n or ''}"


def named(run: Run, task: str, series: str) -> Row:
    """Return a row without figures. A candidate, or a setting of a grid, is the run's decoder.

    Args:
        run: The run, whose labels name its decoder.
        task: The row's task.
        series: The decoder's name in the run's samples; in a grid the setting, such as `kappa=0.5`.
    """
    label = text(run.results.get("labels", {}).get("decoder"))
    if series == CANDIDATE:
        label = label or own_decoder(run)
        return Row(task, label or series, parameters(run), series)
    if "=" in series and label:
        return Row(task, label, series, series)
    role = BASELINE if series.startswith(BASELINE) else ""
    return Row(task, series, parameters(run) if series == label else "", series, role)


def own_decoder(run: Run) -> str:
    """Return the name of the decoder in the config of a run that has no results yet; empty where it isn't known."""
    return text(decoder_config(run).get("_target_")).rpartition(".")[2].lower()


def parameters(run: Run) -> str:
    """Return the numbers of the run's decoder."""
    items = decoder_config(run).items()
    return " ".join(f"{SYMBOLS.get(key, key)}={value}" for key, value in items if number(value) is not None)


def decoder_config(run: Run) -> Mapping[str, Any]:
    """Return what the manifest says of the run's decoder; nothing where it doesn't."""
    config = run.manifest.get("config", {})
    decoder = config.get("decoder") if isinstance(config, Mapping) else None
    return decoder if isinstance(decoder, Mapping) else {}


def count(row: Row) -> None:
    """Compute figures from the row's samples."""
    scores = [sample["score"] for sample in row.samples if sample["score"] is not None]
    forwards = sum(sample["forwards"] for sample in row.samples)
    row.n = len(row.samples)
    if scores:
        row.n, row.right, row.score = len(scores), sum(score == 1 for score in scores), sum(scores) / len(scores)
    row.forwards = forwards / len(row.samples)
    row.full_passes = sum(map(full_passes, row.samples)) / len(row.samples)
    row.tokens_per_forward = sum(len(sample["tokens"]) for sample in row.samples) / forwards if forwards else None


def full_passes(sample: Mapping[str, Any]) -> float:
    """Return to how many passes over its whole row a sample's amount; an older one, without a cache, doesn't say."""
    return number(sample.get("full_passes")) or float(sample["forwards"])


def add_point(row: Row, point: Mapping[str, Any]) -> None:
    """Add figures that a comparison or a calibration has of a decoder or setting.

    Args:
        row: The row, changed in place.
        point: One of the `points` of results.json.
    """
    against, rate = point.get("against_baseline"), point.get("tokens_per_second")
    row.score, row.low, row.high = (number(point.get(key)) for key in ("score", "ci_low", "ci_high"))
    row.forwards = number(point.get("forwards"))
    row.full_passes = number(point.get("full_passes", row.forwards))
    row.role = text(point.get("role")) or row.role
    row.values = {key: found for key in GRID if (found := number(point.get(key))) is not None}
    if isinstance(rate, Mapping):
        row.speed = number(rate.get("median"))
    if isinstance(against, Mapping) and row.role != BASELINE:
        row.verdict = text(against.get("verdict"))
        row.note = said(against)


def add_gate(run: Run, rows: dict[tuple[str, str], Row], gate: Mapping[str, Any]) -> None:
    """Add the verdict of a quality gate, which is the candidate's.

    Args:
        run: The run, whose model's config names the gate's task.
        rows: The run's rows by task and series, changed in place; the candidate's is added where it isn't there.
        gate: One of the `gates` of results.json.
    """
    name = text(gate.get("name"))
    tasks = run.manifest.get("config", {}).get("model", {})
    tasks = tasks.get("tasks") if isinstance(tasks, Mapping) else None
    task = text(tasks.get(name)) if isinstance(tasks, Mapping) else ""
    key = (task or name, CANDIDATE)
    row = rows.setdefault(key, named(run, *key))
    row.verdict = text(gate.get("verdict"))
    row.note = f"gate {name}: {said(gate)}"


def said(comparison: Mapping[str, Any]) -> str:
    """Describe a comparison in points of 100."""
    what = "difference" if number(comparison.get("difference")) is not None else "candidate"
    value, low, high = (number(comparison.get(key)) for key in (what, "ci_low", "ci_high"))
    sign = "+" if what == "difference" else ""
    ends = "" if low is None or high is None else f" ({100 * low:{sign}.1f} … {100 * high:{sign}.1f})"
    margin = number(comparison.get("margin"))
    bound = "" if margin is None else f", margin {100 * margin:g}"
    return "" if value is None else f"{100 * value:{sign}.1f}{ends}{bound}"


def timed(run: Run) -> Iterator[Row]:
    """Return the rows of a throughput run's settings."""
    verdicts = {text(gate.get("name")): gate for gate in maps(run.results.get("performance_gates"))}
    label = text(run.results.get("labels", {}).get("decoder"))
    for timing in maps(run.results.get("timings")):
        ledger, repeats = timing.get("ledger"), list(maps(timing.get("repeats")))
        name, batch = text(timing.get("decoder")), number(timing.get("batch"))
        if not isinstance(ledger, Mapping) or not name or batch is None:
            continue
        canvas, forwards = number(ledger.get("canvas")), number(ledger.get("forwards"))
        whole = number(ledger.get("full_passes")) or forwards
        seconds = sorted(found for each in repeats if (found := number(each.get("seconds"))))
        gate = verdicts.get(f"{name} speedup batch={batch:g}", {})
        faster = number(gate.get("value"))
        prompts = number(run.results.get("settings", {}).get("prompts"))
        plain = name in (BASELINE, "reference")
        yield Row(
            task=only_task(run),
            decoder=name if plain else label or name,
            parameters="" if plain else parameters(run),
            role=BASELINE if plain else "",
            batch=int(batch),
            forwards=forwards / prompts if forwards and prompts else None,
            full_passes=whole / prompts if whole and prompts else None,
            tokens_per_forward=canvas / forwards if canvas and forwards else None,
            speed=canvas / median(seconds) if canvas and seconds else None,
            verdict=text(gate.get("verdict")),
            note=f"{faster:.2f}× the baseline, gate {text(gate.get('bound'))}" if faster else "",
        )


def median(ordered: Sequence[float]) -> float:
    """Return the median of numbers in order, at least one."""
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def bare(run: Run) -> Row:
    """Return the row of a run that has no decoder at a task to show."""
    labels, summary = run.results.get("labels", {}), run.results.get("summary", {})
    row = Row(text(labels.get("task")), text(labels.get("decoder")), parameters(run))
    row.score, row.low, row.high = (number(summary.get(key)) for key in ("score", "ci_low", "ci_high"))
    row.forwards = number(summary.get("forwards per item"))
    row.full_passes = number(summary.get("full-pass equivalents per item", row.forwards))
    return row


def only_task(run: Run) -> str:
    """Return the task of a run that has one."""
    return ", ".join(run.manifest.get("data", {})) or text(run.results.get("labels", {}).get("task"))


def maps(value: Any) -> Iterator[Mapping[str, Any]]:
    """Return the objects of a list; nothing of what isn't one."""
    return (each for each in value if isinstance(each, Mapping)) if isinstance(value, list) else iter(())


def text(value: Any) -> str:
    """Return a text as it is; empty for anything else."""
    return value if isinstance(value, str) else ""


def number(value: Any) -> float | None:
    """Return a number as it is; None for anything else."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
