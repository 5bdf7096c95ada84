import pytest
import torch

from dlmlab.cache.dual import Dual
from dlmlab.decoder.baseline import Baseline
from dlmlab.decoder.freedave import FreeDave
from dlmlab.denoise import denoise
from dlmlab.errors import UserError
from dlmlab.generation import decode
from dlmlab.rule import Candidates, Decision, Rule
from dlmlab.types import Generation, Output, Request
from tests import golden
from tests.decoder.steps import Row, committed, step_of, tensor
from tests.fakes import FakeModel


def decided(filled: list[list[int]], tokens: list[list[int]], rows: list[Row], quotas: list[int]) -> Decision:
    candidates = Candidates(torch.tensor([filled]), torch.tensor([tokens]), tensor(rows)[None])
    step = step_of([rows[0]], candidates=candidates, quotas_BN=torch.tensor([quotas]))
    return FreeDave(3)(step)


OWN = [-1, -1, -1, -1]


def test_by_hand() -> None:
    none: Row = [None] * 4
    # No drafts: one step, and the two that would follow it.
    first = decided([OWN, OWN, OWN], [[5, 6, 7, 8]] * 3, [[0.5, 0.25, 0.75, 0.125], none, none], [1, 1, 1, 1, 0, 0])
    assert (committed(first), first.token_BK.tolist(), first.taken_B1.tolist()) == ([[2]], [[-1, -1, 7, -1]], [[1]])
    assert first.draft_BCK.tolist() == [[[5, -1, -1, -1], [5, 6, -1, -1]]]
    # The first draft comes true, the second would have needed token 6 at position 1.
    filled = [[-1, -1, -1, -1], [5, -1, -1, -1], [5, 6, -1, -1]]
    tokens = [[5, 6, 0, 0], [0, 9, 0, 4], [0, 0, 0, 3]]
    rows: list[Row] = [[0.75, 0.5, None, 0.25], [None, 0.75, None, 0.25], [None, None, None, 1.0]]
    second = decided(filled, tokens, rows, [1, 1, 1, 0, 0, 0])
    assert (committed(second), second.token_BK.tolist()) == ([[0, 1]], [[5, 9, -1, -1]])
    assert second.taken_B1.tolist() == [[2]]
    assert second.draft_BCK.tolist() == [[[-1, -1, -1, 4]] * 2]


def test_an_untrue_draft_costs_what_follows_it() -> None:
    filled = [OWN, [5, -1, -1, -1], [5, 6, -1, -1]]
    rows: list[Row] = [[0.75, 0.5, 0.25, 0.25], [None, 0.75, 0.25, 0.25], [None, None, 0.25, 0.25]]
    found = decided(filled, [[4, 6, 0, 0], [0, 6, 0, 0], [0, 0, 0, 0]], rows, [1, 1, 1, 1, 0, 0])
    assert (found.token_BK.tolist(), found.taken_B1.tolist()) == ([[4, -1, -1, -1]], [[1]])


def decoded(rule: Rule, generation: Generation, model: object) -> list[Output]:
    prompts = [case.prompt for case in golden.decoders("wino")][:5]
    if isinstance(model, FakeModel):
        prompts = [(index, 2, 3)[: 1 + index % 3] for index in range(len(prompts))]
    requests = [Request(index, prompt, rule) for index, prompt in enumerate(prompts)]
    return sorted(denoise(model, requests, generation, 5), key=lambda output: output.index)  # type: ignore[arg-type]


@pytest.mark.parametrize("schedule", ["even", "timesteps", "chance"])
def test_it_is_lossless(schedule: str) -> None:
    """Between a model that never changes its mind, the tiny one, and one that always does."""
    saved = []
    for model in (FakeModel(sharpness=0.0), golden.tiny(), FakeModel()):
        generation = Generation(32, 16, 18, schedule=schedule)
        pairs = list(zip(decoded(FreeDave(3), generation, model), decoded(Baseline(), generation, model), strict=True))
        assert [ours.tokens for ours, _ in pairs] == [theirs.tokens for _, theirs in pairs]
        passes = sum(ours.forwards for ours, _ in pairs)
        saved.append(sum(theirs.forwards for _, theirs in pairs) - passes)
    assert saved[0] >= saved[1] >= saved[2] >= 0
    assert saved[1] > 0


def test_every_canvas_of_a_pass_is_in_the_ledger() -> None:
    model = FakeModel()
    outputs = list(denoise(model, [Request(0, (1, 2), FreeDave(3))], Generation(16, 16, 16), 1))
    assert outputs[0].positions == model.canvases * 18 > outputs[0].forwards * 18
    assert outputs[0].full_passes == model.canvases


def test_a_cache_is_refused() -> None:
    requests = [Request(0, (1, 2), FreeDave(3), cache=Dual())]
    with pytest.raises(UserError, match="FreeDave computes several canvases for a row, .* turn the cache off"):
        list(decode(golden.tiny(), requests, Generation(8, 8, 8), batch_size=1))
