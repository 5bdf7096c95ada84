from __future__ import annotations

from dlmlab.decoder.dsb import DSB
from dlmlab.decoder.threshold import Threshold
from dlmlab.denoise import denoise
from dlmlab.types import Generation, Request
from tests.decoder.steps import Row, committed, step_of
from tests.fakes import FakeModel

ROW: Row = [None, 0.25, None, 0.75, 0.5, 0.75, 0.75, 0.75]
"""The first mask is at position 1; two positions are committed."""


def test_the_block_has_one_position_more_for_each_that_is_committed() -> None:
    assert committed(DSB(0.7, initial=2)(step_of([ROW]))) == [[3]]
    assert committed(DSB(0.7, initial=4)(step_of([ROW]))) == [[3, 5]]
    assert committed(DSB(0.7, initial=32)(step_of([ROW]))) == [[3, 5, 6, 7]]


def test_it_has_no_more_than_it_may() -> None:
    assert committed(DSB(0.7, initial=4, largest=4)(step_of([ROW]))) == [[3]]
    assert committed(DSB(0.7, initial=4, largest=2)(step_of([ROW]))) == [[1]]  # position 2 is committed


def test_where_nothing_in_it_is_sure_the_surest_goes() -> None:
    assert committed(DSB(0.7, initial=1, largest=1)(step_of([ROW]))) == [[1]]
    assert committed(DSB(0.9, initial=3)(step_of([ROW]))) == [[3]]


def test_one_block_that_holds_the_canvas_is_a_threshold_over_all_of_it() -> None:
    requests = [Request(index, (index, 2, 3), rule) for index in range(4) for rule in (DSB(0.5, 12), Threshold(0.5))]
    generation = Generation(12, 12, 12)
    outputs = [next(iter(denoise(FakeModel(), [each], generation, 1))) for each in requests]
    for slid, plain in zip(outputs[::2], outputs[1::2], strict=True):
        assert (slid.tokens, slid.step_of) == (plain.tokens, plain.step_of)


def test_blocks_of_the_loop_play_no_part() -> None:
    for prompt in ((1, 2, 3), (4, 5)):
        found = [
            next(iter(denoise(FakeModel(), [Request(0, prompt, DSB(0.5, 3, 5))], Generation(12, length, 12), 1)))
            for length in (4, 6, 12)
        ]
        assert found[0].tokens == found[1].tokens == found[2].tokens
