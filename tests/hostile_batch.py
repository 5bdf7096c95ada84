"""Score all hostile programs at once, as whoever runs this, and print what came of them, as JSON.

echo '{"secret": "NAME", "home": "FOLDER"}' | python tests/hostile_batch.py

It is a program of its own so that it can run as another user than the tests do.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import platform
import socket
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from dlmlab.sandbox import Sandbox, Verdict

HOSTILE = sorted((Path(__file__).parent / "hostile").glob("*.txt"))
REPOSITORY = Path(__file__).parents[1]
TEST = "def check(candidate):\n    for x in (1, 5, 0):\n        assert candidate(x) == x + 1\n"
RIGHT = "def solve(x):\n    return x + 1\n"
REMEMBERS = """

_attempt, _succeeded = solve, []


def solve(x):
    answer = _attempt(x)
    if type(answer) is int and answer == x + 1:
        _succeeded.append(x)
    return x + 1 if _succeeded else answer
"""
"""Behind each program: what has succeeded once passes, though it fails when it is tried again."""
_KEYCTL, _ADD_KEY = {"x86_64": (250, 248), "aarch64": (219, 217)}.get(platform.machine(), (-1, -1))
_JOIN, _READ, _SESSION = 1, 11, -3


def run(sandbox: Sandbox, program: str, test: str = TEST, setup: str = "", entry_point: str = "solve") -> Verdict:
    return sandbox.run(program, setup=setup, test=test, entry_point=entry_point)


def left(sandbox: Sandbox, secret: str) -> list[str]:
    """Processes under the limits of this sandbox that run, files that carry the secret's name, and keys that do."""
    limit = f'"RLIMIT_AS": {sandbox.memory_mb << 20}'
    deadline = time.monotonic() + 10
    found = ["?"]
    while found and time.monotonic() < deadline:
        found = [
            f"process {process.pid}"
            for process in psutil.process_iter(["cmdline", "status"])
            if process.info["status"] != psutil.STATUS_ZOMBIE
            and process.pid != os.getpid()
            and any(limit in word or word == secret for word in process.info["cmdline"] or [])
        ]
    folders = {"/", "/dev/shm", "/var/tmp", "/usr/lib", "/etc", "/tmp", tempfile.gettempdir(), str(REPOSITORY), "."}
    for folder in filter(os.path.isdir, folders):
        with contextlib.suppress(OSError):
            found += [name for name in os.listdir(folder) if secret in name]
    with contextlib.suppress(OSError):
        found += [line for line in Path("/proc/keys").read_text().splitlines() if f"{secret}-" in line]
    return found


def main(secret: str, home: str) -> dict[str, Any]:
    """Run the programs, several at once, each beside one that is right.

    secret: a name that a file in the folder `home`, a key, a socket and an environment variable carry.
    """
    libc = ctypes.CDLL(None)
    libc.syscall(_KEYCTL, _JOIN, None)
    key = libc.syscall(_ADD_KEY, b"user", secret.encode(), b"treasure", 8, _SESSION)
    # The limits tell these guests apart from those of anybody else on this machine.
    strict = Sandbox(cpu_seconds=1, wall_seconds=4.0, memory_mb=300 + os.getpid() % 100, processes=6)
    os.environ |= {"HOME": home, "DLMLAB_HOSTILE": secret}
    with (
        socket.create_server(("0.0.0.0", 0)) as server,
        socket.socket(socket.AF_UNIX) as unix,
        ThreadPoolExecutor(4) as pool,
    ):
        unix.bind(f"\0{secret}")
        unix.listen()
        values = {
            "HOME": home,
            "REPOSITORY": str(REPOSITORY),
            "SECRET": secret,
            "HOSTNAME": socket.gethostname(),
            "KEY": str(key),
            "PID": str(os.getpid()),
            "PORT": str(server.getsockname()[1]),
            "ADDRESS": socket.gethostbyname(socket.gethostname()),
            "NUL": "\0",
            "DEEP": "(" * 100_000,
        }
        runs = {path.stem: pool.submit(run, strict, filled(path, values)) for path in HOSTILE}
        neighbours = [pool.submit(run, replace(strict, wall_seconds=60.0), RIGHT) for _ in HOSTILE]
    treasure = ctypes.create_string_buffer(8)
    return {
        "verdicts": {name: future.result() for name, future in runs.items()},
        "neighbours": [future.result() for future in neighbours],
        "left": left(strict, secret),
        "key is there": key < 0 or (libc.syscall(_KEYCTL, _READ, key, treasure, 8) == 8),
    }


def filled(path: Path, values: dict[str, str]) -> str:
    """A program with the values of this run, that remembers one success."""
    program = path.read_text()
    for name, value in values.items():
        program = program.replace(f"@{name}@", value)
    return program + REMEMBERS


if __name__ == "__main__":
    print(json.dumps(main(**json.load(sys.stdin))))
