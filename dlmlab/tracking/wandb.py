"""Report the run to Weights & Biases: offline unless the user is logged in or asks otherwise.

W&B works in a process of its own, which is given up after a while: it can't ask, hang or fail the run. The run is there
from its beginning, and ends as failed or interrupted where it has no result. docs/wandb.md says what is logged.
"""

from __future__ import annotations

import contextlib
import json
import logging
import netrc
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated, Any, NoReturn
from urllib.parse import urlsplit

from dlmlab.record.files import plain
from dlmlab.record.folder import MANIFEST, MULTIRUN, RESULTS, SAMPLES
from dlmlab.record.report import RunRecord
from dlmlab.settings import Limits, PositiveInt, check_fields, one_of

log = logging.getLogger(__name__)

MODES = ("online", "offline", "shared", "disabled", "dryrun", "run")
"""Modes that W&B knows; the last two are its older words for offline and online."""
ROOT = Path(__file__).parents[2]
TAG_LENGTH = 64
"""Length of the longest tag that W&B takes, in characters."""
FAILED, INTERRUPTED = 1, 255
"""W&B's own exit codes for a run that raised an error, and one that was interrupted."""
OWN = {"name": "WANDB_NAME", "group": "WANDB_RUN_GROUP", "job_type": "WANDB_JOB_TYPE"}
"""Environment variables of W&B by argument of wandb.init; where one is set, it replaces the run's own value."""


@dataclass
class Wandb:
    """Follows a run from its beginning: config, summary, tables, pictures, charts; manifest and results as an artifact.

    All that W&B writes lies in the run's folder.

    Attributes:
        project: The project on W&B.
        entity: The user or team on W&B.
        mode: One of MODES; None is online where the user is logged in, else offline.
        timeout: Seconds that W&B has to begin, and to finish.
        samples: The most rows of the table of samples.

    Raises:
        UserError: A value is out of range.
    """

    project: str
    entity: str | None = None
    mode: Annotated[str, one_of(MODES)] | None = None
    timeout: Annotated[float, Limits(1, 10**6)] = 60.0
    samples: PositiveInt = 1000

    def __post_init__(self) -> None:
        check_fields(self, "tracking.wandb.")
        self._process: _Process | None = None
        self._given_up = False

    def begin(self, run: RunRecord) -> None:
        """Begin the run on W&B, or warn in one line and leave it."""
        mode = self.mode or ("online" if logged_in() else "offline")
        if mode == "disabled":
            self._given_up = True
            return
        with self._warning():
            self._process = _Process(run.folder.resolve() / "wandb", self.timeout)
            print(f"W&B: {self._process.ask({'init': self._init(run, mode)})}", flush=True)

    def log(self, run: RunRecord) -> None:
        """Log a finished run and end it, or warn in one line."""
        if self._process is None and not self._given_up:
            self.begin(run)
        if self._process is not None:
            with self._warning():
                self._process.finish(self._payload(run))
            self._process = None

    def end(self, error: BaseException | None) -> None:
        """End a run that began and has no result: as interrupted or failed."""
        if self._process is not None:
            with self._warning():
                self._process.finish({"exit_code": INTERRUPTED if isinstance(error, KeyboardInterrupt) else FAILED})
            self._process = None

    @contextlib.contextmanager
    def _warning(self) -> Iterator[None]:
        try:
            yield
        except _Failed as error:
            self._process, self._given_up = None, True
            log.warning("the run is not on W&B: %s", error)

    def _init(self, run: RunRecord, mode: str) -> dict[str, Any]:
        """Return the arguments of wandb.init."""
        folder = run.folder.resolve()
        init = {
            "project": self.project,
            "entity": self.entity,
            "mode": mode,
            "dir": folder,
            "name": f"{run.experiment} {folder.parent.name} {folder.name}",
            "group": _multirun(folder, run.labels) or run.labels.get("model"),
            "job_type": run.experiment,
            "tags": sorted({tag[:TAG_LENGTH] for tag in [*run.labels.values(), *_tags()] if tag}),
            "config": {**run.manifest["config"], "labels": run.labels},
        }
        return {key: value for key, value in init.items() if not os.environ.get(OWN.get(key, ""))}

    def _payload(self, run: RunRecord) -> dict[str, Any]:
        folder, report = run.folder.resolve(), run.report
        return {
            "summary": {**report.summary, "verdict": report.verdict},
            "tables": [{**plain(table), "title": table.title or report.title} for table in report.tables],
            "points": report.results.get("points", []),
            "pictures": [Path(picture).resolve() for picture in report.pictures],
            "samples": folder / SAMPLES,
            "most_samples": self.samples,
            "files": [folder / name for name in (MANIFEST, RESULTS)],
        }


