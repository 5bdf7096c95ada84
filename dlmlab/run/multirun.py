"""One summary over the jobs of a multirun, from what they left on disk: shards are joined, failed jobs are named."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any

import yaml

from dlmlab import manifest
from dlmlab.errors import UserError
from dlmlab.picture.plots import COST, PASSES, Point, cost, draw, is_cached, pareto
from dlmlab.record.files import plain, read_bytes
from dlmlab.record.folder import (
    DAMAGE,
    ERROR,
    LIKELIHOODS,
    MANIFEST,
    MANIFEST_SHAPE,
    OVERRIDES,
    RESULTS,
    fits,
    read_manifest,
    read_object,
    read_results,
)
from dlmlab.record.journal import Journal
from dlmlab.record.report import results_of
from dlmlab.record.samples import Sample, lost_samples, read_samples
from dlmlab.run import likelihoods, shown
from dlmlab.run.samples import AGAIN, TOKENS, cost_of, evaluated, evaluation_tables, joined, score_of, verdict
from dlmlab.tracking import Cell, Report, RunRecord, Table

SHARD = "task.shard"
JOINED = ("evaluate", "likelihood")
"""The experiments whose shards are joined."""
PLACES = {"config.device", "model.device"}
"""Keys that say where a shard ran: each on a GPU of its own."""


@dataclass(frozen=True)
class Job:
    """A job's folder and what is in it. Reading it raises UserError for what is damaged.

    Attributes:
        folder: The folder.
        name: Its path below the multirun's folder.
    """

    folder: Path
    name: str

    @functools.cached_property
    def overrides(self) -> dict[str, str]:
        """Return the settings that the job was given beside the defaults."""
        given = self.manifest["overrides"] if (self.folder / MANIFEST).exists() else self._told_by_hydra()
        texts = map(str, given)
        return {key.lstrip("+~"): value for key, _, value in (text.partition("=") for text in texts)}

    def _told_by_hydra(self) -> list[str]:
        try:
            given = yaml.safe_load(read_bytes(self.folder / OVERRIDES))
        except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
            raise UserError(f"{self.folder / OVERRIDES} cannot be read ({type(error).__name__})") from error
        if not isinstance(given, list) or not all(isinstance(each, str) for each in given):
            raise UserError(f"{self.folder / OVERRIDES} holds no list of overrides")
        return given

    @property
    def done(self) -> bool:
        return (self.folder / RESULTS).exists() and (self.folder / MANIFEST).exists()

    @functools.cached_property
    def results(self) -> dict[str, Any]:
        return read_results(self.folder)

    @functools.cached_property
    def manifest(self) -> dict[str, Any]:
        return read_manifest(self.folder, needed=(*MANIFEST_SHAPE, "overrides"))

    @property
    def num_shards(self) -> int:
        task = self.manifest["config"].get("task")
        number = task.get("num_shards") if isinstance(task, Mapping) else None
        return number if isinstance(number, int) else 1  # a key without a value reads ???

    @functools.cached_property
    def problem(self) -> str:
        """Why the job is not in the summary, in a line; empty where it may be."""
        try:
            if self.done:
                _ = self.results, self.overrides
                return lost_samples(self.folder, self.manifest)
            reason = self.folder / ERROR
            said = read_bytes(reason).decode(errors="replace").strip() if reason.exists() else ""
            return said or "it ended without a result"
        except (UserError, OSError) as error:
            return str(error)

    @functools.cached_property
    def has_overrides(self) -> bool:
        """Return whether it can be read what the job was told."""
        try:
            return isinstance(self.overrides, dict)
        except UserError:
            return False

    @property
    def samples(self) -> list[Sample]:
        return read_samples(self.folder)

    @property
    def likelihoods(self) -> list[dict[str, Any]]:
        return Journal(self.folder / LIKELIHOODS).entries


@dataclass(frozen=True)
class Row:
    """The figures of one configuration.

    Attributes:
        jobs: The job that they are from, or the shards of one.
        figures: The figures by name.
        tables: The tables of its report.
        said: What the figures say, in a sentence.
    """

    jobs: Sequence[Job]
    figures: Mapping[str, Cell]
    tables: Sequence[Table]
    said: str

    @property
    def name(self) -> str:
        return ", ".join(job.name for job in self.jobs)

    @property
    def overrides(self) -> dict[str, str]:
        return {key: value for key, value in self.jobs[0].overrides.items() if key != SHARD or len(self.jobs) == 1}


@dataclass(frozen=True)
class Problem:
    """Jobs that are not in the summary.

    Attributes:
        name: The jobs' names.
        settings: What sets them apart from the others; empty where that can't be read.
        reason: Why they aren't there.
    """

    name: str
    settings: str
    reason: str


def find_jobs(folder: Path) -> list[Job]:
    """Return the jobs at or below a multirun's folder, in order."""
    folders = [file.parent.parent for file in folder.glob("**/.hydra/overrides.yaml")]
    names = [str(each.relative_to(folder)) for each in folders]
    order = sorted(zip(names, folders, strict=True), key=lambda each: (not each[0].isdigit(), len(each[0]), each[0]))
    return [Job(each, name) for name, each in order]


