"""The run on Weights & Biases: offline unless the user is logged in or asks otherwise, and never at the run's expense.

W&B works in a process of its own, which is given up after a while: it can't ask, hang or fail the run.
"""

from __future__ import annotations

import json
import netrc
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from dlmlab.files import plain
from dlmlab.kinds import Limits, check_fields, one_of
from dlmlab.manifest import NAME as MANIFEST
from dlmlab.tracking.record import RESULTS, RunRecord

MODES = ("online", "offline", "disabled")
ROOT = Path(__file__).parents[2]
TAG_LENGTH = 64
"""The longest tag that W&B takes."""


@dataclass(frozen=True)
class Wandb:
    """Logs a run: config, summary, tables, pictures, and its manifest and results as an artifact.

    project, entity: as on W&B. mode: online, offline or disabled; None leaves it to WANDB_MODE, then to whether the
    user is logged in. timeout: seconds. All that W&B writes lies in the run's folder.
    Raises UserError for a value out of range.
    """

    project: str
    entity: str | None = None
    mode: Annotated[str, one_of(MODES)] | None = None
    timeout: Annotated[float, Limits(1, 10**6)] = 60.0

    def __post_init__(self) -> None:
        check_fields(self, "tracking.wandb.")

    def log(self, run: RunRecord) -> None:
        """Log the run, or warn in one line."""
        mode = self.mode or os.environ.get("WANDB_MODE") or ("online" if logged_in() else "offline")
        if mode == "disabled":
            return
        folder = run.folder.resolve()
        said, failed = _in_process(json.dumps(self._payload(run, folder, mode)), folder / "wandb", self.timeout)
        if failed:
            print(f"warning: the run is not on W&B: {said}", file=sys.stderr)
        else:
            print(f"W&B: {said}")

    def _payload(self, run: RunRecord, folder: Path, mode: str) -> dict[str, Any]:
        init = {
            "project": self.project,
            "entity": self.entity,
            "mode": mode,
            "dir": folder,
            "name": f"{run.experiment} {folder.parent.name} {folder.name}",
            "group": run.labels.get("model"),
            "job_type": run.experiment,
            "tags": sorted({choice[:TAG_LENGTH] for choice in run.labels.values() if choice}),
            "config": run.manifest["config"],
        }
        report = run.report
        payload = {
            "init": init,
            "summary": report.summary,
            "tables": [{**plain(table), "title": table.title or report.title} for table in report.tables],
            "pictures": [Path(picture).resolve() for picture in report.pictures],
            "files": [folder / name for name in (MANIFEST, RESULTS)],
        }
        clean: dict[str, Any] = plain(payload)
        return clean


def logged_in() -> bool:
    """Whether W&B would find credentials, in the environment or the user's .netrc, without asking."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).netloc
    try:
        file = netrc.netrc(os.environ.get("NETRC") or Path.home() / ".netrc")
    except (OSError, netrc.NetrcParseError):
        return False
    return file.hosts.get(host) is not None


def _in_process(payload: str, home: Path, timeout: float) -> tuple[str, bool]:
    """Run `_upload` apart. What it said last, and whether it failed or was given up."""
    home.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="dlmlab-", ignore_cleanup_errors=True) as scratch:
        places = {"WANDB_DATA_DIR": str(home), "WANDB_CACHE_DIR": str(home), "TMPDIR": scratch}
        process = subprocess.Popen(
            [sys.executable, "-m", "dlmlab.tracking.wandb"],
            cwd=ROOT,
            env={**os.environ, **places, "WANDB_SILENT": "true"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            out, err = process.communicate(payload, timeout=timeout)
        except subprocess.TimeoutExpired:
            _kill(process)
            advice = "raise tracking.wandb.timeout or set tracking.wandb.mode=offline"
            return f"it took more than {timeout:g} s; {advice}", True
        except BaseException:
            _kill(process)
            raise
    said = (err if process.returncode else out).strip().splitlines() or ["no reason given"]
    return said[-1], process.returncode != 0


def _kill(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def _upload(payload: dict[str, Any]) -> str:
    import wandb

    settings = wandb.Settings(console="off", silent=True, disable_git=True, disable_code=True)
    with wandb.init(**payload["init"], settings=settings) as run:
        run.summary.update(payload["summary"])
        tables = {
            table["title"]: wandb.Table(columns=table["columns"], data=table["rows"], allow_mixed_types=True)
            for table in payload["tables"]
        }
        pictures = {f"pictures/{Path(picture).stem}": wandb.Image(picture) for picture in payload["pictures"]}
        run.log(tables | pictures)
        artifact = wandb.Artifact(f"run-{run.id}", type="results")
        for file in payload["files"]:
            artifact.add_file(file)
        run.log_artifact(artifact)
        return run.url or f"offline; to upload: wandb sync {Path(run.dir).parent}"


def main() -> int:
    """Log the run that stdin describes. One line on stdout says where, or one on stderr why not."""
    try:
        print(_upload(json.load(sys.stdin)))
    except Exception as error:
        print(f"{type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