def _multirun(folder: Path, labels: Mapping[str, str]) -> str | None:
    """Return the name of the multirun that a run is a job of, or the summary of; None where it is neither."""
    for each in (folder, folder.parent):
        if (each / MULTIRUN).exists():
            return f"{labels.get('sweep', 'multirun')} {each.parent.name} {each.name}"
    return None


def _tags() -> list[str]:
    return os.environ.get("WANDB_TAGS", "").split(",")


def logged_in() -> bool:
    """Return whether W&B would find credentials, in the environment or the user's .netrc, without asking."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).netloc
    try:
        file = netrc.netrc(os.environ.get("NETRC") or Path.home() / ".netrc")
    except (OSError, netrc.NetrcParseError):
        return False
    return file.hosts.get(host) is not None


class _Failed(Exception):
    """Says in a line why W&B can't have the run."""


class _Process:
    """Runs W&B in a process of its own: it answers one line when the run has begun, and ends with the run."""

    def __init__(self, home: Path, timeout: float):
        home.mkdir(exist_ok=True)
        self._timeout = timeout
        self._scratch = tempfile.TemporaryDirectory(prefix="dlmlab-", ignore_cleanup_errors=True)
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115 — it outlives this call, as the process does
        places = {"WANDB_DATA_DIR": str(home), "WANDB_CACHE_DIR": str(home), "TMPDIR": self._scratch.name}
        if sweep := os.environ.get("WANDB_SWEEP_PARAM_PATH"):
            places["WANDB_SWEEP_PARAM_PATH"] = os.path.abspath(sweep)  # an agent's may be relative
        self._process = subprocess.Popen(
            [sys.executable, "-m", "dlmlab.tracking.wandb_run"],
            cwd=ROOT,
            env={**os.environ, **places, "WANDB_SILENT": "true"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            start_new_session=True,  # out of reach of the terminal's Ctrl-C, which ends the run first
        )

    def ask(self, message: Mapping[str, Any]) -> str:
        """Send a message and wait for the answer. Raises _Failed where none comes."""
        self._send(message)
        answers: IO[str] = self._process.stdout  # type: ignore[assignment]
        try:
            ready, _, _ = select.select([answers], [], [], self._timeout)
        except BaseException:
            self._kill()
            raise
        if not ready:
            self._give_up()
        if not (answer := answers.readline().strip()):
            self._fail()
        return answer

    def finish(self, message: Mapping[str, Any]) -> None:
        """Send the last message and wait for the end. Ctrl-C is heeded the second time: W&B is nearly done."""
        self._send(message)
        try:
            try:
                status = self._process.wait(self._timeout)
            except KeyboardInterrupt:
                print("W&B is finishing the run; Ctrl-C again gives it up", file=sys.stderr)
                self._process.wait(self._timeout)
                raise
        except subprocess.TimeoutExpired:
            self._give_up()
        except BaseException:
            self._kill()
            raise
        if status:
            self._fail()
        self._close()

    def _send(self, message: Mapping[str, Any]) -> None:
        pipe: IO[str] = self._process.stdin  # type: ignore[assignment]
        with contextlib.suppress(BrokenPipeError):  # it has died, and the wait for it says why
            print(json.dumps(plain(message)), file=pipe, flush=True)

    def _give_up(self) -> NoReturn:
        self._kill()
        advice = "raise tracking.wandb.timeout or set tracking.wandb.mode=offline"
        raise _Failed(f"it took more than {self._timeout:g} s; {advice}")

    def _fail(self) -> NoReturn:
        self._process.wait()
        self._said.seek(0)
        said = self._said.read().strip().splitlines() or ["no reason given"]
        self._close()
        raise _Failed(said[-1])

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._close()

    def _close(self) -> None:
        self._process.communicate()
        self._said.close()
        self._scratch.cleanup()
