"""Programs that misbehave are contained, fail, leave nothing behind, and disturb nobody else's verdict."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from dlmlab.errors import UserError
from dlmlab.sandbox import REASONS, Sandbox, SandboxError, Verdict, launch, probe
from dlmlab.sandbox.guest import Foreign, decode, encode

HOSTILE = sorted((Path(__file__).parent / "hostile").glob("*.txt"))
REPOSITORY = Path(__file__).parents[1]
TEST = "def check(candidate):\n    for x in (1, 5, 0):\n        assert candidate(x) == x + 1\n"
RIGHT = "def solve(x):\n    return x + 1\n"
SECRET = f"dlmlab-hostile-{secrets.token_hex(8)}"


def _bubblewrap_works() -> bool:
    command = ["bwrap", "--unshare-all", "--ro-bind", "/", "/", "true"]
    return bool(shutil.which("bwrap")) and subprocess.run(command, capture_output=True).returncode == 0


needs_bubblewrap = pytest.mark.skipif(not _bubblewrap_works(), reason="bubblewrap is not installed, or may not run")
KINDS = [pytest.param("bubblewrap", marks=needs_bubblewrap), "rlimit"]


def run(sandbox: Sandbox, program: str, test: str = TEST, setup: str = "", entry_point: str = "solve") -> Verdict:
    return sandbox.run(program, setup=setup, test=test, entry_point=entry_point)


def filled(path: Path, values: dict[str, str]) -> str:
    program = path.read_text()
    for name, value in values.items():
        program = program.replace(f"@{name}@", value)
    return program


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Verdict]:
    """All hostile programs, several at once, each beside one that is right."""
    home = tmp_path_factory.mktemp("home")
    (home / SECRET).write_text("secret")
    # The limits tell these guests apart from those of anybody else on this machine.
    strict = Sandbox(cpu_seconds=1, wall_seconds=4.0, memory_mb=300 + os.getpid() % 100, processes=6)
    with (
        socket.create_server(("0.0.0.0", 0)) as server,
        socket.socket(socket.AF_UNIX) as unix,
        pytest.MonkeyPatch.context() as patch,
        ThreadPoolExecutor(4) as pool,
    ):
        unix.bind(f"\0{SECRET}")
        unix.listen()
        patch.setenv("HOME", str(home))
        patch.setenv("DLMLAB_HOSTILE", SECRET)
        values = {
            "HOME": str(home),
            "REPOSITORY": str(REPOSITORY),
            "SECRET": SECRET,
            "PID": str(os.getpid()),
            "PORT": str(server.getsockname()[1]),
            "ADDRESS": socket.gethostbyname(socket.gethostname()),
            "NUL": "\0",
            "DEEP": "(" * 100_000,
        }
        runs = {path.stem: pool.submit(run, strict, filled(path, values)) for path in HOSTILE}
        neighbours = [pool.submit(run, replace(strict, wall_seconds=60.0), RIGHT) for _ in HOSTILE]
        verdicts = {name: future.result() for name, future in runs.items()}
        verdicts |= {f"neighbour {number}": future.result() for number, future in enumerate(neighbours)}
    limit = f'"RLIMIT_AS": {strict.memory_mb << 20}'
    verdicts["left"] = Verdict(not _left(limit), "left", ", ".join(_left(limit)))
    return verdicts


def _left(limit: str) -> list[str]:
    """Processes of the batch that run, and files that carry its name."""
    deadline = time.monotonic() + 10
    found = ["?"]
    while found and time.monotonic() < deadline:
        found = [
            f"process {process.pid}"
            for process in psutil.process_iter(["cmdline", "status"])
            if process.info["status"] != psutil.STATUS_ZOMBIE
            and any(limit in word or word == SECRET for word in process.info["cmdline"] or [])
        ]
    folders = {"/", "/dev/shm", "/var/tmp", "/usr/lib", "/etc", "/tmp", tempfile.gettempdir(), str(REPOSITORY), "."}
    for folder in filter(os.path.isdir, folders):
        found += [name for name in os.listdir(folder) if SECRET in name]
    return found


@needs_bubblewrap
@pytest.mark.parametrize("path", HOSTILE, ids=lambda path: path.stem)
def test_hostile_program_fails_for_the_reason_it_names(batch: dict[str, Verdict], path: Path) -> None:
    allowed = path.read_text().splitlines()[0].removeprefix("# reason: ").split("|")
    assert set(allowed) <= set(REASONS) - {"passed"}
    assert not batch[path.stem].passed
    assert batch[path.stem].reason in allowed, batch[path.stem]


@needs_bubblewrap
def test_neighbours_of_hostile_programs_pass(batch: dict[str, Verdict]) -> None:
    neighbours = [verdict for name, verdict in batch.items() if name.startswith("neighbour")]
    assert len(neighbours) == len(HOSTILE) >= 40
    assert set(neighbours) == {Verdict(True, "passed")}


@needs_bubblewrap
def test_hostile_programs_leave_no_process_and_no_file(batch: dict[str, Verdict]) -> None:
    assert batch["left"].passed, batch["left"].detail


VERDICTS = {
    "right": (RIGHT, "passed"),
    "wrong": ("def solve(x):\n    return x\n", "wrong answer"),
    "of the wrong type": ("def solve(x):\n    return None\n", "wrong answer"),
    "unreadable": ("def solve(x:\n", "syntax error"),
    "return at top level": ("def solve(x): pass\nreturn 1\n", "syntax error"),
    "raises": ("def solve(x):\n    raise KeyError(x)\n", "exception"),
    "raises an assertion": ("def solve(x):\n    assert False\n", "exception"),
    "raises at import": ("1 / 0\n", "exception"),
    "another name": ("def solved(x):\n    return x + 1\n", "exception"),
    "leaves": ("import os\nos._exit(0)\n", "exception"),
    "always equal": (
        "class E:\n    def __eq__(self, other): return True\ndef solve(x):\n    return E()\n",
        "wrong answer",
    ),
    "prints": ("def solve(x):\n    print(x)\n    return x + 1\n", "passed"),
    "main guard": (RIGHT + "if __name__ == '__main__':\n    raise SystemExit\n", "passed"),
    "out of memory": ("def solve(x):\n    return bytes(1 << 40)\n", "killed"),
    "crashes": ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n", "killed"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", VERDICTS)
def test_verdict(kind: str, case: str) -> None:
    program, reason = VERDICTS[case]
    verdict = run(Sandbox(kind), program)
    assert (verdict.passed, verdict.reason) == (reason == "passed", reason), verdict


@pytest.mark.parametrize("kind", KINDS)
def test_tests_see_helpers_of_the_setup_and_not_of_the_program(kind: str) -> None:
    setup = "def half(x):\n    return x / 2\n\n\ndef solve(x):\n    '''Twice x.'''\n"
    test = "def check(candidate):\n    assert half(candidate(4)) == 4\n    assert half(solve(4)) == 4\n"
    assert run(Sandbox(kind), "def solve(x):\n    return 2 * x\n", test, setup).passed
    cheat = "def half(x):\n    return 4\n\n\ndef solve(x):\n    return 0\n"
    assert run(Sandbox(kind), cheat, test, setup).reason == "wrong answer"


@pytest.mark.parametrize("kind", KINDS)
def test_exceptions_reach_a_test_that_expects_them(kind: str) -> None:
    test = """
