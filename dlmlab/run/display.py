"""How far a run is: a bar on a terminal, a plain line now and then elsewhere, and in run.log always."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from dlmlab.record.files import visible

DISPLAYS = ("auto", "rich", "plain", "none")
EVERY_SECONDS = 30.0
"""Between two plain lines."""

log = logging.getLogger(__name__)


class Bar:
    """Work of so many steps.

    Args:
        show: Called with the number of steps done and what is under way.
        say: Called with a plain line, now and then.

    Attributes:
        what: What is under way.
        total: Steps in all.
        done: Steps that are done.
    """

    def __init__(self, what: str, total: int, done: int, show: Callable[[int, str], None], say: Callable[[str], None]):
        self.what, self.total, self.done = what, total, done
        self._show, self._say = show, say
        self._first, self._begun = done, time.monotonic()
        self._said = self._begun
        self._show(done, what)

    def advance(self, what: str = "") -> None:
        """Count one more step as done.

        Args:
            what: What is under way, where that changes.
        """
        self.done, self.what = self.done + 1, what or self.what
        self._show(self.done, self.what)
        now = time.monotonic()
        if now - self._said >= EVERY_SECONDS and self.done < self.total:
            self._said = now
            each = (now - self._begun) / (self.done - self._first)
            left = each * (self.total - self.done)
            self._say(f"{self.what}: {self.done} of {self.total}, about {duration(left)} left")


@contextmanager
def bar(what: str, total: int, done: int = 0, display: str = "auto") -> Iterator[Bar]:
    """Show how far some work is while it goes on.

    Args:
        what: The work's name.
        total: Its steps.
        done: Steps that are done already.
        display: `rich` draws a bar on stderr, `plain` prints a line on stdout now and then, `none` shows nothing;
            `auto` draws where stderr is a terminal and prints where stdout is none.
    """
    drawn = display == "rich" or (display == "auto" and Console(stderr=True).is_terminal)
    printed = display == "plain" or (display == "auto" and not sys.stdout.isatty())

    def say(line: str) -> None:
        log.info(visible(line))
        if printed:
            print(visible(line), flush=True)

    def show(number: int, now: str) -> None:
        progress.update(shown, completed=number, description=visible(now))

    with bars(drawn) as progress:
        shown = progress.add_task(visible(what), total=total, completed=done)
        yield Bar(what, total, done, show, say)


def bars(drawn: bool) -> Progress:
    """Return bars with a count and the time left, on stderr, if they are drawn at all."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=Console(stderr=True), transient=True, disable=not drawn)


def duration(seconds: float) -> str:
    """Return a time as people say it."""
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if seconds < 90 else f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"
