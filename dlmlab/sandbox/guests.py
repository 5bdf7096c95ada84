"""The two running guests: how they are started, joined by pipes, and ended with all that they have started."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import selectors
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

import psutil

from dlmlab.sandbox import launch, syscalls
from dlmlab.sandbox.clock import Countdown
from dlmlab.sandbox.spawn import spawn

MARK = "DLMLAB_SANDBOX"
"""The environment variable by which processes that have left a guest's group are found again."""
_EXIT_SECONDS = 2.0


class Guests(NamedTuple):
    """The judge, the candidate, and the pipes that they write to: the judge its verdict, both their output."""

    judge: subprocess.Popen[bytes]
    candidate: subprocess.Popen[bytes]
    verdict: IO[bytes]
    output: IO[bytes]


class Containment(NamedTuple):
    """What holds a guest: a kind of sandbox, resource limits by name, and the bytes of its /tmp."""

    kind: str
    limits: dict[str, int]
    tmp_bytes: int


class _Streams(NamedTuple):
    """A guest's standard streams, and what else it is handed."""

    stdin: IO[bytes]
    stdout: IO[bytes]
    stderr: IO[bytes]
    others: tuple[IO[bytes], ...] = ()


@contextlib.contextmanager
def running(containment: Containment, job: dict[str, str]) -> Iterator[Guests]:
    """Run a judge and a candidate, joined by two pipes that nobody else holds; both are gone afterwards.

    Args:
        containment: How the two are kept apart from all else.
        job: The program, its setup, test and entry point.
    """
    with contextlib.ExitStack() as stack:
        calls_out, calls_in = _pipe(stack)
        answers_out, answers_in = _pipe(stack)
        verdict_out, verdict_in = _pipe(stack)
        output_out, output_in = _pipe(stack)
        stack.callback(_drain, output_out)
        stack.callback(output_in.close)
        task = _memory(stack, json.dumps(job).encode())
        judge_role = {"name": "judge", "requests": calls_in.fileno(), "answers": answers_out.fileno()}
        ends = _Streams(task, verdict_in, output_in, (calls_in, answers_out))
        judge = _start(stack, containment, judge_role, ends)
        role = {"name": "candidate", "alone": containment.kind == "bubblewrap"}
        candidate = _start(stack, containment, role, _Streams(calls_out, answers_in, output_in))
        for end in (task, calls_out, calls_in, answers_out, answers_in, verdict_in, output_in):
            end.close()
        yield Guests(judge, candidate, verdict_out, output_out)


def exit_status(process: subprocess.Popen[bytes]) -> int | None:
    """The exit status of a guest that has closed its pipes, negative for a signal; None while it still runs."""
    try:
        status = process.wait(_EXIT_SECONDS)
    except subprocess.TimeoutExpired:
        return None
    return 128 - status if status > 128 else status  # bubblewrap reports a signal as a shell does


def _start(
    stack: contextlib.ExitStack, containment: Containment, role: dict[str, Any], streams: _Streams
) -> subprocess.Popen[bytes]:
    uid = launch.fresh_uid(containment.kind)
    role = {**role, "limits": containment.limits, "uid": uid}
    options: dict[str, Any] = {"env": {}, "cwd": "/", "start_new_session": True}
    others = streams.others
    info: IO[bytes] | None = None
    if containment.kind == "bubblewrap":
        info, info_in = _pipe(stack)
        rules = _memory(stack, syscalls.program())
        others = (*others, info_in, rules)
        command = launch.bubblewrap_command(role, containment.tmp_bytes, info_in.fileno(), rules.fileno())
    else:
        command = launch.rlimit_command(role)
        mark = secrets.token_hex(16)
        stack.callback(_sweep, mark)
        folder = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        if uid is not None:
            os.chown(folder, uid, uid)
        options |= {"env": {MARK: mark, **launch.library_path()}, "cwd": folder}
    stdin, stdout, stderr, _ = streams
    passed = [file.fileno() for file in others]
    process = spawn(command, stdin=stdin, stdout=stdout, stderr=stderr, pass_fds=passed, **options)
    stack.callback(_end, process, info)
    if info is not None:
        info_in.close()
        rules.close()
    return process


def _pipe(stack: contextlib.ExitStack) -> tuple[IO[bytes], IO[bytes]]:
    read, write = os.pipe()
    return stack.enter_context(open(read, "rb", 0)), stack.enter_context(open(write, "wb", 0))


def _memory(stack: contextlib.ExitStack, data: bytes) -> IO[bytes]:
    """A file of this content that lies in no folder."""
    file: IO[bytes] = stack.enter_context(os.fdopen(os.memfd_create("sandbox"), "w+b", 0))
    while data:
        data = data[file.write(data) :]
    file.seek(0)
    return file


def _end(process: subprocess.Popen[bytes], info: IO[bytes] | None) -> None:
    """Kill a guest's namespace by its init, so that it ends whatever was done to that, and then the guest's group."""
    if info is not None and process.poll() is None:
        _kill_child(process.pid, info)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _kill_child(bubblewrap: int, info: IO[bytes]) -> None:
    """Kill the namespace's init, of which bubblewrap told the process id (`--info-fd`), if it still is that process."""
    os.set_blocking(info.fileno(), False)
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, psutil.Error):
        init = json.loads(info.read(4096))["child-pid"]
        handle = os.pidfd_open(init)
        try:
            if psutil.Process(init).ppid() == bubblewrap:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        finally:
            os.close(handle)


def _drain(output: IO[bytes]) -> None:
    """Wait until the killed processes are really gone, which closes the pipe that they share."""
    countdown = Countdown(_EXIT_SECONDS)
    with selectors.DefaultSelector() as selector:
        selector.register(output, selectors.EVENT_READ)
        while countdown.select(selector):
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
