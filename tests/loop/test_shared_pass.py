"""What goes through the model together: rows of like length, each in every step."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlmlab.decoder.baseline import Baseline
from dlmlab.denoise import denoise
from dlmlab.loop.shared_pass import FULL, PADDING, by_length
from dlmlab.types import Generation, Request
from tests.fakes import FakeModel


def rows_of(lengths: list[int]) -> list[Any]:
    return [SimpleNamespace(tokens=np.zeros(length)) for length in lengths]


def padding(lengths: list[int]) -> float:
    return 1 - sum(lengths) / (len(lengths) * max(lengths))


@given(st.lists(st.integers(1, 2000), min_size=1, max_size=40))
def test_no_row_is_lost_and_no_pass_is_padded_much_unless_its_parts_were_too_small(lengths: list[int]) -> None:
    rows = rows_of(lengths)
    parts = by_length(rows)
    assert sorted(id(row) for part in parts for row in part) == sorted(map(id, rows))
    found = [[len(row.tokens) for row in part] for part in parts]
    ordered = [length for part in found for length in part]
    assert ordered == sorted(lengths, reverse=True)
    begin = 0
    for part in found:
        assert len(found) == 1 or sum(part) >= FULL
        for cut in range(1, len(part)):
            if part[cut] < part[cut - 1] and min(sum(part[:cut]), sum(ordered[begin + cut :])) >= FULL:
                assert padding(part[: cut + 1]) <= PADDING
        begin += len(part)
    assert all(part[-1] > after[0] for part, after in pairwise(found)), "rows of one length stay together"


def test_alike_rows_and_few_places_are_one_pass() -> None:
    assert len(by_length(rows_of([800] * 9))) == 1
    assert len(by_length(rows_of([200, 10, 10]))) == 1
    assert [len(part) for part in by_length(rows_of([100, 600, 100, 600, 100, 100, 100, 100]))] == [2, 6]


def test_who_is_parted_gets_the_same_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    generation = Generation(gen_length=12, block_length=4, steps=6)
    requests = [Request(index, (1,) * length, Baseline()) for index, length in enumerate([30, 3, 17, 3, 1, 9])]
    whole, parted = FakeModel(), FakeModel()
    outputs = list(denoise(whole, requests, generation, 6))
    monkeypatch.setattr("dlmlab.loop.shared_pass.FULL", 1)
    assert list(denoise(parted, requests, generation, 6)) == outputs
    assert len(parted.batches) > len(whole.batches)
