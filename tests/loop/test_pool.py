"""Rows with a cache on a device without room for all of their stores: some wait, and all get the same answer."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dlmlab.cache.dual import Dual
from dlmlab.decoder.baseline import Baseline
from dlmlab.decoder.random import Random
from dlmlab.denoise import denoise
from dlmlab.denoiser import Query
from dlmlab.errors import UserError
from dlmlab.loop.batch import Batch
from dlmlab.rule import Rule
from dlmlab.types import Generation, Request
from tests.fakes import OUT_OF_MEMORY
from tests.test_properties import small_llada

GENERATION = Generation(gen_length=8, block_length=4, steps=8, temperature=0.7, confidence_dtype="float64")


class Small:
    """A model with room for so many stores, and for passes of so many rows."""

    def __init__(self, stores: int, rows: int = 99) -> None:
        self._model, self._stores, self._rows = small_llada(), stores, rows
        self.alive, self.most = 0, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def new_store(self, positions: int, kept: str) -> Any:
        if self.alive == self._stores:
            raise torch.OutOfMemoryError(OUT_OF_MEMORY)
        model, store = self, self._model.new_store(positions, kept)
        self.alive += 1
        self.most = max(self.most, self.alive)

        class Counted(type(store)):  # type: ignore[misc]
            def __del__(self) -> None:
                model.alive -= 1

        store.__class__ = Counted
        return store

    def hidden(self, query: Query) -> Any:
        if len(query.tokens_BL) > self._rows:
            raise torch.OutOfMemoryError(OUT_OF_MEMORY)
        return self._model.hidden(query)


def outputs(model: Any, rule: Rule, batch: int | Batch) -> list[Any]:
    requests = [Request(index, (1, 2, 3)[: 1 + index % 3], rule, cache=Dual()) for index in range(9)]
    return sorted(denoise(model, requests, GENERATION, batch), key=lambda output: output.index)


@pytest.mark.parametrize("rule", [Baseline(), Random()])
@pytest.mark.parametrize(("stores", "rows"), [(99, 3), (3, 99), (5, 2), (1, 1)])
def test_a_device_without_room_gets_fewer_rows_and_the_answers_stay(rule: Rule, stores: int, rows: int) -> None:
    small, batch = Small(stores, rows), Batch(8)
    assert outputs(small, rule, batch) == outputs(small_llada(), rule, 8)
    assert small.most <= stores
    assert batch.size <= min(stores, rows)
    assert small.alive == 0, "a store goes with its row"


def test_no_room_for_a_single_store_is_said_in_a_line() -> None:
    with pytest.raises(UserError, match="out of memory: a batch of 1 does not fit the device"):
        outputs(Small(0), Baseline(), 8)
