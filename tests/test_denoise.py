"""The loop: rows come and go, and nothing about their company shows in what they get."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from dlmlab.decoder.baseline import Baseline
from dlmlab.decoder.localleap import LocalLeap
from dlmlab.decoder.threshold import Threshold
from dlmlab.denoise import StepTiming, denoise
from dlmlab.errors import UserError
from dlmlab.rule import Decision, Rule, Step
from dlmlab.types import Generation, Output, Request
from tests.decodes import Decode, by_setting, decodes, reference_model
from tests.fakes import EOS, EOT, MASK, VOCABULARY, FakeModel

GENERATION = Generation(gen_length=12, block_length=4, steps=6)
WARM = Generation(gen_length=12, block_length=4, steps=6, temperature=0.7)
PROMPTS = [(1, 2, 3), (4,), (5, 6, 7, 8, 9), (1, 2, 3), (3, 3), (8, 1, 8, 1), (2,), (7, 7, 7)]


def requests(rules: Sequence[Rule], prompts: Sequence[Sequence[int]] = PROMPTS) -> list[Request]:
    return [Request(place, tuple(prompt), rules[place % len(rules)]) for place, prompt in enumerate(prompts)]


def run(
    model: Any, waiting: Sequence[Request], generation: Generation, batch_size: int, **options: Any
) -> list[Output]:
    return sorted(denoise(model, waiting, generation, batch_size, **options), key=lambda output: output.index)


def outputs_of(together: Sequence[Decode], batch_size: int) -> list[Output]:
    rules = [decode.rule for decode in together]
    prompts = [decode.prompts[0] for decode in together]
    return run(reference_model(), requests(rules, prompts), together[0].generation, batch_size)


def test_every_published_decode_one_by_one_and_all_of_a_setting_in_one_batch() -> None:
    for alike in by_setting():
        alone, together = outputs_of(alike, 1), outputs_of(alike, len(alike))
        assert alone == together
        for output, decode in zip(alone, alike, strict=True):
            assert output.tokens == decode.outputs[0], decode
            assert output.forwards == decode.forwards, decode


def test_every_published_decode_of_a_batch() -> None:
    several = [decode for decode in decodes() if len(decode.prompts) > 1]
    assert several
    for decode in several:
        waiting = requests([decode.rule], decode.prompts)
        for batch_size in (1, len(waiting)):
            found = run(reference_model(), waiting, decode.generation, batch_size)
            assert [output.tokens for output in found] == decode.outputs


def test_rows_leave_at_once_and_the_next_take_their_place() -> None:
    model = FakeModel()
    rules = [Threshold(0.3), Baseline(), Threshold(1.0)]
    ticks: list[StepTiming] = []
    found = run(model, requests(rules), GENERATION, 3, share=False, on_step=ticks.append)
    assert len({output.forwards for output in found}) > 2
    assert sum(tick.rows for tick in ticks) == sum(output.forwards for output in found) == model.canvases
    active = [tick.rows for tick in ticks]
    assert active == sorted(active, reverse=True), "a place stayed empty while requests waited"
    assert active[0] == 3


def test_outputs_come_as_rows_finish() -> None:
    waiting = [Request(0, (1, 2), Threshold(1.0)), Request(1, (1, 2), Threshold(0.0))]
    assert [output.index for output in denoise(FakeModel(), waiting, GENERATION, 2)] == [1, 0]


@pytest.mark.parametrize("generation", [GENERATION, WARM], ids=["greedy", "warm"])
@pytest.mark.parametrize("batch_size", [2, 3, 8, 64])
def test_batch_size_neighbours_and_order_change_nothing(generation: Generation, batch_size: int) -> None:
    rules = [Baseline(), LocalLeap(0.5, 0.3, 2), LocalLeap(0.9, 0.2, 1), Threshold(0.4), Threshold(0.8)]
    waiting = requests(rules)
    alone = run(FakeModel(), waiting, generation, 1, share=False)
    assert run(FakeModel(), waiting, generation, batch_size) == alone
    assert run(FakeModel(), waiting[::-1], generation, batch_size) == alone
    assert run(FakeModel(), waiting[2:5], generation, batch_size) == alone[2:5]


@pytest.mark.parametrize("generation", [GENERATION, WARM], ids=["greedy", "warm"])
def test_sharing_and_a_memo_save_forwards_and_change_nothing(generation: Generation) -> None:
    rules = [LocalLeap(kappa, tau, 2) for kappa in (0.5, 0.9) for tau in (0.3, 0.6)]
    waiting = requests(rules, [(1, 2)] * 8)
    plain, shared, kept = FakeModel(), FakeModel(), FakeModel()
    memo: dict[bytes, Any] = {}
    alone = run(plain, waiting, generation, 8, share=False)
    assert run(shared, waiting, generation, 8) == alone
    assert run(kept, waiting, generation, 2, memo=memo) == alone
    if generation.temperature:
        assert plain.canvases == shared.canvases == kept.canvases
        assert memo == {}
    else:
        assert kept.canvases == len(memo) <= shared.canvases < plain.canvases
        again = FakeModel()
        assert run(again, waiting, generation, 2, memo=memo) == alone
        assert again.canvases == 0


def test_a_canvas_is_known_by_where_its_block_begins_too() -> None:
    """A mask in the prompt stays; the same tokens with a block of their own there are another question."""
    memo: dict[bytes, Any] = {}
    prompts, generation = [(1, 2, MASK), (1, 2, MASK, MASK, MASK)], Generation(gen_length=2, block_length=2, steps=2)
    wider = Generation(gen_length=4, block_length=2, steps=4)
    for prompt, settings in ((prompts[0], wider), (prompts[1], generation)):
        waiting = [Request(0, prompt, Baseline())]
        assert run(FakeModel(), waiting, settings, 1, memo=memo) == run(FakeModel(), waiting, settings, 1)


def test_a_batch_is_never_larger_than_asked_for() -> None:
    for options in ({}, {"share": False}, {"memo": {}}):
        model = FakeModel()
        run(model, requests([Threshold(0.5)]), GENERATION, 3, **options)
        assert max(model.batches) == 3


def test_a_prompt_that_begins_with_padding_is_a_prompt_of_its_own() -> None:
    """Padding is what the mask hides, not a token: a prompt may hold the pad token."""
    waiting = requests([Baseline()], [(EOS, 4), (4,), (EOS, EOS, 4), (1, 2, 3, 4, 5)])
    alone = run(FakeModel(), waiting, GENERATION, 1)
    assert run(FakeModel(), waiting, GENERATION, 4) == alone
    assert len({tuple(output.tokens) for output in alone}) == 4


@pytest.mark.parametrize("rule", [Baseline(), Threshold(0.9), LocalLeap(0.9, 0.75, 4), LocalLeap(0.9, 0.75, 4, "all")])
def test_a_model_that_always_proposes_the_mask_does_not_hang_it(rule: Rule) -> None:
    for generation in (GENERATION, WARM):
        [output] = denoise(FakeModel(favourite=MASK), [Request(0, (1,), rule)], generation, 1)
        assert MASK not in output.tokens


def test_the_schedule_decides_how_many_are_committed() -> None:
    generation = Generation(gen_length=20, block_length=10, steps=8)
    [output] = denoise(FakeModel(), [Request(0, (1,), Baseline())], generation, 1)
    assert [output.step_of.count(step) for step in range(8)] == [3, 3, 2, 2] * 2
    assert output.forwards == 8


def test_seeds_differ_and_requests_of_one_run_differ() -> None:
    waiting = requests([Baseline()], [(1, 2)] * 4)
    first = run(FakeModel(), waiting, WARM, 4, seed=0)
    assert run(FakeModel(), waiting, WARM, 4, seed=0) == first
    assert run(FakeModel(), waiting, WARM, 4, seed=1) != first
    assert len({tuple(output.tokens) for output in first}) == 4


def test_temperature_samples_from_the_tempered_distribution() -> None:
    """Gumbel-max at temperature T draws from softmax(logits / T); 4,000 draws, five standard errors."""
    logits = torch.linspace(-1, 1, VOCABULARY)
    generation = Generation(gen_length=1, block_length=1, steps=1, temperature=0.5)
    draws = run(FakeModel(fixed=logits.tolist()), requests([Baseline()], [(1,)] * 4000), generation, 500)
    counts = torch.bincount(torch.tensor([output.tokens[0] for output in draws]), minlength=VOCABULARY)
    logits[MASK] = -torch.inf
    expected = (logits.double() / 0.5).softmax(-1)
    error = (expected * (1 - expected) / 4000).sqrt()
    assert ((counts / 4000 - expected).abs() <= 5 * error).all()
    assert counts[MASK] == 0


@dataclass(frozen=True)
class Idle(Rule):
    """Commits nothing."""

    def __call__(self, step: Step) -> Decision:
        return Decision(torch.zeros_like(step.eligible_BK))


@dataclass(frozen=True)
class Fickle(Rule):
    """Takes back at each step what it committed at the one before."""

    revokes = True

    def __call__(self, step: Step) -> Decision:
        first_BK = step.eligible_BK & (step.eligible_BK.cumsum(-1) == 1)
        return Decision(first_BK, ~step.eligible_BK)


@pytest.mark.parametrize("rule", [Idle(), Fickle()])
def test_a_rule_that_would_never_end_is_an_error(rule: Rule) -> None:
    with pytest.raises(UserError, match=type(rule).__name__):
        list(denoise(FakeModel(), [Request(0, (1,), rule)], GENERATION, 1))


@dataclass(frozen=True)
class Once(Rule):
    """Fills the block but for its first place, then takes the last place back once."""

    revokes = True

    def initial_state(self, block_length: int, vocab_size: int, like: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (torch.zeros((), dtype=torch.int64, device=like.device),)

    def __call__(self, step: Step) -> Decision:
        [done_B] = step.state
        place_BK = torch.arange(4).expand_as(step.eligible_BK)
        early_BK = (done_B[:, None] < 1) & (place_BK > 1)
        late_BK = (done_B[:, None] == 1) & (place_BK < 2)
        again_BK = (done_B[:, None] == 1) & (place_BK == 3)
        last_BK = (done_B[:, None] > 1) & step.eligible_BK
        return Decision(early_BK | late_BK | last_BK, again_BK, state=(done_B + 1,))


def test_state_begins_anew_with_each_block_and_a_revoked_token_counts_from_its_last_commit() -> None:
    found = run(FakeModel(), requests([Once()]), GENERATION, 3)
    for output in found:
        assert output.forwards == 9
        assert output.step_of == [1, 1, 0, 2, 4, 4, 3, 5, 7, 7, 6, 8]
        assert MASK not in output.tokens


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("fused", [False, True])
def test_no_pass_follows_a_full_block_that_holds_an_end_token(
    batch_size: int, fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dlmlab.loop.propose.in_one_pass", lambda generation, rule: False)
    rules = [Baseline(), Threshold(0.3)]
    to_the_end = run(FakeModel(), requests(rules), GENERATION, 1)
    stopping = replace(GENERATION, stop_at_end=True)
    stopped = run(FakeModel(fused=fused), requests(rules), stopping, batch_size)
    early = 0
    for whole, output in zip(to_the_end, stopped, strict=True):
        ends = [place for place, token in enumerate(whole.tokens) if token in (EOS, EOT)]
        kept = len(whole.tokens) if not ends else (ends[0] // 4 + 1) * 4
        assert output.tokens == whole.tokens[:kept] + [EOS] * (12 - kept)
        assert output.unasked == 12 - kept
        assert output.step_of[:kept] == whole.step_of[:kept]
        assert set(output.step_of[kept:]) <= {output.forwards - 1}
        assert output.forwards == 1 + max(output.step_of[:kept])
        early += output.unasked > 0
    assert 0 < early < len(stopped), "some rows end early and some don't"
