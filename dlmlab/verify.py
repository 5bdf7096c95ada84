"""Does a run's results.json follow from what else it left? Says OK, or names each figure that does not follow.

    python -m dlmlab.verify outputs/2026-11-24/21-30-00-000000

Answers are scored again by the task, texts decoded again from their tokens, and every figure, interval, verdict and
table computed again by the experiment's own code: from samples.jsonl, or from the timings that throughput keeps. What
only the machine could tell, such as a rate, is taken as recorded. No model is loaded, nothing that a run names is
imported but dlmlab's own tasks and decoders, and code that a model wrote runs in the sandbox alone. Exit status 0 where
all follows, 1 where something does not, 2 where something could not be checked, which is said.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dlmlab import manifest
from dlmlab.errors import UserError
from dlmlab.generation import answer_text
from dlmlab.model import checkpoint
from dlmlab.record.files import plain, visible
from dlmlab.record.folder import DAMAGE, MANIFEST, RESULTS, SAMPLES, read_manifest, read_results
from dlmlab.record.samples import Sample, lost_samples
from dlmlab.run import build, trust
from dlmlab.run.cli import one_line
from dlmlab.run.multirun import Job, find_jobs, summarise
from dlmlab.sandbox import KINDS
from dlmlab.task.base import Task, score_answer

ROOT = Path(__file__).resolve().parents[1]
ASKED = {"experiment", "title", "question", "labels", "settings"}
"""Keys of results.json that say what was asked; the others follow."""
RELATIVE = 1e-9
"""By how much a figure may differ, since another numpy may add in another order."""
MOST_TOKENS = 2**31
"""Above all token ids."""
UNCHECKED = 2
"""Exit status where nothing is wrong, but not everything could be checked."""


@dataclass(frozen=True)
class Saved:
    """What a finished run left. samples: of all tasks and decoders. model: all that is known of it without weights.

    Raises UserError for what is missing, damaged or older than the manifest's present form.
    """

    folder: Path
    results: dict[str, Any]
    manifest: dict[str, Any]

    @cached_property
    def cfg(self) -> DictConfig:
        return trust.plain_config(self.manifest["config"])

    @cached_property
    def samples(self) -> list[Sample]:
        try:
            return Job(self.folder, self.folder.name).samples
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"{self.folder / SAMPLES} cannot be read ({one_line(error)})") from error

    @cached_property
    def model(self) -> SimpleNamespace:
        ends = (self.manifest["model"] or {}).get("end_token_ids")
        if ends is None:
            raise UserError(f"{self.folder / MANIFEST} is of an older dlmlab, without end_token_ids: run it again")
        return SimpleNamespace(end_token_ids=tuple(ends))

    def of(self, task: str, decoder: str) -> list[Sample]:
        """One decoder's samples of a task, in order. Raises UserError where there are none."""
        own = [each for each in self.samples if (each.task, each.decoder) == (task, decoder)]
        if not own:
            raise UserError(f"{self.folder / SAMPLES} has no sample of {task} by {decoder}")
        return sorted(own, key=lambda each: each.index)


Recompute = Callable[[Saved], dict[str, Any]]
"""Of an experiment: computes a Report's fields from what a run left."""


@dataclass
class Findings:
    """problems: what does not follow. unchecked: what could not be asked, and why."""

    problems: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)


def verify(folder: Path, sandbox: str = "bubblewrap") -> Findings:
    """Check a run, or a multirun and its jobs. Raises UserError for one that can't be checked at all."""
    try:
        results = read_results(folder)
        if results["experiment"] == "multirun":
            return verify_multirun(folder, results, sandbox)
        return verify_run(folder, results, sandbox)
    except UserError:
        raise
    except (*DAMAGE, OmegaConfBaseException, HydraException) as error:
        reason = one_line(error)
        raise UserError(
            f"{folder} is damaged, or of another version of dlmlab ({type(error).__name__}: {reason}): run it again"
        ) from error


