"""Wall time that stands still while this process does."""

from __future__ import annotations

import selectors
import time

_TICK = 0.25
"""Seconds after which a wait looks at the clock. What passes beyond twice that was a pause of the whole job: a laptop's
lid, SIGSTOP, a frozen container. It stopped the programs too, so it isn't counted against them."""


class Countdown:
    """Seconds that are left of a time limit."""

    def __init__(self, seconds: float) -> None:
        self.left = seconds

    def select(self, selector: selectors.BaseSelector) -> list[selectors.SelectorKey]:
        """Return what is ready, once something is; nothing when the time is over."""
        while self.left > 0:
            before = time.monotonic()
            ready = selector.select(min(self.left, _TICK))
            self.left -= min(time.monotonic() - before, 2 * _TICK)
            if ready:
                return [key for key, _ in ready]
        return []
