"""Write the run as a page for a browser: index.html in the run's folder, over it and the jobs below it."""

from __future__ import annotations

from dataclasses import dataclass

from dlmlab.page.render import write
from dlmlab.record.files import visible
from dlmlab.record.report import RunRecord


@dataclass(frozen=True)
class Page:
    """Writes the page, and says where it is."""

    def log(self, run: RunRecord) -> None:
        """Write the page."""
        print(f"page: {visible(str(write(run.folder)))}")
