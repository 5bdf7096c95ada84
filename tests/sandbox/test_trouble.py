"""What the sandbox itself fails by is tried again, and then named in one line with its own remedy."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import IO, Any

import psutil
import pytest

from dlmlab.errors import UserError
from dlmlab.sandbox import Sandbox, SandboxError, guests, launch, probe, trouble
from dlmlab.sandbox.guests import Containment, running
from dlmlab.sandbox.spawn import spawn
from tests.hostile_batch import REPOSITORY, RIGHT, left, run
from tests.test_sandbox import needs_bubblewrap

SCORER = """
import resource, sys
from dlmlab.errors import UserError
from dlmlab.sandbox import Sandbox, probe
test = "def check(solve):\\n    assert solve(1) == 2\\n"
def score(kind):
    try:
        probe(Sandbox(kind))
        print(Sandbox(kind).run("def solve(x): return x + 1", setup="", test=test, entry_point="solve").reason)
    except UserError as error:
        print(error)
"""


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trouble, "_PAUSES", (0.01, 0.01))


def script(*command: str, code: str, **options: Any) -> str:
    """What the scorer prints, with a line of code behind it; nothing may be on stderr."""
    words = [*command, sys.executable, "-c", SCORER + code]
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, **options)
    assert done.stderr == ""
    return done.stdout


def refusing(code: int, times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the system refuse to start a process, so many times."""
    calls = iter(range(times))

    def refused(*args: Any, **options: Any) -> Any:
        if next(calls, None) is not None:
            raise OSError(code, os.strerror(code))
        return spawn(*args, **options)

    monkeypatch.setattr(guests, "spawn", refused)


@pytest.mark.parametrize("code", [errno.EAGAIN, errno.EMFILE, errno.ENOMEM, errno.ENFILE])
def test_a_shortage_that_passes_costs_nothing(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    refusing(code, 2, monkeypatch)
    assert run(Sandbox("rlimit"), RIGHT).passed


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (errno.EAGAIN, r"raise the limit of processes \(`ulimit -u`"),
        (errno.EMFILE, r"raise the limit of open files \(`ulimit -n`, now \d+\)"),
        (errno.ENFILE, "fs.file-max"),
        (errno.ENOMEM, "short of memory"),
        (errno.ENOSPC, "make room on the disk"),
        (errno.EACCES, "install bubblewrap"),
    ],
)
def test_a_shortage_that_stays_names_its_remedy(code: int, remedy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    refusing(code, 1000, monkeypatch)
    with pytest.raises(SandboxError, match=f"sandbox=rlimit: {os.strerror(code)}; .*{remedy}") as raised:
        run(Sandbox("rlimit"), RIGHT)
    assert isinstance(raised.value, UserError)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("message", "remedy"),
    [
        ("bwrap: Creating new namespace failed: Resource temporarily unavailable", "ulimit -u"),
        ("bwrap: Creating new namespace failed: No space left on device", "user.max_user_namespaces"),
        ("bwrap: No permissions to create new namespace", "the right to make namespaces"),
    ],
)
def test_bubblewraps_own_complaint_names_the_remedy(message: str, remedy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["sh", "-c", f"echo '{message}' >&2; exit 1"]
    monkeypatch.setattr(launch, "bubblewrap_command", lambda *args: command)
    with pytest.raises(SandboxError, match=f"did not start: {message}; .*{remedy}"):
        run(Sandbox(), RIGHT)


def test_few_open_files_are_enough_and_too_few_are_named() -> None:
    limited = "resource.setrlimit(resource.RLIMIT_NOFILE, ({0}, {0})); score('rlimit')"
    assert script(code=limited.format(64)) == "passed\n"
    assert "raise the limit of open files (`ulimit -n`, now 12)" in script(code=limited.format(12))


def test_a_lower_limit_of_our_own_is_kept() -> None:
    limits = ("RLIMIT_NOFILE", 50), ("RLIMIT_FSIZE", 1 << 20), ("RLIMIT_CPU", 100), ("RLIMIT_CORE", 0)
    code = "".join(f"resource.setrlimit(resource.{name}, ({value}, {value})); " for name, value in limits)
    assert script(code=code + "score('rlimit')") == "passed\n"


def test_a_probe_without_a_file_to_spare_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", refused)
    with pytest.raises(UserError, match=r"sandbox=rlimit: .*Too many open files; raise the limit of open files"):
        probe(Sandbox("rlimit", memory_mb=333))


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="is about root")
@pytest.mark.parametrize("kind", ["rlimit", "bubblewrap"])
def test_root_as_the_one_user_that_there_is(kind: str) -> None:
    try:
        printed = script("unshare", "-Ur", code=f"score({kind!r})")
    except AssertionError as error:
        if "unshare: " in str(error):
            pytest.skip("no user namespaces here")
        raise
    assert printed == "passed\n" or "root can't become another user here" in printed
    assert printed.count("\n") == 1


