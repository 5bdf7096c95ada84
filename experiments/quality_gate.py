"""Does a decoder keep the baseline's quality? Gates, each on the same items for both, each with a verdict.

A gate is any task with a margin. It judges by score (non-inferiority at the margin), by text (the candidate's BLEU
against the baseline's texts) or by repeat (the candidate twice). The performance log's point criterion stands beside
each verdict. What moves without any decoder (batch size, padding, precision) is shown as the noise floor, on the task
of the gate that repeats.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import torch
import torch.nn.functional as F
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from dlmlab.denoiser import Layout, Query
from dlmlab.errors import UserError
from dlmlab.loop.batch import Batch
from dlmlab.measure.stats import BLEU_SMOOTHING, Comparison, compare_right, compare_texts
from dlmlab.policy import Policy
from dlmlab.record.samples import Sample
from dlmlab.rule import Rule
from dlmlab.run import build, conf
from dlmlab.run.begin import Run, begin
from dlmlab.run.check import check_fit
from dlmlab.run.evaluate import evaluate
from dlmlab.run.kinds import SPREAD, TRACED, gathered
from dlmlab.run.samples import computed_of, detail_tables
from dlmlab.run.shown import interval, points
from dlmlab.settings import Fraction, PositiveInt, faults, fits, list_of, one_of
from dlmlab.task.base import Task
from dlmlab.tracking import Cell, Report, Table
from dlmlab.types import Generation

if TYPE_CHECKING:
    from dlmlab.run.rescore import Saved

BY = ("score", "text", "repeat")
CANVAS = ("gen_length", "steps", "block_length")
USUAL, NOISE = "unshared", ("batch 1", "padded", "other precision")
"""What the noise floor's samples are by: the baseline as it is, and with what should not matter."""
VERDICTS = ("fail", "inconclusive", "pass")
PADDING = 24
"""Columns by which the noise floor widens the padding."""


@dataclass(frozen=True, kw_only=True)
class Gate:
    """What a gate may say of itself in `gates`; what it leaves out is the task's own.

    Attributes:
        margin: What the candidate may lose, as a fraction; by text, the least BLEU. By repeat it plays no part.
        by: What is judged: `score`, `text` (against the baseline's texts) or `repeat` (the candidate twice).
        task: A name among the model's tasks or of conf/task/; None is the gate's own name.
        limit: How many of the task's items are taken.
        gen_length: Positions of the canvas.
        steps: Scheduled forward passes.
        block_length: Positions of a block.
    """

    margin: Fraction
    by: Annotated[str, one_of(BY)] = "score"
    task: str | None = None
    limit: PositiveInt | None = None
    gen_length: PositiveInt | None = None
    steps: PositiveInt | None = None
    block_length: PositiveInt | None = None


KINDS: Mapping[str, Any] = {**TRACED, **SPREAD, "tasks": list_of(str), "gates": dict[str, Gate]}


class Parts(NamedTuple):
    """What is decoded.

    Attributes:
        tasks: The task of each gate.
        settings: How its canvases are filled, by gate.
        rules: The two decoders, `baseline` and `candidate`.
        cache: The candidate's.
    """

    tasks: dict[str, Task]
    settings: dict[str, Generation]
    rules: dict[str, Rule]
    cache: Policy


def check(cfg: DictConfig) -> Parts:
    """Return the gates' tasks and the decoders.

    Raises:
        UserError: there is no such decoder, or a task doesn't go with its gate or the model.
    """
    tasks, settings = dict[str, Task](), dict[str, Generation]()
    with gathered() as errors:
        with errors:
            rules = {"baseline": build.decoder(cfg, "baseline"), "candidate": build.decoder(cfg)}
            cache = build.cache(cfg, [rules["candidate"]])
        names = dict.fromkeys([*cfg.gates, *(cfg.model.get("tasks") or {}), *conf.options("task")])
        errors += (wrong := faults("tasks", cfg.tasks, list_of(one_of(names))))
        for gate in [] if wrong or not fits(conf.plain(cfg.gates), KINDS["gates"]) else cfg.tasks:
            with errors:
                tasks[gate] = gate_task(cfg, gate)
                settings[gate] = gate_generation(cfg, gate, tasks[gate])
                check_fit(cfg, tasks[gate], settings[gate])
    return Parts(tasks, settings, rules, cache)


