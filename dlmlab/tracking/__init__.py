"""Report results: a file for each tracker. The run's own files come first, so that no tracker can lose them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from dlmlab import manifest
from dlmlab.record.files import free_space, write_json
from dlmlab.record.folder import RESULTS
from dlmlab.record.report import Cell, Follower, Report, RunRecord, Table, Tracker, results_of
from dlmlab.record.samples import count_samples
from dlmlab.tracking.table import write_table

log = logging.getLogger(__name__)

__all__ = ["Cell", "Report", "RunRecord", "Table", "Tracker", "following", "track"]


@contextmanager
def following(trackers: Iterable[Tracker], run: RunRecord) -> Iterator[None]:
    """Let the places that follow a run know that it begins, and at the end how it ended.

    A run that was reported meanwhile has ended already.

    Args:
        trackers: All places; some follow a run while it goes on.
        run: What is known of it; its report is empty.
    """
    followers = [tracker for tracker in trackers if isinstance(tracker, Follower)]
    error: BaseException | None = None
    try:
        for follower in followers:
            with warned(follower):
                follower.begin(run)
        yield
    except BaseException as raised:
        error = raised
        raise
    finally:
        for follower in followers:
            follower.end(error)


def track(trackers: Iterable[Tracker], run: RunRecord) -> None:
    """Write the run's manifest.json, results.json, table.md and table.tex, then report it everywhere.

    A place that can't be written costs one line on stderr; the others still get the run.

    Args:
        trackers: The places that it is reported to.
        run: The run, with its report.

    Raises:
        OSError: The run's own files can't be written; it is raised once every place has the run.
    """
    try:
        save(run)
    finally:
        for tracker in trackers:
            with warned(tracker):
                tracker.log(run)


@contextmanager
def warned(tracker: Tracker) -> Iterator[None]:
    """A place that can't be written costs one line on stderr."""
    try:
        yield
    except OSError as error:
        log.warning("%s tracking failed: %s%s", type(tracker).__name__.lower(), error, free_space(error))


def save(run: RunRecord) -> None:
    """Write manifest.json and results.json. Raises OSError where they can't be written."""
    manifest.save(run.folder, {**run.manifest, **count_samples(run.folder)})
    write_json(run.folder / RESULTS, results_of(run))
    write_table(run.folder, run.report)
