import pytest
import torch

from dlmlab.cache.dual import Dual
from dlmlab.decoder.wino import WINO
from dlmlab.denoise import denoise
from dlmlab.errors import UserError
from dlmlab.generation import decode
from dlmlab.rule import Decision, check_composition
from dlmlab.types import Generation, Request
from tests import golden
from tests.decoder.steps import Row, committed, revoked, rule_of, step_of, tensor
from tests.fakes import FakeModel

RULE = WINO(threshold=0.6, threshold_back=0.9)


def decided(row: Row, kept: Row, before: int = 30) -> Decision:
    return RULE(step_of([row], kept_BK=tensor([kept]), state=(torch.tensor([[before]]),)))


def test_what_is_surer_than_the_threshold_else_the_surest() -> None:
    kept: Row = [None] * 4
    assert committed(decided([0.75, 0.5, 0.625, 0.25], kept)) == [[0, 2]]
    assert committed(decided([0.25, 0.5, 0.125, 0.5], kept)) == [[1]]


def test_a_pass_commits_no_more_than_its_share_of_the_masks() -> None:
    for masks, most in ((4, 4), (6, 5), (10, 7), (20, 14), (40, 20)):
        found = decided([1 - place / 100 for place in range(masks)], [None] * masks)
        assert committed(found) == [list(range(most))]


def test_it_takes_back_the_least_likely_and_fewer_than_the_pass_before_committed() -> None:
    row: Row = [0.75, 0.75, None, None, None]
    kept: Row = [None, None, 0.5, 0.25, 0.875]
    assert revoked(decided(row, kept)) == [[2, 3, 4]]
    assert revoked(decided(row, kept, before=3)) == [[2, 3]]
    assert revoked(decided(row, kept, before=1)) == [[]]
    assert revoked(decided([0.5, 0.25, None, None, None], kept)) == [[]]  # one committed: nothing is taken back
    assert decided(row, kept).state[0].tolist() == [[2]]


def test_shadows_are_paid_for_and_change_nothing_for_the_canvas() -> None:
    """At a threshold that nothing falls below, it is a threshold rule with a dearer pass."""
    cases = list(golden.decoders("wino"))[:4]
    requests = [Request(index, case.prompt, WINO(0.6, 0.0)) for index, case in enumerate(cases)]
    generation = Generation(64, 16, 16)
    for output, case in zip(denoise(golden.tiny(), requests, generation, 1), cases, strict=True):
        assert output.positions == output.forwards * (len(case.prompt) + 64 + 16)


def test_rows_of_all_lengths_in_a_batch_answer_as_alone() -> None:
    cases = list(golden.decoders("wino"))
    requests = [Request(index, case.prompt, RULE) for index, case in enumerate(cases)]
    generation = Generation(64, 32, 16)
    alone, together = (
        {output.index: output for output in denoise(golden.tiny(), requests, generation, size)} for size in (1, 5)
    )
    assert together == alone


def test_a_cache_or_a_model_without_room_for_shadows_is_refused() -> None:
    with pytest.raises(UserError, match="WINO computes tokens beside the canvas, .* turn the cache off"):
        list(decode(golden.tiny(), [Request(0, (1, 2), RULE, cache=Dual())], Generation(8, 8, 8), batch_size=1))
    with pytest.raises(UserError, match="this model takes none of: choose another decoder"):
        check_composition(rule_of("wino"), lays_out=False)


def test_a_block_ends_however_much_is_taken_back() -> None:
    model = FakeModel()
    for seed in range(20):
        [output] = denoise(model, [Request(seed, (seed, 2), WINO(0.05, 1.0))], Generation(32, 32, 32), 1)
        assert output.forwards <= 32
