"""Check that a run's results.json follows from what else the run left. Says OK, or names each figure that does not
follow.

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
import re
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from dlmlab.errors import UserError
from dlmlab.record.compare import mismatches
from dlmlab.record.files import plain, visible
from dlmlab.record.folder import DAMAGE, RESULTS, SAMPLES, read_manifest, read_results
from dlmlab.run import trust
from dlmlab.run.cli import one_line
from dlmlab.run.multirun import find_jobs, summarise
from dlmlab.run.rescore import Findings, Saved, check_samples
from dlmlab.sandbox import KINDS

ROOT = Path(__file__).resolve().parents[1]
ASKED = {"experiment", "title", "question", "labels", "settings"}
"""Keys of results.json that say what was asked; the others follow."""
UNCHECKED = 2
"""Exit status where nothing is known to be wrong, but not everything could be checked."""


Recompute = Callable[[Saved], dict[str, Any]]
"""A function of an experiment that computes a Report's fields from what a run left."""


def verify(folder: Path, sandbox: str = "bubblewrap") -> Findings:
    """Check a run, or a multirun and its jobs.

    Args:
        folder: The folder of the run or multirun.
        sandbox: What executes code that a model wrote: `bubblewrap` or `rlimit`.

    Raises:
        UserError: The run can't be checked at all.
    """
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
    """Check a run by itself.

    Args:
        folder: The run's folder.
        results: The content of its results.json.
        sandbox: What executes code that a model wrote.

    Raises:
        UserError: The run can't be checked at all; damage may lead to any other error.
    """
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
    """Check that the summary follows from the jobs, and check each job that was finished.

    Args:
        folder: The multirun's.
        results: What its results.json says.
        sandbox: The kind of sandbox in which code is scored again.
    """
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


def compare(recorded: dict[str, Any], report: dict[str, Any]) -> list[str]:
    """Return the figures of results.json that are not those of a report.

    Args:
        recorded: What results.json says.
        report: A report's fields, computed anew.
    """
    results = report.pop("results")
    found = json.loads(json.dumps(plain({**report, **results})))
    return list(mismatches({key: value for key, value in recorded.items() if key not in ASKED}, found))


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m dlmlab.verify", description="Compute a run's results again.")
    parser.add_argument("run", type=Path, help="folder of a run or multirun")
    parser.add_argument("--sandbox", choices=KINDS, default="bubblewrap", help="where functions run (%(default)s)")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))  # the experiments lie beside the package
    try:
        found = verify(options.run, options.sandbox)
    except (UserError, OSError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return UNCHECKED
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
