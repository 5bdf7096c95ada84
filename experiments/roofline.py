"""How near is a step to what the machine allows, and where does the rest go?

    python run.py experiment=roofline model=llada model.load_format=dummy 'batch_sizes=[1,8]'

The floor is what a step must compute and read, at the rates of a large matrix product and a large copy on the same
machine. The step is the baseline's in the real loop, on distinct random prompts, none shared; batch sizes take turns.
With a cache it is one that computes what a block's second pass does, and kept keys and values are read besides the
weights. The step's forward pass is timed by itself as well, many in a row, and what the step takes longer is the
loop's. A run of its own is watched by torch.profiler, to say which part of the model the pass's time goes to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, NamedTuple

from omegaconf import DictConfig

from dlmlab.decoder.baseline import Baseline
from dlmlab.errors import UserError
from dlmlab.measure.profiling import RULE, PartTime, decoding, profile
from dlmlab.measure.roofline import (
    ARITHMETIC,
    Ceilings,
    Floor,
    Work,
    count,
    countable,
    floor,
    measure_ceilings,
)
from dlmlab.measure.timing import Timing, percentile, spread, take_turns, time_decode
from dlmlab.measure.typical_pass import passing, time_passes, typical_places, typical_row
from dlmlab.picture.plots import save, step_parts
from dlmlab.run import build, conf
from dlmlab.run.begin import Run, begin
from dlmlab.run.kinds import gathered
from dlmlab.settings import PositiveInt, list_of
from dlmlab.tracking import Cell, Report, Table
from dlmlab.types import Generation, Request
from experiments.throughput import random_prompts

KINDS: Mapping[str, Any] = {"batch_sizes": list_of(PositiveInt), "prompt_length": PositiveInt, "repeats": PositiveInt}

PRECISION = ("path", "dtype", "quantization", "load_format")


class Step(NamedTuple):
    """All that is known of a step at one batch size; times in seconds.

    Attributes:
        batch: The batch size.
        work: What a step must compute and read, by part of the model; empty where it can't be counted.
        floor: The least time in which that can be done.
        runs: The timed runs.
        pass_seconds: See `time_passes`.
        parts: Those of the measured step, see `split`.
        positions: With a cache, what the step's pass computes, over all rows; passes that renew more don't count.
    """

    batch: int
    work: Mapping[str, Work]
    floor: Floor
    runs: Sequence[Timing]
    pass_seconds: float
    parts: Mapping[str, PartTime]
    positions: int | None

    @property
    def durations(self) -> list[float]:
        """Return the durations of the steps of this kind in which the whole batch took part."""
        whole = [tick for run in self.runs for tick in run.steps if tick.rows == self.batch]
        return [tick.seconds for tick in whole if self.positions in (None, tick.positions)]

    @property
    def seconds(self) -> float:
        return percentile(self.durations, 50)

    @property
    def ratio(self) -> float | None:
        """By how much the step is above its floor; None of a model whose work can't be counted."""
        return self.seconds / self.floor.seconds if self.work else None

    @property
    def flops(self) -> float:
        return sum(part.flops for part in self.work.values())

    @property
    def weight_bytes(self) -> float:
        return sum(part.weight_bytes for part in self.work.values())


def check(cfg: DictConfig) -> Generation:
    """Return how canvases are filled.

    Raises:
        UserError: The schedule doesn't come out, or another decoder than the baseline is chosen.
    """
    with gathered() as errors:
        with errors:
            generation = build.own_generation(cfg)
        with errors:
            if build.decoder(cfg) != Baseline():
                name = conf.labels()["decoder"]
                errors.append(f"decoder={name}: a roofline is of the baseline, whose schedule is fixed: leave it out")
        with errors:
            cache = build.cache(cfg)
            if cache.keeps and not cache.steady:
                errors.append(
                    f"cache={conf.labels()['cache']}: its passes differ from each other, and none stands for all: set "
                    "cache=dual, prefix, onward or none"
                )
    return generation


def run(cfg: DictConfig, generation: Generation) -> None:
    """Measure the machine, then the step at each of `batch_sizes`.

    Args:
        cfg: The run's config.
        generation: What `check` returned: how canvases are filled.
    """
    with begin(cfg, []) as run:
        dtype, storage = arithmetic(cfg, run.model)
        stored = dtype if storage == "none" else storage
        ceilings = measure_ceilings(run.model.device, [dtype, ARITHMETIC.get(stored, stored)])
        steps = measure(run, generation, ceilings)
        described = [describe(step, ceilings, dtype) for step in steps]
        report = Report(
            title="Roofline",
            question=f"How near is a step of {build.model_name(cfg)} to what the machine allows, and where does the "
            "rest go?",
            settings={key: cfg.model[key] for key in PRECISION if key in cfg.model}
            | {key: value for key, value in asdict(generation).items() if value is not False}
            | {key: cfg[key] for key in ("prompt_length", "repeats", "seed")},
            verdict=answer(steps),
            tables=[
                step_table(steps),
                ceiling_table(ceilings),
                *(part_table(step, ceilings, dtype, run.model.device.type) for step in steps),
            ],
            results={"ceilings": ceilings._asdict(), "steps": described},
            summary={f"step / floor batch={step.batch}": step.ratio for step in steps}
            | {f"step ms batch={step.batch}": 1e3 * step.seconds for step in steps},
            pictures=[save(step_parts(described), run.folder / "where_a_step_goes.png")],
        )
        run.publish(report)


