"""Files are written whole or not at all, and appended to in turn."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from dlmlab.record.files import append_text, disk_of, free_space, parse_json, plain, write_json, write_text

JOB = """
import sys
from pathlib import Path
from dlmlab.record.files import append_text
for turn in range(40):
    append_text(Path(sys.argv[1]), "".join(f"{sys.argv[2]} {turn} {line}\\n" for line in range(200)), header="begin\\n")
"""


@dataclass
class Point:
    x: float
    y: tuple[int, ...]


def test_plain_json_of_what_results_hold():
    value = {
        1: Point(float("nan"), (1, 2)),
        "n": np.float32(0.5),
        "a": np.arange(2),
        "p": Path("x"),
        "t": True,
        "z": None,
    }
    assert plain(value) == {
        "1": {"x": None, "y": [1, 2]},
        "n": 0.5,
        "a": [0, 1],
        "p": "x",
        "t": True,
        "z": None,
    }


def test_json_is_replaced_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "results.json"
    write_json(path, {"a": 1})
    write_json(path, {"κ": float("inf")})
    assert json.loads(path.read_text()) == {"κ": None}
    assert os.listdir(tmp_path) == ["results.json"]


@contextmanager
def full_disk() -> Iterator[None]:
    """Lets files grow to 4096 bytes: a write past that fails as on a full disk."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_failed_write_keeps_the_old_content(tmp_path):
    path = tmp_path / "results.json"
    write_text(path, "old")
    with full_disk(), pytest.raises(OSError, match="File too large"):
        write_text(path, "x" * 5000)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["results.json"]


def test_a_failed_append_leaves_no_part_of_itself(tmp_path):
    path = tmp_path / "log.md"
    append_text(path, "one\n" * 1000)
    with full_disk(), pytest.raises(OSError, match="File too large"):
        append_text(path, "two\n" * 100)
    assert path.read_text() == "one\n" * 1000


def test_an_append_that_was_cut_off_does_not_spoil_the_next(tmp_path):
    path = tmp_path / "log.md"
    path.write_text("head\n| cut o")
    append_text(path, "next\n", header="never\n")
    assert path.read_text() == "head\n| cut o\nnext\n"


def test_processes_append_in_turn(tmp_path):
    path = tmp_path / "deep" / "log.md"
    names = ["a", "b", "c"]
    jobs = [subprocess.Popen([sys.executable, "-c", JOB, str(path), name]) for name in names]
    assert [job.wait() for job in jobs] == [0, 0, 0]
    header, *lines = path.read_text().splitlines()
    assert header == "begin"
    blocks = [lines[start : start + 200] for start in range(0, len(lines), 200)]
    assert sorted(blocks) == sorted(
        [f"{name} {turn} {line}" for line in range(200)] for name in names for turn in range(40)
    )


def test_a_full_disk_is_named(tmp_path):
    error = OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "log.md"))
    disk = disk_of(tmp_path)
    assert disk.is_mount()
    assert free_space(error) == f"; free some space on {disk}"
    assert free_space(OSError(errno.EACCES, "no", "x")) == ""
    assert free_space(OSError(errno.ENOSPC, "no")) == ""


@pytest.mark.parametrize(
    ("text", "value"),
    [("[NaN, -Infinity, 1e999, 2]", [None, None, None, 2]), ("1" + "0" * 400, None), ("1" + "0" * 30, 1e30)],
)
def test_numbers_that_no_machine_holds_are_null(text, value):
    assert parse_json(text) == value


@pytest.mark.parametrize("deep", ["[" * 101 + "]" * 101, '{"a": ' * 100 + "[]" + "}" * 100, b"[" * 500 + b"]" * 500])
def test_json_that_is_deeper_than_any_of_ours_is_refused_whatever_python_takes(deep):
    with pytest.raises(ValueError, match="nested more than 100 deep"):
        parse_json(deep)


def test_json_of_many_brackets_may_be_flat():
    assert parse_json("[" + ", ".join(["[[]]"] * 200) + "]") == [[[]]] * 200
    assert parse_json("[" * 100 + "]" * 100)