@needs_bubblewrap
def test_an_interpreter_below_the_temporary_folder() -> None:
    binary = Path("/tmp/python/bin", Path(launch._interpreter()).name)
    outer = ["bwrap", "--dev-bind", "/", "/", "--tmpfs", "/tmp", "--ro-bind", sys.base_prefix, "/tmp/python"]
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{REPOSITORY}:{sysconfig.get_paths()['purelib']}",
        "LD_LIBRARY_PATH": "/tmp/python/lib",
    }
    code = SCORER + "assert sys.base_prefix == '/tmp/python'\nscore('bubblewrap')\nscore('rlimit')"
    done = subprocess.run([*outer, str(binary), "-c", code], env=environment, capture_output=True, text=True)
    if "AssertionError" in done.stderr or "bwrap: " in done.stderr:
        pytest.skip("this interpreter can't be moved")
    assert done.stdout == "passed\npassed\n", done.stderr


@pytest.mark.parametrize("kind", [pytest.param("bubblewrap", marks=needs_bubblewrap), "rlimit"])
def test_a_scorer_that_is_killed_takes_its_guests_along(kind: str) -> None:
    sandbox = Sandbox(kind, memory_mb=220 + os.getpid() % 70)
    program = "import time\ndef solve(x):\n    time.sleep(600)\n"
    call = f"{sandbox!r}.run({program!r}, setup='', test=test, entry_point='solve')"
    with subprocess.Popen([sys.executable, "-c", SCORER + call], cwd=REPOSITORY) as scorer:
        started = time.monotonic()
        while len(psutil.Process(scorer.pid).children(recursive=True)) < 2 and time.monotonic() < started + 30:
            time.sleep(0.01)
        time.sleep(0.5)
        scorer.kill()
    assert left(sandbox, f"none-{os.getpid()}") == []


@needs_bubblewrap
def test_a_namespace_is_ended_by_its_init() -> None:
    job = {"program": "import time\ntime.sleep(600)", "setup": "", "test": "def check(f): pass", "entry_point": "f"}
    with running(Containment("bubblewrap", Sandbox()._limits(), 1 << 20), job) as pair:
        assert pair.verdict.readline() == b"started\n"
        init = psutil.Process(pair.candidate.pid).children()[0].pid
        guests._kill_child(pair.judge.pid, told(init))  # another's child is let alone
        assert pair.candidate.poll() is None
        guests._kill_child(pair.candidate.pid, told(init))
        assert pair.candidate.wait(10) == 128 + signal.SIGKILL


def told(init: int) -> IO[bytes]:
    """A pipe as bubblewrap leaves it."""
    read, write = os.pipe()
    os.write(write, b'{"child-pid": %d}' % init)
    os.close(write)
    return os.fdopen(read, "rb", 0)


def test_a_process_is_started_with_a_keyring_of_its_own() -> None:
    code = (
        "import ctypes, platform; number = {'x86_64': 250, 'aarch64': 219}[platform.machine()]; "
        "print(ctypes.CDLL(None).syscall(number, 0, -3, 0))"
    )

    def keyring(start: Any) -> int:
        with start([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
            return int(process.stdout.read())

    rings = [keyring(subprocess.Popen), keyring(spawn), keyring(spawn)]
    if rings[0] < 0:
        pytest.skip("no keyrings here")
    assert len(set(rings)) == 3
    assert keyring(subprocess.Popen) == rings[0]
