"""A journal gives back what was written, and nothing else."""

from __future__ import annotations

import json
import os
import resource
import signal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlmlab.record.journal import Journal, decode, encode

ENTRIES = [{"id": "a", "text": "κ \u2028 \n", "n": 1}, {"id": "b", "text": '", "crc32": "', "n": 0.1}, {"id": "c"}]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "samples.jsonl"
    journal = Journal(path)
    for entry in ENTRIES:
        journal.append(entry)
    return path


def test_entries_come_back_and_every_line_is_json(path):
    assert Journal(path).entries == ENTRIES
    assert [json.loads(line).keys() - {"crc32"} for line in path.read_bytes().splitlines()] == [
        entry.keys() for entry in ENTRIES
    ]


@given(data=st.data())
@settings(max_examples=200)
def test_a_flipped_bit_is_seen(data):
    line = encode(ENTRIES[data.draw(st.integers(0, 2))])
    bit = data.draw(st.integers(0, 8 * len(line) - 1))
    flipped = bytes(byte ^ (1 << bit % 8 if place == bit // 8 else 0) for place, byte in enumerate(line))
    assert decode(flipped) is None


@pytest.mark.parametrize(("lost", "left"), [(1, 3), (2, 2), (5, 2), (40, 1)])
def test_a_line_that_is_cut_off_costs_only_itself(path, lost, left):
    os.truncate(path, path.stat().st_size - lost)
    journal = Journal(path)
    assert journal.entries == ENTRIES[:left]
    journal.append({"id": "d"})
    again = Journal(path)
    assert again.entries == [*ENTRIES[:left], {"id": "d"}]
    assert again.damaged == journal.damaged == (left < 3)


def test_a_full_disk_leaves_the_file_as_it_was(path):
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, limits[1]))
    try:
        with pytest.raises(OSError, match=r"samples.jsonl"):
            Journal(path).append({"text": "x" * 100})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert path.read_bytes() == before


def test_a_rewrite_drops_what_was_damaged(path):
    path.write_bytes(path.read_bytes() + b"{\n")
    journal = Journal(path)
    assert journal.damaged == 1
    journal.rewrite(journal.entries)
    assert (Journal(path).entries, Journal(path).damaged) == (ENTRIES, 0)
