"""Does a decoder keep the baseline's quality? Gates, each on the same items for both, each with a verdict.

A gate is any task with a margin. It judges by score (non-inferiority at the margin), by text (the candidate's BLEU
against the baseline's texts) or by repeat (the candidate twice). The performance log's point criterion stands beside
each verdict. What moves without any decoder (batch size, padding, precision) is shown as the noise floor, on the task
of the gate that repeats.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from dlmlab.errors import UserError
from dlmlab.measure.stats import BLEU_SMOOTHING, Comparison, compare_right, compare_texts
from dlmlab.policy import Policy
from dlmlab.record.samples import Sample
from dlmlab.rule import Rule
from dlmlab.run import build, conf
from dlmlab.run.begin import Run, begin
from dlmlab.run.check import check_fit
from dlmlab.run.kinds import SPREAD, TRACED, gathered
from dlmlab.run.noise_floor import NOISE, USUAL, changed, decode, noise_floor, noise_table, share_same
from dlmlab.run.samples import computed_of, detail_tables
from dlmlab.run.shown import interval, points
from dlmlab.settings import Fraction, PositiveInt, faults, fits, list_of, near, one_of
from dlmlab.task.base import Task
from dlmlab.tracking import Cell, Report, Table
from dlmlab.types import Generation

if TYPE_CHECKING:
    from dlmlab.run.rescore import Saved

BY = ("score", "text", "repeat")
SHIPPED = ("mmlu", "humaneval", "bleu", "determinism")
"""Gates of conf/experiment/quality_gate.yaml, which a run may leave out."""
CANVAS = ("gen_length", "steps", "block_length")
VERDICTS = ("fail", "inconclusive", "pass")


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
        UserError: There is no such decoder, or a task doesn't go with its gate or the model.
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
                check_shared(cfg, gate, tasks, settings)
        unused = [gate for gate in cfg.gates if gate not in (*cfg.tasks, *SHIPPED)] if not errors else []
        errors += [f"gates.{gate} is not among tasks: 'tasks=[{','.join([*cfg.tasks, gate])}]'" for gate in unused]
        chosen = cfg.task.get("name")
        if not errors and "_target_" in cfg.task and chosen not in {task.name for task in tasks.values()}:
            errors += [f"task={chosen} is no gate's: 'tasks=[{chosen}]' +gates.{chosen}.margin=0.01 makes it one"]
    return Parts(tasks, settings, rules, cache)


def run(cfg: DictConfig, parts: Parts) -> None:
    """Run the gates of `tasks` for `decoder` against the baseline.

    Args:
        cfg: The run's config.
        parts: What `check` returned.
    """
    tasks, settings, rules, cache = parts
    with begin(cfg, list(tasks.values())) as run:
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
    """Return what the gates' samples say, in a Report's fields.

    Args:
        cfg: The run's config.
        pairs: For each gate that judges by score or text, the baseline's and the candidate's samples, in this order.
        twice: The rows of gates that judge by repeat, see `repeated`.
        noise: The rows of the noise floor, see `changed`; empty where no gate judges by repeat.
    """
    gates, details = list[dict[str, Any]](), list[Table]()
    by_text = any(by_of(cfg, gate) == "text" for gate in cfg.tasks)
    for gate in cfg.tasks:
        if gate in twice:
            gates.append({"name": gate, **twice[gate]})
            continue
        pair, margin = pairs[gate], cfg.gates[gate].margin
        text = by_of(cfg, gate) == "text"
        found = compare_texts(*texts(pair), margin) if text else compare_right(*right(pair), margin)
        gates.append({"name": gate, **asdict(found)})
        details += [cost_table(gate, pair), *detail_tables(pair)]
    return {
        "verdict": answer(gates),
        "tables": [
            gate_table(gates, by_text),
            *([noise_table(noise)] if noise else []),
            *details,
        ],
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
    """Return what a gate judges by.

    Args:
        cfg: The run's config.
        gate: The gate's name.
    """
    return str((cfg.gates.get(gate) or {}).get("by", "score"))


def task_name(cfg: DictConfig, gate: str) -> str:
    """Return the name in conf/task/ of a gate's task.

    Args:
        cfg: The run's config.
        gate: The gate's name.
    """
    asked = (cfg.gates.get(gate) or {}).get("task") or gate
    own, tasks = cfg.model.get("tasks") or {}, conf.options("task")
    if asked not in own and asked not in tasks:
        raise UserError(f"gates.{gate}: {asked} is no task of conf/task/ or model.tasks{near(asked, [*own, *tasks])}")
    return build.role(cfg, asked) if asked in own else str(asked)


def cost_table(gate: str, pair: Mapping[str, Sequence[Sample]]) -> Table:
    """Return a table of what each of the two took for an item of a gate.

    Args:
        gate: The gate's name.
        pair: The samples of the two, by name.
    """
    rows: list[list[Cell]] = [
        [name, sum(sample.forwards for sample in samples) / len(samples), *computed_of(samples).values()]
        for name, samples in pair.items()
    ]
    return Table(f"Cost of an item: {gate}", ["", "forwards", "positions", "full-pass equivalents"], rows)


def gate_task(cfg: DictConfig, gate: str) -> Task:
    """Build a gate's task.

    Args:
        cfg: The run's config.
        gate: The gate's name.

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
    """Return the gate's canvas and schedule.

    Args:
        cfg: The run's config.
        gate: The gate's name.
        task: The gate's task, whose own canvas is taken where the gate names none.
    """
    own = cfg.gates.get(gate) or {}
    with conf.homes(dict.fromkeys(CANVAS, f"gates.{gate}")):
        return build.generation(cfg, task, **{key: own.get(key) for key in CANVAS})


