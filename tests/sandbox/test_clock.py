"""A pause of the whole job is nobody's time-out."""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
import time

import psutil
import pytest

from dlmlab.sandbox.clock import Countdown

SCORER = """
from dlmlab.sandbox import Sandbox
program = "import time\\ndef solve(x):\\n    time.sleep(0.5)\\n    return x + 1\\n"
test = "def check(solve):\\n    assert solve(1) == 2\\n"
print("ready", flush=True)
print(Sandbox("rlimit", wall_seconds=1.5).run(program, setup="", test=test, entry_point="solve").reason)
"""


class Asleep(selectors.BaseSelector):
    """Nothing is ever ready, and each wait takes as long as `takes` says."""

    def __init__(self, takes: list[float]) -> None:
        self.takes, self.now = takes, 0.0

    def select(self, timeout: float | None = None) -> list[object]:  # type: ignore[override]
        self.now += self.takes.pop(0) if self.takes else timeout or 0.0
        return []

    register = unregister = get_map = None  # type: ignore[assignment]


def test_a_long_tick_was_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    selector = Asleep([17.0, 0.4])
    monkeypatch.setattr(time, "monotonic", lambda: selector.now)
    assert Countdown(2.0).select(selector) == []
    assert 17.0 + 1.4 < selector.now < 17.0 + 2.0  # the pause counts as half a second


def test_a_job_that_was_stopped_goes_on_where_it_was() -> None:
    with subprocess.Popen([sys.executable, "-c", SCORER], stdout=subprocess.PIPE, text=True) as scorer:
        assert scorer.stdout
        assert scorer.stdout.readline() == "ready\n"
        deadline = time.monotonic() + 30
        while len(guests := psutil.Process(scorer.pid).children(recursive=True)) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        stopped = [psutil.Process(scorer.pid), *guests]
        for process in stopped:
            process.suspend()
        time.sleep(3)
        for process in stopped:
            process.resume()
        assert scorer.stdout.read() == "passed\n"
    assert os.waitstatus_to_exitcode(scorer.returncode) == 0