def verify_run(folder: Path, results: dict[str, Any], sandbox: str) -> Findings:
    """Check a run by itself. Raises UserError for one that can't be checked at all, or whatever damage leads to."""
    saved = Saved(folder, results, read_manifest(folder))
    found = Findings()
    recompute = recompute_of(results["experiment"])
    if saved.cfg.get("decoder"):
        trust.check_part("decoder", saved.cfg.decoder)
    if (folder / SAMPLES).exists():
        trust.check_grid(saved.cfg, most=len({each.decoder for each in saved.samples}))
        check_samples(saved, sandbox, found)
    report = recompute(saved)
    found.problems += compare(results, report)
    return found


def verify_multirun(folder: Path, results: dict[str, Any], sandbox: str) -> Findings:
    """Check that the summary follows from the jobs, and each job that was finished."""
    record, _ = summarise(folder)
    if record is None:
        return Findings([f"{RESULTS} tells of jobs, but none is finished"])
    report = record.report
    found = Findings(
        compare(results, {key: getattr(report, key) for key in ("tables", "verdict", "results", "summary")})
    )
    for job in find_jobs(folder):
        if job.done:
            own = verify_run(job.folder, read_results(job.folder), sandbox)
            found.problems += [f"job {job.name}: {each}" for each in own.problems]
            found.unchecked += [f"job {job.name}: {each}" for each in own.unchecked]
    return found


def recompute_of(name: str) -> Recompute:
    """Return how the results of one of experiments/ follow from what it left.

    Raises:
        UserError: there is no such experiment, or it doesn't say.
    """
    places = (ROOT / "experiments" / f"{name}.py", ROOT / "experiments" / name / "__init__.py")
    if not re.fullmatch(r"\w+", name) or not any(place.exists() for place in places):
        raise UserError(f"experiment={name} is none of experiments/")
    recompute: Recompute | None = getattr(import_module(f"experiments.{name}"), "recompute", None)
    if recompute is None:
        raise UserError(
            f"experiment={name} leaves nothing from which its results could be computed again: no `recompute`"
        )
    return recompute


def check_samples(saved: Saved, sandbox: str, found: Findings) -> None:
    """Whether each sample is in itself what it says: its text, its forward passes, its score."""
    if lost := lost_samples(saved.folder, saved.manifest):
        found.problems.append(lost)
    times = Counter((each.task, each.decoder, each.index) for each in saved.samples)
    found.problems += [
        f"{at(each)} is there twice" for each in saved.samples if times[each.task, each.decoder, each.index] > 1
    ]
    for sample in saved.samples:
        if len(sample.step_of) != len(sample.tokens) or sample.forwards != max(sample.step_of, default=-1) + 1:
            found.problems.append(f"{at(sample)}: its steps are not those of {sample.forwards} forward passes")
    check_texts(saved, found)
    for name in dict.fromkeys(each.task for each in saved.samples):
        try:
            task = scorer(saved, name, sandbox)
        except (UserError, OSError) as error:
            found.unchecked.append(f"scores of {name}: {one_line(error)}")
        else:
            found.problems += score_again(task, [each for each in saved.samples if each.task == name])


def check_texts(saved: Saved, found: Findings) -> None:
    """Whether texts are those of their tokens, by the checkpoint's tokenizer."""
    try:
        folder = checkpoint.find(saved.cfg.model.path, saved.cfg.model.revision, checkpoint.SMALL_FILES, offline=True)
        tokenizer = checkpoint.read_tokenizer(folder)
    except UserError as error:
        found.unchecked.append(f"texts: {one_line(error)}")
        return
    if manifest.tokenizer_fingerprint(tokenizer) != saved.manifest["model"]["tokenizer"]:
        found.unchecked.append(f"texts: the tokenizer of {saved.cfg.model.path} is another one now")
        return
    model = SimpleNamespace(tokenizer=tokenizer, end_token_ids=saved.model.end_token_ids)
    found.problems += [
        f"{at(each)}: its text is not that of its tokens"
        for each in saved.samples
        if not all(0 <= token < MOST_TOKENS for token in each.tokens)
        or each.text != (answer_text(model, each.tokens) or "")
    ]