def arithmetic(cfg: DictConfig, model: Any) -> tuple[str, str]:
    """Return the type that a model computes in, and how its weights are stored.

    Args:
        cfg: The run's config, which names the quantization.
        model: The model.

    Returns:
        Names such as `bfloat16` and `int8`; the latter is `none` where the weights aren't quantised.
    """
    return str(model.dtype).removeprefix("torch."), str(cfg.model.get("quantization") or "none")


def measure(run: Run, generation: Generation, ceilings: Ceilings) -> list[Step]:
    """Time the step and its pass at each batch size, in turns, then watch where it goes.

    Args:
        run: The run, whose folder keeps the timings and the profiler's traces.
        generation: How canvases are filled.
        ceilings: The machine's highest rates.
    """
    cfg, model = run.cfg, run.model
    batches = list(dict.fromkeys(cfg.batch_sizes))
    prompts = random_prompts(model, [cfg.prompt_length] * max(batches), generation, cfg.seed)
    dtype, storage = arithmetic(cfg, model)

    policy = build.cache(cfg)
    cache = policy if policy.keeps else None

    def job(batch: int) -> Timing:
        requests = [Request(index, prompt, Baseline(), cache=cache) for index, prompt in enumerate(prompts[:batch])]
        return time_decode(model, requests, generation, batch, cfg.seed)

    # The largest first: where more rows need another memory, what was recorded with the old one is lost.
    jobs = {batch: partial(job, batch) for batch in sorted(batches, reverse=True)}
    passes = {batch: partial(time_passes, model, prompts[:batch], generation, cache) for batch in batches}
    computed, kept = typical_row(model, prompts[0], generation, cache)
    for batch, [warmed] in take_turns(jobs, 1).items():
        if cache is not None and all(tick.positions != batch * computed for tick in warmed.steps):
            raise UserError(
                f"cache={conf.labels()['cache']}: no step computes what a block's second pass does by itself, "
                f"{computed} positions a row: set more generation.steps, or cache=dual, prefix, onward or none"
            )
    take_turns(passes, 1)
    seconds = {batch: spread(each).median for batch, each in take_turns(passes, cfg.repeats).items()}
    timings, steps = take_turns(jobs, cfg.repeats, keep=run.timings.keep), []
    for batch in batches:
        masked = batch * typical_places(generation)
        told = (model.config, storage, dtype, batch, computed, masked, kept)
        work = count(*told) if countable(model.config) else {}
        few = prompts[:batch]
        alike = decoding(few, generation) if cache is None else passing(model, few, generation, cache)
        positions = None if cache is None else batch * computed
        step = Step(batch, work, floor(work.values(), ceilings, dtype), timings[batch], seconds[batch], {}, positions)
        spent = profile(model, alike, run.folder / f"trace_batch_{batch}.json.gz")
        steps.append(step._replace(parts=split(spent, step.seconds, step.pass_seconds)))
    return steps


def split(spent: Mapping[str, PartTime], seconds: float, pass_seconds: float) -> dict[str, PartTime]:
    """Split the measured step into parts: its pass as a profiled one's, and what is left is the rule's and the loop's.

    A profiled step is no measure of the whole: it writes down whatever the host does, and meanwhile the device cools.

    Args:
        spent: Seconds of the profiled step, by part.
        seconds: Seconds of the measured step.
        pass_seconds: Seconds of its pass, see `time_passes`.
    """
    inside = {name: part for name, part in spent.items() if name != RULE}
    within = min(seconds, pass_seconds)
    return scaled(inside, within) | scaled({RULE: spent[RULE]}, seconds - within)


def scaled(parts: Mapping[str, PartTime], seconds: float) -> dict[str, PartTime]:
    """Return the parts, so that they make up so many seconds.

    Args:
        parts: Seconds by part, more than 0 in all.
        seconds: What they add up to afterwards.
    """
    factor = seconds / sum(map(sum, parts.values()))
    return {name: PartTime(part.busy * factor, part.idle * factor) for name, part in parts.items()}


def answer(steps: Sequence[Step]) -> str:
    """Return the ratios, and what most of the rest is."""
    found = []
    for step in steps:
        name, most = max(step.parts.items(), key=lambda each: sum(each[1]))
        above = f"{step.ratio:.2f} × its floor of {1e3 * step.floor.seconds:.3g} ms" if step.ratio else None
        took = f"a step takes {above or milliseconds(step.seconds)}"
        found.append(f"at batch {step.batch} {took}, most of it in {name} ({sum(most) / step.seconds:.0%})")
    text = "; ".join(found)
    return f"{text[0].upper()}{text[1:]}."


