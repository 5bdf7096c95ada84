"""How a run's log lines look: `warning: …` on the terminal; with their time and place in run.log."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def borrowed() -> Iterator[None]:
    """Let Hydra set up logging for a command; what was there before comes back."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        yield
    finally:
        for handler in set(root.handlers) - set(handlers):
            root.removeHandler(handler)
            handler.close()
        root.handlers[:] = handlers
        root.setLevel(level)


class Line(logging.Formatter):
    """Formats a record as one line: its level in small letters, and the message."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return f"{record.levelname.lower()}: {' '.join(record.getMessage().split())}"


class Console(logging.Handler):
    """Writes to whatever standard error is now, but for what a library's own handler has written there."""

    def __init__(self, stream: Any = None) -> None:
        super().__init__()  # Hydra names standard output, which is the run's

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line."""
        if not shown(record):
            print(self.format(record), file=sys.stderr)


def shown(record: logging.LogRecord) -> bool:
    """Return whether a logger on the way from the record's to the root has a handler for the terminal of its own."""
    logger: logging.Logger | None = logging.getLogger(record.name)
    while logger is not None and logger.parent is not None:
        if any(isinstance(each, logging.StreamHandler) for each in logger.handlers):
            return True
        logger = logger.parent
    return False
