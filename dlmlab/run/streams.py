"""Standard output that never ends a run: its reader may go away, and its encoding may lack a character."""

from __future__ import annotations

import io
import os
import sys
from typing import Any

NOTICE = "the reader of standard output is gone: what would be printed is lost, all else is written"


class Steady:
    """A text stream that goes on without a reader, after one line on stderr."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._lost = stream, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write text; without a reader it is dropped."""
        try:
            self._stream.write(text)
        except BrokenPipeError:
            self._give_up()
        return len(text)

    def flush(self) -> None:
        """Write out what is buffered; without a reader it is dropped."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._give_up()

    def _give_up(self) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())  # or the buffer would fail once more when Python ends
        os.close(nowhere)
        if not self._lost:
            print(NOTICE, file=sys.stderr)
        self._lost = True


def steady() -> None:
    """Make this process's standard output steady."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    if not isinstance(sys.stdout, Steady):
        sys.stdout = Steady(sys.stdout)