def check(candidate):
    try:
        candidate(1, flag=True)
    except ValueError as error:
        assert str(error) == "1 True"
    else:
        assert False
"""
    assert run(Sandbox(kind), "def solve(x, *, flag):\n    raise ValueError(f'{x} {flag}')\n", test).passed
    assert run(Sandbox(kind), "def solve(x, *, flag):\n    raise KeyError\n", test).reason == "exception"
    assert run(Sandbox(kind), "def solve(x, *, flag):\n    pass\n", test).reason == "wrong answer"


@pytest.mark.parametrize("kind", KINDS)
def test_a_test_that_swallows_everything_needs_the_candidate_to_the_end(kind: str) -> None:
    test = "def check(candidate):\n    try:\n        candidate(1)\n    except BaseException:\n        pass\n"
    assert run(Sandbox(kind), "import os\ndef solve(x):\n    os._exit(0)\n", test).reason == "exception"


def test_a_broken_test_is_the_users_to_mend() -> None:
    with pytest.raises(UserError, match="test of solve is broken: NameError"):
        run(Sandbox("rlimit"), RIGHT, "undefined\ndef check(candidate): pass\n")


def test_what_differs_as_root_or_not_is_not_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLMLAB_HOSTILE", SECRET)
    program = "import os\ndef solve(x):\n    return dict(os.environ) == {} and x + 1\n"
    assert run(Sandbox("rlimit"), program).passed


def test_processes_that_leave_the_group_are_found_again() -> None:
    sandbox = Sandbox("rlimit", processes=6, memory_mb=200 + os.getpid() % 100)
    program = (Path(__file__).parent / "hostile" / "process_that_stays.txt").read_text()
    assert not run(sandbox, program).passed
    assert _left(f'"RLIMIT_AS": {sandbox.memory_mb << 20}') == []


@pytest.mark.parametrize("kind", KINDS)
def test_probe_holds_here(kind: str) -> None:
    probe(Sandbox(kind))


@pytest.mark.parametrize(
    ("limit", "name"),
    [("RLIMIT_CPU", "CPU time"), ("RLIMIT_AS", "memory"), ("RLIMIT_NPROC", "processes"), ("RLIMIT_FSIZE", "file size")],
)
def test_probe_names_a_limit_that_does_not_bind(limit: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = Sandbox._limits
    monkeypatch.setattr(Sandbox, "_limits", lambda self: {k: v for k, v in limits(self).items() if k != limit})
    monkeypatch.setattr("dlmlab.sandbox.probes._PATIENCE", 5.0)
    with pytest.raises(UserError, match=f"not contained here: {name}; install bubblewrap"):
        probe(Sandbox("rlimit", processes=7))


@needs_bubblewrap
def test_probe_names_what_is_not_isolated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "bubblewrap_command", lambda role, *rest: launch.rlimit_command(role))
    with pytest.raises(UserError, match=r"not contained here: .*file system, other processes.*; it needs bubblewrap"):
        probe(Sandbox(processes=7))


def test_without_bubblewrap_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(
        UserError, match="apt install bubblewrap, or choose sandbox=rlimit, which .* open to the program"
    ):
        probe(Sandbox(processes=5))


def test_a_sandbox_that_cannot_start_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "rlimit_command", lambda role: ["sh", "-c", "echo no namespaces here >&2; exit 1"])
    with pytest.raises(SandboxError, match="did not start: no namespaces here"):
        run(Sandbox("rlimit"), RIGHT)
    with pytest.raises(UserError, match="no namespaces here; install bubblewrap"):
        probe(Sandbox("rlimit", processes=5))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "docker"}, "sandbox.kind='docker' is not one of bubblewrap, rlimit"),
        ({"cpu_seconds": 0}, "cpu_seconds=0"),
        ({"memory_mb": 1.5}, "memory_mb=1.5"),
        ({"processes": True}, "processes=True"),
        ({"wall_seconds": float("nan")}, "wall_seconds=nan"),
        ({"wall_seconds": "long"}, "wall_seconds='long'"),
    ],
)
def test_bad_settings(values: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Sandbox(**values)  # type: ignore[arg-type]


def test_plain_data_crosses_unchanged() -> None:
    values = [
        None, True, 0, -(1 << 200), 1.5, float("inf"), -0.0, "a\ud800\n", [1, [2]], (1, (2,)), {1, 2}, frozenset({3}),
        {"a": 1, 2: (3,)}, b"\x00", bytearray(b"x"), 2 - 1j, range(1, 9, 2),
    ]  # fmt: skip
    for value in values:
        crossed = decode(encode(value))
        assert crossed == value
        assert type(crossed) is type(value)
        assert repr(crossed) == repr(value)


def test_subclasses_cross_as_their_base_and_strangers_equal_nothing() -> None:
    class Liar(int):
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = int.__hash__

    class Stranger:
        def __eq__(self, other: object) -> bool:
            return True

    crossed = decode(encode([Liar(3), (Liar(4),)]))
    assert crossed == [3, (4,)]
    assert crossed != [5, (6,)]
    assert type(crossed[0]) is int
    stranger = decode(encode(Stranger()))
    assert isinstance(stranger, Foreign)
    assert stranger != stranger
    assert list(decode(encode(str(x) for x in range(2)))) == ["0", "1"]
