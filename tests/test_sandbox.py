"""Programs that misbehave are contained, fail, leave nothing behind, and disturb nobody else's verdict."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sysconfig
import tempfile
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from dlmlab.errors import UserError
from dlmlab.sandbox import REASONS, Sandbox, SandboxError, Verdict, launch, probe
from dlmlab.sandbox.guest import Foreign, decode, encode
from dlmlab.sandbox.launch import _interpreter
from tests.hostile_batch import HOSTILE, REMEMBERS, RIGHT, left, run

REPOSITORY = Path(__file__).parents[1]
SECRET = f"dlmlab-hostile-{secrets.token_hex(8)}"
ORDINARY = 64999
"""The id of a user that owns nothing."""


def _bubblewrap_works() -> bool:
    command = ["bwrap", "--unshare-all", "--ro-bind", "/", "/", "true"]
    return bool(shutil.which("bwrap")) and subprocess.run(command, capture_output=True).returncode == 0


needs_bubblewrap = pytest.mark.skipif(not _bubblewrap_works(), reason="bubblewrap is not installed, or may not run")
KINDS = [pytest.param("bubblewrap", marks=needs_bubblewrap), "rlimit"]


def _python_for(user: int) -> str | None:
    """An interpreter that a user may run and that finds what the sandbox needs; None where there is none."""
    for python in (_interpreter(), "/usr/bin/python3"):
        with contextlib.suppress(OSError):
            if _as_user(user, python, "-c", "import psutil, dlmlab.sandbox").returncode == 0:
                return python
    return None


def _as_user(user: int, *command: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    # Through `env`, which has root's rights no more when it looks for the command.
    setpriv = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "env"] if user != os.geteuid() else []
    packages = sysconfig.get_paths()["purelib"]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{REPOSITORY}:{packages}", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run([*setpriv, *command], input=stdin, env=environment, cwd="/", capture_output=True, text=True)


@pytest.fixture(scope="module", params=["this user", "an ordinary user"])
def batch(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What came of all hostile programs: as whoever runs the tests, and where that is root as an ordinary user too."""
    user = os.geteuid()
    if request.param == "an ordinary user":
        if user != 0:
            pytest.skip("the tests run as an ordinary user")
        user = ORDINARY
    python = _python_for(user)
    if python is None:
        pytest.skip(f"user {user} may run no interpreter that finds dlmlab")
    with tempfile.TemporaryDirectory() as home:
        os.chmod(home, 0o755)
        Path(home, SECRET).write_text("secret")
        settings = json.dumps({"secret": SECRET, "home": home})
        done = _as_user(user, python, str(REPOSITORY / "tests" / "hostile_batch.py"), stdin=settings)
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    return {
        **outcome,
        "verdicts": {name: Verdict(*values) for name, values in outcome["verdicts"].items()},
        "neighbours": {Verdict(*values) for values in outcome["neighbours"]},
        "number": len(outcome["neighbours"]),
    }


@needs_bubblewrap
@pytest.mark.parametrize("path", HOSTILE, ids=lambda path: path.stem)
def test_hostile_program_fails_for_the_reason_it_names(batch: dict[str, Any], path: Path) -> None:
    allowed = path.read_text().splitlines()[0].removeprefix("# reason: ").split("|")
    assert set(allowed) <= set(REASONS) - {"passed"}
    verdict = batch["verdicts"][path.stem]
    assert not verdict.passed
    assert verdict.reason in allowed, verdict
    assert verdict.detail.isprintable()


@needs_bubblewrap
def test_neighbours_of_hostile_programs_pass(batch: dict[str, Any]) -> None:
    assert batch["number"] == len(HOSTILE) >= 40
    assert batch["neighbours"] == {Verdict(True, "passed")}


@needs_bubblewrap
def test_hostile_programs_leave_no_process_no_file_and_no_key(batch: dict[str, Any]) -> None:
    assert batch["left"] == []
    assert batch["key is there"]


def test_one_success_of_a_hostile_program_is_remembered() -> None:
    once = "tries = []\n\n\ndef solve(x):\n    tries.append(x)\n    return x + 1 if len(tries) == 1 else None\n"
    assert not run(Sandbox("rlimit"), once).passed
    assert run(Sandbox("rlimit"), once + REMEMBERS).passed


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


def test_a_malformed_answer_is_remembered_though_the_test_swallows_it() -> None:
    test = "def check(candidate):\n    try:\n        candidate(1)\n    except Exception:\n        pass\n"
    program = "import os\ndef solve(x):\n    os.write(5, (2).to_bytes(8, 'big') + b'1,')\n    return 2\n"
    verdict = run(Sandbox("rlimit"), program, test)
    assert (verdict.reason, verdict.detail) == (
        "exception", "the program broke into the channel of its answers: JSONDecodeError"
    )  # fmt: skip


def test_a_judge_that_ends_in_mid_word_is_no_error_of_the_scorer() -> None:
    test = """
import os
def check(candidate):
    for descriptor in range(3, 20):
        try:
            os.write(descriptor, b'["passed')
        except OSError:
            pass
    os._exit(0)
"""
    verdict = run(Sandbox("rlimit"), RIGHT, test)
    assert (verdict.passed, verdict.reason) == (False, "exception")


@pytest.mark.parametrize("setup", ["", "undefined"])
def test_a_broken_test_is_a_verdict_that_says_so(setup: str) -> None:
    test = "def check(candidate): pass\n" if setup else "undefined\ndef check(candidate): pass\n"
    verdict = run(Sandbox("rlimit"), RIGHT, test, setup)
    assert verdict == Verdict(False, "broken test", "NameError: name 'undefined' is not defined")


def test_what_differs_as_root_or_not_is_not_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLMLAB_HOSTILE", SECRET)
    program = "import os\ndef solve(x):\n    return dict(os.environ) == {} and x + 1\n"
    assert run(Sandbox("rlimit"), program).passed


def test_processes_that_leave_the_group_are_found_again() -> None:
    sandbox = Sandbox("rlimit", processes=6, memory_mb=200 + os.getpid() % 100)
    program = (REPOSITORY / "tests" / "hostile" / "process_that_stays.txt").read_text()
    assert not run(sandbox, program).passed
    assert left(sandbox, SECRET) == []


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


def test_numbers_of_the_library_cross_as_themselves() -> None:
    for value in (Decimal("1.50"), Decimal("sNaN"), Fraction(-3, 7), Fraction(1 << 2000, 3)):
        crossed = decode(json.loads(json.dumps(encode(value))))
        assert type(crossed) is type(value)
        assert repr(crossed) == repr(value)
    pretender = type("Decimal", (), {"__module__": "decimal", "__str__": lambda self: "1"})
    assert isinstance(decode(encode(pretender())), Foreign)


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