def run(cfg: DictConfig, parts: Parts) -> None:
    """Run the gates of `tasks` for `decoder` against the baseline."""
    tasks, settings, rules, cache = parts
    with begin(cfg, build.model(cfg), list(tasks.values())) as run:
        pairs: dict[str, dict[str, list[Sample]]] = {}
        twice: dict[str, dict[str, Any]] = {}
        noise: list[dict[str, Any]] = []
        for gate, task in tasks.items():
            if by_of(cfg, gate) == "repeat":
                twice[gate] = determinism(run, task, parts, settings[gate])
                noise = noise_floor(run, task, rules["baseline"], settings[gate])
            else:
                pairs[gate] = run.evaluate(task, rules, settings[gate], {"candidate": cache})
        candidate = build.described(rules["candidate"], cache)
        report = Report(
            title="Quality gates",
            question=f"Does {candidate} keep the baseline's quality with {build.model_name(cfg)}?",
            settings={
                "model": build.model_name(cfg),
                "decoder": str(rules["candidate"]),
                "cache": str(cache),
                "batch_size": str(run.batch),
            }
            | {gate: f"{tasks[gate].name}, {describe(settings[gate])}" for gate in tasks},
            **report_fields(cfg, pairs, twice, noise),
        )
        run.publish(report)