def check_shared(cfg: DictConfig, gate: str, tasks: Mapping[str, Task], settings: Mapping[str, Generation]) -> None:
    """Refuse a gate that decodes the task of another one in another way, since samples are known by their task.

    Args:
        cfg: The run's config.
        gate: The gate's name.
        tasks: The tasks of this gate and of those before it.
        settings: How their canvases are filled.

    Raises:
        UserError: Their canvases, schedules or numbers of items differ.
    """
    own, repeats = tasks[gate], by_of(cfg, gate) == "repeat"  # whose samples have names of their own
    for other, task in tasks.items():
        same = task.name == own.name and (by_of(cfg, other) == "repeat") == repeats
        if same and (settings[other] != settings[gate] or len(task.items()) != len(own.items())):
            raise UserError(
                f"gates.{gate} and gates.{other} decode {own.name} in two ways: give both one limit and canvas"
            )


def right(pair: dict[str, list[Sample]]) -> tuple[list[bool], list[bool]]:
    """Return which items each of the two got right."""
    baseline, candidate = ([sample.score == 1 for sample in samples] for samples in pair.values())
    return baseline, candidate


def texts(pair: dict[str, list[Sample]]) -> tuple[list[str], list[str]]:
    """Return the answers of each of the two."""
    baseline, candidate = ([sample.text for sample in samples] for samples in pair.values())
    return baseline, candidate


def determinism(run: Run, task: Task, parts: Parts, generation: Generation) -> dict[str, Any]:
    """Decode the same prompts with the same seed twice: every answer must be the same to the bit.

    Args:
        run: The run, into whose files the samples go.
        task: The gate's task.
        parts: What `check` returned, of which the candidate and its cache are used.
        generation: How canvases are filled.
    """
    rule = parts.rules["candidate"]
    first, second = (
        decode(run, task, rule, generation, name, caches={name: parts.cache}) for name in ("once", "twice")
    )
    return repeated(share_same(first, second), len(first))


def repeated(same: float, n: int) -> dict[str, Any]:
    """Return the row of a gate that asks for the same answer twice.

    Args:
        same: The share of the items that gave it, from 0 to 1; all must, for the gate to pass.
        n: The number of items.
    """
    blank = dict.fromkeys(field for field in Comparison.__dataclass_fields__)
    verdict = "pass" if same == 1 else "fail"
    return blank | {"candidate": same, "point_pass": same == 1, "verdict": verdict, "n": n}


def answer(gates: Sequence[dict[str, Any]]) -> str:
    """Say how the gates came out, the worst first."""
    names = {word: [gate["name"] for gate in gates if gate["verdict"] == word] for word in VERDICTS}
    said = [f"{word.capitalize()}: {', '.join(own)}." for word, own in names.items() if own]
    if idle := [gate["name"] for gate in gates if gate["baseline"] == gate["candidate"] == 0]:
        said.append(f"Neither has anything right in {', '.join(idle)}, where nothing can be lost.")
    return " ".join(said)


def gate_table(gates: Sequence[dict[str, Any]], by_text: bool) -> Table:
    """Return a table with a row for each gate, in points.

    Args:
        gates: The gates' rows.
        by_text: Whether one of them judges by text.
    """
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
    if by_text:
        note += f" bleu: sacreBLEU's corpus score, smoothing {BLEU_SMOOTHING}, effective order."
    return Table("Quality gates", columns, rows, note)


def describe(generation: Generation) -> str:
    """Return the canvas and schedule in words."""
    return f"gen_length {generation.gen_length}, block_length {generation.block_length}, steps {generation.steps}"