def step_table(steps: Sequence[Step]) -> Table:
    """Return a table of the floors, the steps, and what the steps reach."""
    columns = ["Batch", "GFLOP", "GB of weights", "compute floor", "memory floor", "step p50", "p99", "its pass",
               "step / floor", "TFLOP/s", "GB/s", "peak GB"]  # fmt: skip
    rows: list[list[Cell]] = [
        [
            step.batch,
            f"{step.flops / 1e9:.4g}" if step.work else None,
            f"{step.weight_bytes / 1e9:.4g}" if step.work else None,
            milliseconds(step.floor.compute) if step.work else None,
            milliseconds(step.floor.memory) if step.work else None,
            milliseconds(step.seconds),
            milliseconds(percentile(step.durations, 99)),
            milliseconds(step.pass_seconds),
            f"{step.ratio:.2f}×" if step.ratio else None,
            f"{step.flops / step.seconds / 1e12:.4g}" if step.work else None,
            f"{step.weight_bytes / step.seconds / 1e9:.4g}" if step.work else None,
            f"{max(run.peak_bytes for run in step.runs) / 1e9:.2f}",
        ]
        for step in steps
    ]
    note = (
        "Work and floors are of the median step: matrix products and the weights that they read, the head and the end "
        "of the last block at masked positions alone. The floor is the larger of both. The pass: timed by itself, "
        "many in a row. Peak: on a CPU the whole process."
    )
    if not all(step.work for step in steps):
        note += " The work of this model is not known, so that it has no floor: only dlmlab's own networks tell theirs."
    return Table("Steps against their floors", columns, rows, note)


def ceiling_table(ceilings: Ceilings) -> Table:
    """Return a table of the machine's highest rates."""
    rows: list[list[Cell]] = [["copy, read + write", f"{ceilings.bytes_per_second / 1e9:.4g} GB/s"]]
    rows += [[f"{kind} product", f"{rate / 1e12:.4g} TFLOP/s"] for kind, rate in ceilings.flops_per_second.items()]
    return Table("Ceilings, measured", ["", "rate"], rows)


def part_table(step: Step, ceilings: Ceilings, dtype: str, device: str) -> Table:
    """Return a table of where a step's time goes.

    Args:
        step: The step.
        ceilings: The machine's highest rates.
        dtype: The type that the model computes in.
        device: The device's kind; on `cuda` the gaps between kernels have a column.
    """
    gpu = device == "cuda"
    rows: list[list[Cell]] = []
    for name, part in sorted(step.parts.items(), key=lambda each: -sum(each[1])):
        under = floor([step.work[name]], ceilings, dtype).seconds if name in step.work else None
        rows.append(
            [
                name,
                milliseconds(part.busy),
                *([milliseconds(part.idle)] if gpu else []),
                f"{sum(part) / step.seconds:.1%}",
                None if under is None else milliseconds(under),
                None if under is None else f"{sum(part) / under:.2f}×",
            ]
        )
    note = "Of the pass, the profiled one's shares; what the step takes longer than its pass is the loop's."
    note += " Gaps: the device waits for the part's next kernel." if gpu else ""
    return Table(
        f"Where a step goes, batch {step.batch}",
        ["part", "kernels" if gpu else "time", *(["launch gaps"] if gpu else []), "share", "floor", "part / floor"],
        rows,
        note,
    )


def milliseconds(seconds: float) -> str:
    """Return seconds as a table shows them, in milliseconds."""
    return f"{1e3 * seconds:.3f} ms"


def describe(step: Step, ceilings: Ceilings, dtype: str) -> dict[str, Any]:
    """Return all that was counted and measured of a step; times in seconds.

    Args:
        step: The step.
        ceilings: The machine's highest rates.
        dtype: The type that the model computes in.
    """
    return {
        "batch": step.batch,
        "flops": step.flops,
        "weight_bytes": step.weight_bytes,
        "compute_floor": step.floor.compute,
        "memory_floor": step.floor.memory,
        "floor": step.floor.seconds,
        "p50": step.seconds,
        "p99": percentile(step.durations, 99),
        "ratio": step.ratio,
        "pass": step.pass_seconds,
        "outside_the_model": sum(step.parts.get(RULE, PartTime(0.0, 0.0))) / step.seconds,
        "durations": step.durations,
        "peak_bytes": max(run.peak_bytes for run in step.runs),
        "parts": [
            {
                "name": name,
                **part._asdict(),
                "work": step.work[name]._asdict() if name in step.work else None,
                "floor": floor([step.work[name]], ceilings, dtype).seconds if name in step.work else None,
            }
            for name, part in step.parts.items()
        ],
    }
