"""How wrong are the model's own confidences? Every proposal of every pass, beside the one right token of its position.

    python run.py experiment=reliability model=sudoku task=sudoku9 decoder=margin

Only a task whose answer is the only right one can say so, such as a Sudoku with one solution. What a pass proposes for
positions that are open is compared with the solution, by how much of the canvas is filled: a calibrated model is right
as often as it is confident. Once a wrong token is committed, no proposal beside it need be right any more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from omegaconf import DictConfig

from dlmlab.errors import UserError
from dlmlab.measure.reliability import Reliability, reliability
from dlmlab.record.traces import Trace, TraceFile, read
from dlmlab.rule import Rule
from dlmlab.run import build
from dlmlab.run.begin import begin
from dlmlab.run.check import check_fit
from dlmlab.run.kinds import gathered
from dlmlab.task.base import Task
from dlmlab.tracking import Cell, Report, Table
from dlmlab.types import Generation

KINDS: Mapping[str, Any] = {}
STAGES = 5
"""Parts of the way by the share of the open positions that are filled."""
ALL = "all"


class Parts(NamedTuple):
    """What is decoded, by which rule, and how its canvases are filled."""

    rule: Rule
    task: Task
    generation: Generation


class Proposal(NamedTuple):
    """A token that a pass proposed for an open position.

    Attributes:
        stage: Which of the `STAGES` parts of the way the canvas had come, counted from 0.
        confidence: The token's probability.
        right: Whether it is the solution's token.
        committed: Whether the pass went on to commit it.
    """

    stage: int
    confidence: float
    right: bool
    committed: bool


def check(cfg: DictConfig) -> Parts:
    """Return the decoder and the task.

    Raises:
        UserError: The task has no single right answers, or one of them can't be had.
    """
    with gathered() as errors:
        with errors:
            rule = build.decoder(cfg)
        with errors:
            task = build.task(cfg, cfg.task.get("name") or build.role(cfg, "sudoku"))
            if not hasattr(task, "solution"):
                raise UserError(f"task={task.name} has answers that may be right in several ways: choose task=sudoku9")
            generation = build.generation(cfg, task)
            check_fit(cfg, task, generation)
    return Parts(rule, task, generation)


def run(cfg: DictConfig, parts: Parts) -> None:
    """Decode every item of the task, and look at every pass.

    Args:
        cfg: The run's config.
        parts: What `check` returned.
    """
    rule, task, generation = parts
    with begin(cfg, [task]) as run:
        items = task.items()
        run.traces = TraceFile(run.folder, len(items))
        [samples] = run.evaluate(task, {"candidate": rule}, generation).values()
        traces = read(run.traces.path)
        solutions = {item.id: task.solution(item) for item in items}  # type: ignore[attr-defined]
        found = [each for trace in traces.values() for each in proposals(trace, solutions[trace.id])]
        score = sum(sample.score or 0.0 for sample in samples) / len(samples)
        run.publish(
            Report(
                title=f"Reliability: {task.name}",
                question=f"How far can the confidences of {build.model_name(cfg)} be trusted, decoded by {rule}?",
                settings={"generation": str(generation), "items": str(len(items)), "batch_size": str(run.batch)},
                **report_fields(found, score),
            )
        )


def proposals(trace: Trace, solution: Mapping[int, str]) -> Iterator[Proposal]:
    """Yield what each pass proposed for the positions that a solution knows.

    Args:
        trace: How an item's canvas was filled.
        solution: The text of the right token, by position of the canvas.
    """
    filled: set[int] = set()
    for step in trace.steps:
        begin = step["begin"]
        stage = min(STAGES - 1, STAGES * len(filled & solution.keys()) // max(1, len(solution)))
        committed = {begin + place for place in step["commit"]}
        for place, (token, confidence) in enumerate(zip(step["tokens"], step["confidence"], strict=True)):
            if (at := begin + place) in solution and token is not None and at not in filled:
                yield Proposal(stage, confidence, token == solution[at], at in committed)
        filled = (filled | committed) - {begin + place for place in step["revoke"]}


def by_stage(found: Sequence[Proposal]) -> dict[str, Reliability]:
    """Return the reliability of each part of the way, and of all together."""
    parts = {f"{100 * stage // STAGES}–{100 * (stage + 1) // STAGES} %": stage for stage in range(STAGES)}
    named = {name: [each for each in found if each.stage == stage] for name, stage in parts.items()}
    return {name: of(each) for name, each in {**named, ALL: found}.items()}


def of(found: Sequence[Proposal]) -> Reliability:
    """Return the reliability of proposals."""
    return reliability([each.confidence for each in found], [each.right for each in found])


def report_fields(found: Sequence[Proposal], score: float) -> dict[str, Any]:
    """Return what the proposals say, in a Report's fields.

    Args:
        found: The proposals of all items.
        score: The mean score of the items, from 0 to 1.
    """
    proposed, committed = by_stage(found), by_stage([each for each in found if each.committed])
    columns = ["filled", "proposals", "confidence", "right", "calibration error"]
    tables = [
        Table(title, columns, [row(name, each) for name, each in stages.items()])
        for title, stages in (("All open positions", proposed), ("What was committed", committed))
    ]
    bins: list[Sequence[Cell]] = [[f"{each.confidence:.3f}", each.n, points(each.right)] for each in proposed[ALL].bins]
    tables.append(Table("By confidence", ["mean confidence", "proposals", "right"], bins))
    whole = proposed[ALL]
    return {
        "tables": tables,
        "verdict": f"Proposals are {points(whole.confidence)} sure and {points(whole.right)} right: "
        f"the expected calibration error is {points(whole.error)}.",
        "results": {
            "score": score,
            "proposed": {name: plain(each) for name, each in proposed.items()},
            "committed": {name: plain(each) for name, each in committed.items()},
        },
        "summary": {"score": score, "calibration_error": whole.error, "confidence": whole.confidence},
    }


def row(name: str, found: Reliability) -> Sequence[Cell]:
    """Return a table's row.

    Args:
        name: The part of the way, which begins the row.
        found: The reliability of its proposals.
    """
    return [name, found.n, points(found.confidence), points(found.right), points(found.error)]


def plain(found: Reliability) -> dict[str, Any]:
    """Return a reliability as JSON has it; what is not a number is null."""
    bins = [each._asdict() for each in found.bins]
    return {key: None if value != value else value for key, value in {**found._asdict(), "bins": bins}.items()}


def points(value: float) -> str:
    """Return a share in points of 100."""
    return "–" if value != value else f"{100 * value:.1f}"
