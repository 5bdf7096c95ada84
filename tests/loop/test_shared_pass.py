"""What goes through the model together: rows of like length, each in every step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlmlab.decoder.baseline import Baseline
from dlmlab.denoise import denoise
from dlmlab.loop.shared_pass import by_length
from dlmlab.types import Generation, Request
from tests.fakes import FakeModel


def rows_of(lengths: list[int]) -> list[Any]:
    return [SimpleNamespace(length=length) for length in lengths]


def cost(parts: Sequence[Sequence[int]], overhead: int) -> int:
    """What passes over rows of these lengths cost, in positions."""
    return sum(overhead + len(part) * max(part) for part in parts)


def cuts(ordered: Sequence[int]) -> Iterator[list[Sequence[int]]]:
    """All ways to cut a sequence."""
    for count in range(len(ordered)):
        for at in combinations(range(1, len(ordered)), count):
            yield [ordered[begin:end] for begin, end in pairwise((0, *at, len(ordered)))]


@given(st.lists(st.integers(1, 300), min_size=1, max_size=8), st.integers(0, 500))
def test_no_row_is_lost_and_no_other_passes_would_cost_less(lengths: list[int], overhead: int) -> None:
    rows = rows_of(lengths)
    parts = by_length(rows, overhead)
    assert sorted(id(row) for part in parts for row in part) == sorted(map(id, rows))
    found = [[row.length for row in part] for part in parts]
    ordered = sorted(lengths, reverse=True)
    assert [length for part in found for length in part] == ordered
    assert cost(found, overhead) == min(cost(each, overhead) for each in cuts(ordered))
    assert all(part[-1] > after[0] for part, after in pairwise(found)), "rows of one length stay together"


def test_alike_rows_and_few_places_are_one_pass() -> None:
    assert len(by_length(rows_of([800] * 9), 512)) == 1
    assert len(by_length(rows_of([200, 10, 10]), 512)) == 1
    assert [len(part) for part in by_length(rows_of([100, 600, 100, 600, 100, 100, 100, 100]), 512)] == [2, 6]


def test_where_a_block_begins_for_one_row_the_others_blocks_are_not_padded_to_it() -> None:
    assert [len(part) for part in by_length(rows_of([32, 1280, 32, 32, 32, 32, 32, 32]), 512)] == [1, 7]


def test_who_is_parted_gets_the_same_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    generation = Generation(gen_length=12, block_length=4, steps=6)
    requests = [Request(index, (1,) * length, Baseline()) for index, length in enumerate([30, 3, 17, 3, 1, 9])]
    whole, parted = FakeModel(), FakeModel()
    monkeypatch.setattr("dlmlab.loop.shared_pass.OVERHEAD", 1000)
    outputs = list(denoise(whole, requests, generation, 6))
    monkeypatch.setattr("dlmlab.loop.shared_pass.OVERHEAD", 1)
    assert list(denoise(parted, requests, generation, 6)) == outputs
    assert len(parted.batches) > len(whole.batches)