def report_fields(
    cfg: DictConfig,
    pairs: Mapping[str, dict[str, list[Sample]]],
    twice: Mapping[str, dict[str, Any]],
    noise: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """Return what the gates' samples say, in a Report's fields. twice: the rows of gates that judge by repeat."""
    gates, details = list[dict[str, Any]](), list[Table]()
    for gate in cfg.tasks:
        if gate in twice:
            gates.append({"name": gate, **twice[gate]})
            continue
        pair, margin = pairs[gate], cfg.gates[gate].margin
        by_text = by_of(cfg, gate) == "text"
        found = compare_texts(*texts(pair), margin) if by_text else compare_right(*right(pair), margin)
        gates.append({"name": gate, **asdict(found)})
        details += [cost_table(gate, pair), *detail_tables(pair)]
    return {
        "verdict": answer(gates),
        "tables": [gate_table(gates), *([noise_table(noise)] if noise else []), *details],
        "results": {"gates": gates, "noise_floor": noise},
        "summary": {f"{row['name']}/{key}": row[key] for row in gates for key in ("difference", "verdict")},
    }


def recompute(saved: Saved) -> dict[str, Any]:
    """Return what must stand in the results of a run that left these samples; see `dlmlab.verify`."""
    tasks = {gate: task_name(saved.cfg, gate) for gate in saved.cfg.tasks}
    repeats = [gate for gate in tasks if by_of(saved.cfg, gate) == "repeat"]
    pairs = {
        gate: {name: saved.of(task, name) for name in ("baseline", "candidate")}
        for gate, task in tasks.items()
        if gate not in repeats
    }
    twice, noise = dict[str, Any](), list[dict[str, Any]]()
    for gate in repeats:
        of = partial(saved.of, tasks[gate])
        recorded = zip(saved.results["noise_floor"], NOISE, strict=True)
        noise = [changed(row["name"], of(USUAL), of(decoder)) for row, decoder in recorded]
        twice[gate] = repeated(share_same(of("once"), of("twice")), len(of("once")))
    return report_fields(saved.cfg, pairs, twice, noise)


def by_of(cfg: DictConfig, gate: str) -> str:
    """Return what a gate judges by."""
    return str((cfg.gates.get(gate) or {}).get("by", "score"))


def task_name(cfg: DictConfig, gate: str) -> str:
    """Return the name in conf/task/ of a gate's task."""
    asked = (cfg.gates.get(gate) or {}).get("task") or gate
    named = asked in conf.options("task") and asked not in (cfg.model.get("tasks") or {})
    return str(asked) if named else build.role(cfg, asked)


def cost_table(gate: str, pair: Mapping[str, Sequence[Sample]]) -> Table:
    """Return a table of what each of the two took for an item of a gate."""
    rows: list[list[Cell]] = [
        [name, sum(sample.forwards for sample in samples) / len(samples), *computed_of(samples).values()]
        for name, samples in pair.items()
    ]
    return Table(f"Cost of an item: {gate}", ["", "forwards", "positions", "full-pass equivalents"], rows)


def gate_task(cfg: DictConfig, gate: str) -> Task:
    """Build a gate's task.

    Raises:
        UserError: The gate has no margin, or judges by a score that its task does not give.
    """
    own, by = cfg.gates.get(gate) or OmegaConf.create(), by_of(cfg, gate)
    if by != "repeat" and own.get("margin") is None:
        raise UserError(f"gates.{gate}.margin is not given: say what may be lost, +gates.{gate}.margin=0.01")
    limit = {"limit": own.limit} if "limit" in own and not OmegaConf.is_missing(own, "limit") else {}
    with conf.homes(dict.fromkeys(limit, f"gates.{gate}")):
        task = build.task(cfg, task_name(cfg, gate), **limit)
    if by == "score" and task.score(task.items()[0], "") is None:
        raise UserError(f"gates.{gate}: answers of {task.name} have no score: judge by text, +gates.{gate}.by=text")
    return task


def gate_generation(cfg: DictConfig, gate: str, task: Task) -> Generation:
    """Return the gate's canvas and schedule."""
    own = cfg.gates.get(gate) or {}
    with conf.homes(dict.fromkeys(CANVAS, f"gates.{gate}")):
        return build.generation(cfg, task, **{key: own.get(key) for key in CANVAS})


def right(pair: dict[str, list[Sample]]) -> tuple[list[bool], list[bool]]:
    """Return which items each of the two got right."""
    baseline, candidate = ([sample.score == 1 for sample in samples] for samples in pair.values())
    return baseline, candidate


def texts(pair: dict[str, list[Sample]]) -> tuple[list[str], list[str]]:
    """Return the answers of each of the two."""
    baseline, candidate = ([sample.text for sample in samples] for samples in pair.values())
    return baseline, candidate


def decode(run: Run, task: Task, rule: Rule, generation: Generation, name: str, **changes: Any) -> list[Sample]:
    """Decode and score a task with every canvas computed, under a name. changes: other `Decoding`, or another model."""
    model = changes.pop("model", run.model)
    how = replace(run.decoding(), share=False, traces=None, **changes)
    return evaluate(model, task, {name: rule}, generation, how)[name]


def determinism(run: Run, task: Task, parts: Parts, generation: Generation) -> dict[str, Any]:
    """Decode the same prompts with the same seed twice: every answer must be the same to the bit."""
    rule = parts.rules["candidate"]
    first, second = (
        decode(run, task, rule, generation, name, caches={name: parts.cache}) for name in ("once", "twice")
    )
    return repeated(share_same(first, second), len(first))


def repeated(same: float, n: int) -> dict[str, Any]:
    """Return the row of a gate that asks for the same answer twice. same: the share of n items that gave it."""
    blank = dict.fromkeys(field for field in Comparison.__dataclass_fields__)
    verdict = "pass" if same == 1 else "fail"
    return blank | {"candidate": same, "point_pass": same == 1, "verdict": verdict, "n": n}


def noise_floor(run: Run, task: Task, rule: Rule, generation: Generation) -> list[dict[str, Any]]:
    """Return the share of prompts whose baseline answer changes with what should not matter."""
    single, padded, precise = NOISE
    other = replace(generation, confidence_dtype=other_dtype(generation))
    others = {
        f"batch 1 and {run.batch.size}": decode(run, task, rule, generation, single, batch=Batch(1)),
        f"{PADDING} more columns of padding": decode(run, task, rule, generation, padded, model=Padded(run.model)),
        "confidence in float32 and float64": decode(run, task, rule, other, precise),
    }
    usual = decode(run, task, rule, generation, USUAL)
    return [changed(name, usual, samples) for name, samples in others.items()]


def changed(name: str, usual: Sequence[Sample], samples: Sequence[Sample]) -> dict[str, Any]:
    """Return a row of the noise floor."""
    return {"name": name, "changed": 1 - share_same(usual, samples), "n": len(samples)}


def other_dtype(generation: Generation) -> str:
    """The precision of confidence that is not in use."""
    return "float64" if generation.confidence_dtype == "float32" else "float32"


def share_same(first: Sequence[Sample], second: Sequence[Sample]) -> float:
    """Return the share of items with the same tokens."""
    return sum(a.tokens == b.tokens for a, b in zip(first, second, strict=True)) / len(first)


class Padded:
    """A model whose rows all have more padding than they need."""

    def __init__(self, model: Any):
        self._model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def hidden(self, query: Query) -> Tensor:
        """`hidden` of the same positions, in rows wider by PADDING columns."""
        tokens_BL, real_BL, wanted_N = query[:3]
        if real_BL is None:
            real_BL = torch.ones_like(tokens_BL, dtype=torch.bool)
        if wanted_N is not None:
            wanted_N = wanted_N + wanted_N // tokens_BL.shape[1] * PADDING
        wider_BL = F.pad(tokens_BL, (0, PADDING), value=self._model.config.pad_token_id)
        layout = query.layout
        if layout is not None:
            layout = Layout(
                F.pad(layout.position_BL, (0, PADDING)), F.pad(layout.seen_BLL, (0, PADDING, 0, PADDING), value=False)
            )
        wider = Query(wider_BL, F.pad(real_BL, (0, PADDING)), wanted_N, layout=layout)
        return self._model.hidden(wider)  # type: ignore[no-any-return]


def answer(gates: Sequence[dict[str, Any]]) -> str:
    """Say how the gates came out, the worst first."""
    names = {word: [gate["name"] for gate in gates if gate["verdict"] == word] for word in VERDICTS}
    said = [f"{word.capitalize()}: {', '.join(own)}." for word, own in names.items() if own]
    if idle := [gate["name"] for gate in gates if gate["baseline"] == gate["candidate"] == 0]:
        said.append(f"Neither has anything right in {', '.join(idle)}, where nothing can be lost.")
    return " ".join(said)


def gate_table(gates: Sequence[dict[str, Any]]) -> Table:
    """Return a table with a row for each gate, in points."""
    rows = [
        [
            row["name"],
            points(row["baseline"]),
            points(row["candidate"]),
            points(row["difference"], "+"),
            interval(row["ci_low"], row["ci_high"], "" if row["difference"] is None else "+"),
            points(row["margin"]),
            row["point_pass"],
            row["verdict"],
            row["n"],
            row["items_to_decide"],
        ]
        for row in gates
    ]
    columns = [
        "gate",
        "baseline",
        "candidate",
        "difference",
        "95 % interval",
        "margin",
        "without interval",
        "verdict",
        "items",
        "items to decide",
    ]
    note = (
        "In points of 100; + is a gain. The interval is of the difference, of bleu that of the candidate, whose margin "
        "is the least that it may score. Without interval: the performance log's criterion, of the point alone."
    )
    if any(row["name"] == "bleu" for row in gates):
        note += f" bleu: sacreBLEU's corpus score, smoothing {BLEU_SMOOTHING}, effective order."
    return Table("Quality gates", columns, rows, note)


def noise_table(noise: Sequence[dict[str, Any]]) -> Table:
    """Return a table of what changes without a decoder."""
    rows = [[row["name"], f"{points(row['changed'])} %", row["n"]] for row in noise]
    return Table("Noise floor: baseline answers that change between", ["", "changed", "items"], rows)


def describe(generation: Generation) -> str:
    """Return the canvas and schedule in words."""
    return f"gen_length {generation.gen_length}, block_length {generation.block_length}, steps {generation.steps}"