def summarise(folder: Path) -> tuple[RunRecord | None, list[Problem]]:
    """Return the summary as a run of its own, None where no job finished; and what is not in it.

    It follows from the jobs' folders alone: the same folders give the same summary.
    """
    jobs = find_jobs(folder)
    known = [job for job in jobs if job.has_overrides]
    keys = varied(known)
    problems = [Problem(job.name, told(job, keys) if job in known else "", job.problem) for job in jobs if job.problem]
    rows, points = list[Row](), list[dict[str, Any]]()
    for group in together([job for job in jobs if not job.problem]):
        try:
            row = row_of(group)
            points += [point] if (point := point_of(row, keys)) else []
            rows.append(row)
        except DAMAGE as error:
            problems.append(Problem(", ".join(job.name for job in group), told(group[0], keys), str(error)))
    if not rows:
        return None, problems
    every = [job.manifest for row in rows for job in row.jobs]
    config = functools.reduce(common, (made["config"] for made in every))
    made = {**every[0], "config": config, "ended": max(str(each["ended"]) for each in every)}
    report = Report(
        title=f"Multirun of {rows[0].jobs[0].results['experiment']}, {len(jobs)} jobs",
        settings={key: value for key, value in known[0].overrides.items() if key not in [*keys, SHARD]},
        tables=[jobs_table(rows, keys), *problem_tables(problems), *(rows[0].tables if len(rows) == 1 else [])],
        verdict=answer(rows, points),
        results={
            "of": rows[0].jobs[0].results["experiment"],
            "jobs": [{"job": row.name, "overrides": row.overrides, "figures": row.figures} for row in rows],
            "problems": problems,
            "points": points,
        },
        summary=rows[0].figures if len(rows) == 1 else {"jobs": len(jobs), "not summarised": len(problems)},
        pictures=draw(folder, points),
    )
    return RunRecord(folder, "multirun", labels(rows), made, report), problems


def stands(record: RunRecord) -> bool:
    """Return whether a multirun's folder holds this very summary: it was resumed and nothing was left to do."""
    try:
        return bool(read_object(record.folder / RESULTS) == plain(results_of(record)))
    except UserError:
        return False


def together(jobs: Sequence[Job]) -> list[list[Job]]:
    """Return the jobs by what they were told; shards of one run are together."""
    groups: dict[object, list[Job]] = {}
    for job in jobs:
        others = tuple(sorted((key, value) for key, value in job.overrides.items() if key != SHARD))
        groups.setdefault(others if job.num_shards > 1 else job.name, []).append(job)
    return list(groups.values())


def row_of(group: Sequence[Job]) -> Row:
    """Return a job's figures, or those of its shards joined: the numbers that one job would have found.

    Raises ValueError for shards that aren't the whole or that differ in anything else.
    """
    first = group[0]
    if first.num_shards == 1:
        return Row(group, figures_of(first), [], first.results["verdict"])
    check_shards(group)
    if (first.folder / LIKELIHOODS).exists():
        entries = sorted((entry for job in group for entry in job.likelihoods), key=lambda entry: int(entry["index"]))
        found = likelihoods.report_fields(entries)
        return Row(group, found["summary"], found["tables"], found["verdict"])
    samples = sorted((sample for job in group for sample in job.samples), key=lambda sample: sample.index)
    counted = [key for key in (*TOKENS, AGAIN) if all(key in job.results for job in group)]
    tokens = {key: sum(job.results[key] for job in group) for key in counted}
    figures = score_of(samples) | cost_of(samples, tokens)
    of = joined([evaluated(job.results) for job in group])
    return Row(group, figures, evaluation_tables(figures, samples, of), verdict(figures, of))


def figures_of(job: Job) -> Mapping[str, Cell]:
    """Return a job's summary. Raises ValueError where a score or its cost is no number."""
    summary: Mapping[str, Cell] = job.results["summary"]
    for key in ("score", "ci_low", "ci_high", "forwards per item", "full-pass equivalents per item", "n"):
        if not fits(summary.get(key), (int, float, NoneType)):
            raise ValueError(f"{job.folder / RESULTS} is damaged: {key} is {summary[key]!r}")
    return summary


