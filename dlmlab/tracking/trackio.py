"""The run on trackio: W&B's interface on a local SQLite file, without an account. `trackio show` opens its dashboard.

It is written when the run has ended, in a process of its own that is given up after a while, and never at the run's
expense. `pip install 'dlmlab[trackio]'`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Annotated

from dlmlab.paths import home
from dlmlab.record.files import plain
from dlmlab.record.report import RunRecord
from dlmlab.settings import Limits, check_fields


@dataclass(frozen=True)
class Trackio:
    """Writes a finished run: config, summary, tables.

    Attributes:
        project: The project as trackio calls it.
        folder: Where its files lie; None is $TRACKIO_DIR, else outputs/trackio.
        timeout: Seconds that writing may take.

    Raises:
        UserError: A value is out of range.
    """

    project: str
    folder: str | None = None
    timeout: Annotated[float, Limits(1, 10**6)] = 60.0

    def __post_init__(self) -> None:
        check_fields(self, "tracking.trackio.")

    def log(self, run: RunRecord) -> None:
        """Write the run, or warn in one line."""
        folder = self.folder or os.environ.get("TRACKIO_DIR") or str(home() / "outputs" / "trackio")
        try:
            done = subprocess.run(
                [sys.executable, "-m", "dlmlab.tracking.trackio_run"],
                input=json.dumps(plain(self._payload(run))),
                env={**os.environ, "TRACKIO_DIR": folder, "HF_HUB_OFFLINE": "1"},
                capture_output=True,
                text=True,
                timeout=self.timeout,
            )
            said = done.stderr.strip().splitlines()[-1:] if done.returncode else []
        except subprocess.TimeoutExpired:
            said = [f"it took more than {self.timeout:g} s; raise tracking.trackio.timeout"]
        if said:
            print(f"warning: the run is not on trackio: {said[0]}", file=sys.stderr)
        else:
            print(f"trackio: {folder}; trackio show --project {self.project}")

    def _payload(self, run: RunRecord) -> dict[str, object]:
        report = run.report
        return {
            "project": self.project,
            "name": f"{run.experiment} {run.folder.resolve().parent.name} {run.folder.resolve().name}",
            "config": {key.lstrip("_"): each for key, each in run.manifest["config"].items()},  # _… is trackio's own
            "summary": {**report.summary, "verdict": report.verdict},
            "tables": [{**plain(table), "title": table.title or report.title} for table in report.tables],
        }