def scorer(saved: Saved, name: str, sandbox: str) -> Task:
    """The task that scored the samples, whole.

    Raises UserError where it can't be had, is none of dlmlab's, or its data have changed.
    """
    base = name.partition("@")[0]  # of a task in a template: `gsm8k@brief`
    cfg = saved.cfg.copy()
    trust.check_part("sandbox", cfg.sandbox)
    if cfg.task.get("name") == base:
        trust.check_part("task", cfg.task)
    elif base not in build.options("task"):
        raise UserError(f"{name!r} is no task of dlmlab")
    else:
        trust.check_overrides(cfg.task, build.TASK_OVERRIDES)
    for part in (cfg, cfg.task):
        if OmegaConf.is_config(part.get("sandbox")):
            part.sandbox.kind = sandbox
    task = build.task(cfg, name, limit=None, shard=0, num_shards=1)
    recorded = saved.manifest["data"].get(name)
    if recorded != (now := manifest.describe_data([task])[name]):
        raise UserError(f"its items or scoring are other ones now ({recorded} then, {now} now)")
    return task


def score_again(task: Task, samples: Sequence[Sample]) -> Iterator[str]:
    """What is different about the samples when the task scores them once more."""
    items = task.items()
    known = [
        each
        for each in samples
        if each.index < len(items) and (items[each.index].id, items[each.index].prompt) == (each.id, each.prompt)
    ]
    yield from (f"{at(each)}: no such item in the task" for each in samples if each not in known)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        answers = {(each.index, each.text): None for each in known}
        scores = dict(
            zip(answers, pool.map(lambda key: score_answer(task, items[key[0]], key[1]), answers), strict=True)
        )
    for each in known:
        score = scores[each.index, each.text]
        now = (score.value, score.reason, dict(score.variants)) if score else (None, "", {})
        if now != (recorded := (each.score, each.reason, each.variants)):
            yield f"{at(each)}: scored {now}, not {recorded}"


def at(sample: Sample) -> str:
    """A sample's name."""
    return f"sample {sample.id} of {sample.task} by {sample.decoder}"


def compare(recorded: dict[str, Any], report: dict[str, Any]) -> list[str]:
    """The figures of results.json that are not those of a report."""
    results = report.pop("results")
    found = json.loads(json.dumps(plain({**report, **results})))
    return list(mismatches({key: value for key, value in recorded.items() if key not in ASKED}, found))


def mismatches(recorded: Any, found: Any, key: str = "") -> Iterator[str]:
    """Where two JSON values differ, and how."""
    if isinstance(recorded, dict) and isinstance(found, dict):
        for name in dict.fromkeys([*recorded, *found]):
            yield from mismatches(recorded.get(name), found.get(name), f"{key}.{name}" if key else name)
    elif isinstance(recorded, list) and isinstance(found, list) and len(recorded) == len(found):
        for place, (one, other) in enumerate(zip(recorded, found, strict=True)):
            yield from mismatches(one, other, f"{key}[{place}]")
    elif not same(recorded, found):
        yield f"{key}: {json.dumps(found, ensure_ascii=False)} follows, not {json.dumps(recorded, ensure_ascii=False)}"


def same(recorded: Any, found: Any) -> bool:
    """Whether two JSON values are equal, floats nearly so."""
    if isinstance(recorded, float) and isinstance(found, int | float):
        return math.isclose(recorded, found, rel_tol=RELATIVE, abs_tol=RELATIVE)
    return type(recorded) is type(found) and bool(recorded == found)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m dlmlab.verify", description="Compute a run's results again.")
    parser.add_argument("run", type=Path, help="folder of a run or multirun")
    parser.add_argument("--sandbox", choices=KINDS, default="bubblewrap", help="where functions run (%(default)s)")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))  # the experiments lie beside the package
    try:
        found = verify(options.run, options.sandbox)
    except (UserError, OSError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 1
    for each in found.unchecked:
        print(visible(f"not checked: {each}"))
    for each in found.problems:
        print(visible(f"does not follow: {each}"))
    if found.problems:
        return 1
    what = "what was checked of" if found.unchecked else "OK:"
    print(visible(f"{what} {options.run / RESULTS} follows"))
    return UNCHECKED if found.unchecked else 0


if __name__ == "__main__":
    sys.exit(main())