def check_shards(group: Sequence[Job]) -> None:
    """Raise ValueError unless every shard is there once, all from the same code, weights, data and config."""
    number = group[0].num_shards
    shards = [int(job.manifest["config"]["task"]["shard"]) for job in group]
    if missing := sorted(set(range(number)) - set(shards)):
        which = ", ".join(map(str, missing))
        raise ValueError(f"of task.num_shards={number} shard {which} is missing: run it with task.shard={which}")
    if twice := sorted({shard for shard in shards if shards.count(shard) > 1}):
        raise ValueError(f"shard {twice[0]} of task.num_shards={number} is there twice: keep one of the folders")
    for key in ("config", "model", "data", "git"):
        for job in group[1:]:
            for name, a, b in manifest.differences({key: group[0].manifest[key]}, {key: job.manifest[key]}):
                if name != f"config.{SHARD}" and not (name in PLACES and kind_of(a) == kind_of(b)):
                    raise ValueError(f"the shards differ in {name}: {a} in job {group[0].name}, {b} in job {job.name}")
    if (experiment := group[0].results["experiment"]) not in JOINED:
        raise ValueError(f"shards of experiment={experiment} can't be joined: use {' or '.join(JOINED)}")


def kind_of(device: Any) -> str:
    """Return a device's kind, without its number."""
    return str(device).partition(":")[0]


def varied(jobs: Sequence[Job]) -> list[str]:
    """Return the settings in which jobs differ, other than the shard."""
    keys = dict.fromkeys(key for job in jobs for key in job.overrides if key != SHARD)
    return [key for key in keys if len({job.overrides.get(key) for job in jobs}) > 1]


def told(job: Job, keys: Sequence[str]) -> str:
    """Return some of a job's settings, in words.

    Args:
        job: A job whose overrides can be read.
        keys: The settings to name; those that the job was not given are left out.
    """
    return " ".join(f"{key}={job.overrides[key]}" for key in keys if key in job.overrides)


def common(a: Any, b: Any) -> Any:
    """Return what two configs have in common.

    Args:
        a: A job's config as nested dicts, or a value in it.
        b: What another job's has at the same key.

    Returns:
        The keys that are in both with the same value, of groups likewise; a value as `a` has it.
    """
    if isinstance(a, dict) and isinstance(b, dict):
        groups = [key for key in a if isinstance(a[key], dict) and isinstance(b.get(key), dict)]
        return {key: common(a[key], b[key]) for key in a if key in groups or (key in b and a[key] == b[key])}
    return a


def labels(rows: Sequence[Row]) -> dict[str, str]:
    """Return the rows' choices, where they agree."""
    each = [row.jobs[0].results["labels"] for row in rows]
    return {
        key: value if all(other.get(key) == value for other in each) else "several" for key, value in each[0].items()
    }


def answer(rows: Sequence[Row], points: Sequence[Point]) -> str:
    """Return the joined score, or the settings that no other beats.

    Args:
        rows: The rows of the summary, at least one.
        points: The picture's points, of the rows that have a score and its cost.
    """
    if len(rows) == 1 and "score" in rows[0].figures:
        return rows[0].said
    front = [f"{point['name']} ({shown.points(point['score'])} in {cost(point):.2f})" for point in pareto(points)]
    what = COST if is_cached(points) else PASSES
    return f"Pareto front, score in {what}: {'; '.join(front)}." if front else ""


def jobs_table(rows: Sequence[Row], keys: Sequence[str]) -> Table:
    """Return a table with a row for each configuration: what it was told, and its figures.

    Args:
        rows: The rows of the summary.
        keys: The settings in which the jobs differ, a column each.
    """
    named = [shown.named(row.figures) for row in rows]
    figures = list(dict.fromkeys(key for each in named for key in each))
    cells: list[list[Cell]] = [
        [row.name, *(row.overrides.get(key) for key in keys), *(each.get(key) for key in figures)]
        for row, each in zip(rows, named, strict=True)
    ]
    note = "Scores in points of 100." if "score" in figures else ""
    return Table("Jobs", ["job", *keys, *figures], cells, note)


def problem_tables(problems: Sequence[Problem]) -> list[Table]:
    """Return a table of what is not in the summary, if anything isn't."""
    cells = [[problem.name, problem.settings, problem.reason] for problem in problems]
    return [Table("Not in the summary", ["job", "settings", "why"], cells)] if problems else []


def point_of(row: Row, keys: Sequence[str]) -> dict[str, Any] | None:
    """Return a point of the picture; None for figures without a score and its cost.

    Args:
        row: A row of the summary.
        keys: The settings in which the jobs differ, which name the point.
    """
    if row.figures.get("score") is None or "forwards per item" not in row.figures:
        return None
    decoder = row.jobs[0].manifest["config"]["decoder"]
    return {
        "name": told(row.jobs[0], keys),
        "role": "",
        **{key: value for key, value in decoder.items() if key != "_target_"},
        "score": row.figures["score"],
        "ci_low": row.figures["ci_low"],
        "ci_high": row.figures["ci_high"],
        "forwards": row.figures["forwards per item"],
        "full_passes": row.figures.get("full-pass equivalents per item", row.figures["forwards per item"]),
    }
