"""How a run's log lines look: `warning: …` on the terminal; Hydra's time and place stand in run.log."""

from __future__ import annotations

import logging


class Line(logging.Formatter):
    """Formats a record as one line: its level in small letters, and the message."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return f"{record.levelname.lower()}: {' '.join(record.getMessage().split())}"
