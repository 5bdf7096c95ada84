"""What every decoder of conf/decoder/ keeps to, found by itself."""

from __future__ import annotations

from dataclasses import fields, replace
from itertools import chain
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dlmlab.denoise import denoise
from dlmlab.errors import UserError
from dlmlab.rule import Decision, Rule, Step, check_composition
from dlmlab.types import Generation, Output, Request
from tests.decoder.steps import NAMES, random_steps, row_of, rule_of
from tests.fakes import MASK, FakeModel

SEEDS = range(10)
PROMPTS = [(3, 1), (4, 1, 5, 9, 2), (6,), (5, 3, 5, 8), (9, 7, 9), (3, 2, 3, 8, 4, 6), (2, 6, 4)]

by_name = pytest.mark.parametrize("name", NAMES)


def variants(rule: Rule) -> list[Rule]:
    """The rule with other parameters of the same kind."""
    numbers = [
        field.name
        for field in fields(rule)  # type: ignore[arg-type]
        if field.name not in rule.alike and isinstance(getattr(rule, field.name), int | float)
    ]

    def other(value: float, by: int) -> float:
        return value + by if isinstance(value, int) else value / (1 + by / 2)

    return [replace(rule, **{name: other(getattr(rule, name), by) for name in numbers}) for by in range(3)]  # type: ignore[type-var]


def run(rules: list[Rule], generation: Generation, batch_size: int, **options: object) -> list[Output]:
    requests = [Request(index, prompt, rules[index % len(rules)]) for index, prompt in enumerate(PROMPTS)]
    outputs = denoise(FakeModel(), requests, generation, batch_size, **options)  # type: ignore[arg-type]
    return sorted(outputs, key=lambda output: output.index)


@by_name
def test_every_step_commits_what_may_be_committed_and_a_block_comes_to_an_end(name: str) -> None:
    steps = (enumerate(random_steps([rule_of(name)] * 4, seed), 1) for seed in SEEDS)
    for number, (step, decision) in chain.from_iterable(steps):
        left_B = step.eligible_BK.any(-1)
        assert decision.commit_BK.dtype == torch.bool
        assert not (decision.commit_BK & ~step.eligible_BK).any()
        assert (decision.commit_BK.any(-1) == left_B).all()
        if rule_of(name).keeps_to_quota:
            assert (decision.commit_BK.sum(-1, keepdim=True) <= step.quota_B1).all()
        if decision.revoke_BK is not None:
            assert not (decision.revoke_BK & step.eligible_BK).any()
        masked_BK = step.eligible_BK & ~decision.commit_BK | (
            False if decision.revoke_BK is None else decision.revoke_BK
        )
        assert ((~masked_BK).sum(-1) >= min(number, masked_BK.shape[-1])).all()


def told(decision: Decision) -> list[Any]:
    return [decision.end_B1, decision.seen_B1, decision.token_BK, decision.taken_B1, decision.draft_BCK]


@by_name
def test_a_draft_fills_masks_that_the_decision_leaves(name: str) -> None:
    if not rule_of(name).drafts:
        return
    drawn = 0
    for step, decision in chain.from_iterable(random_steps([rule_of(name)] * 4, seed) for seed in SEEDS):
        assert decision.draft_BCK is not None
        assert decision.draft_BCK.shape == (4, rule_of(name).drafts, step.token_BK.shape[-1])
        drafted_BCK = decision.draft_BCK >= 0
        assert not (drafted_BCK & ~(step.eligible_BK & ~decision.commit_BK)[:, None]).any()
        first_BC = drafted_BCK.any(-1)
        assert (first_BC[:, 1:] <= first_BC[:, :-1]).all()
        drawn += int(drafted_BCK.any())
    assert drawn


@by_name
def test_rows_with_their_own_parameters_decide_together_as_they_do_alone(name: str) -> None:
    rules = variants(rule_of(name))
    for step, together in chain.from_iterable(random_steps(rules, seed) for seed in SEEDS):
        for position, rule in enumerate(rules):
            alone = rule(Step(*(row_of(part, position) for part in step)))
            expected = Decision(*(row_of(part, position) for part in together))
            assert torch.equal(alone.commit_BK, expected.commit_BK)
            for mine, theirs in zip(told(alone), told(expected), strict=True):
                assert mine is theirs is None or torch.equal(mine, theirs)
            assert alone.revoke_BK is expected.revoke_BK is None or torch.equal(alone.revoke_BK, expected.revoke_BK)  # type: ignore[arg-type]
            for one, other in zip(alone.state, expected.state, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-12, atol=0, equal_nan=True)


@by_name
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_parameter_is_compared_alike_alone_and_in_company(name: str, dtype: torch.dtype) -> None:
    """0.9 is not a float32, so it matters which of its neighbours a confidence meets."""
    rules = variants(rule_of(name))
    stacked = type(rules[0]).stack(rules, torch.empty(0, dtype=dtype))
    for field in fields(stacked):  # type: ignore[arg-type]
        values_B1 = getattr(stacked, field.name)
        if isinstance(values_B1, torch.Tensor) and values_B1.is_floating_point():
            for value_1, rule in zip(values_B1, rules, strict=True):
                number = getattr(rule, field.name)
                assert value_1.dtype == dtype
                assert value_1 == torch.tensor(number, dtype=dtype)
                assert (value_1 >= number).all()
                assert (value_1 <= number).all()


@by_name
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_in_the_loop_a_row_gets_what_it_gets_alone(name: str, temperature: float) -> None:
    generation = Generation(gen_length=12, block_length=6, steps=8, temperature=temperature)
    rules = variants(rule_of(name))
    alone = run(rules, generation, batch_size=1)
    assert run(rules, generation, batch_size=3) == alone
    assert run(rules, generation, batch_size=8, share=False) == alone
    assert run(rules, generation, batch_size=2, memo={}) == alone
    for output in alone:
        assert MASK not in output.tokens
        assert output.forwards <= 12 + 2 * rules[0].post_steps
        assert len(output.tokens) == 12
        assert set(output.step_of) <= set(range(output.forwards))


@by_name
def test_it_ends_even_if_the_model_proposes_the_mask(name: str) -> None:
    model = FakeModel(favourite=MASK)
    [output] = denoise(model, [Request(0, (1, 2), rule_of(name))], Generation(8, 4, 4), 1)
    assert MASK not in output.tokens


@by_name
def test_it_takes_confidences_in_double_precision(name: str) -> None:
    generation = Generation(12, 6, 4, confidence_dtype="float64")
    assert run(variants(rule_of(name)), generation, batch_size=4) == run(
        variants(rule_of(name)), generation, batch_size=1
    )


@by_name
def test_no_full_distribution_is_built_for_a_rule_that_needs_none(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of two positions: a rule that builds no (B, K, V) tensor never holds the logits of more at a time."""
    monkeypatch.setattr("dlmlab.loop.propose.CHUNK_ELEMENTS", 46)
    model, seen = FakeModel(), list[int]()
    monkeypatch.setattr(model, "head", lambda hidden_ND: seen.append(len(hidden_ND)) or hidden_ND)
    rule = rule_of(name)
    list(denoise(model, [Request(0, (1, 2), rule)], Generation(8, 8, 4), 1))
    assert (max(seen) > 2) == rule.needs_logits


@by_name
def test_what_it_composes_with_follows_from_what_it_sees(name: str) -> None:
    rule = rule_of(name)
    check_composition(rule)
    for fits, options in (
        (rule.memoisable, {"memo": True}),
        (not (rule.revokes or rule.edits), {"frozen_commits": True}),
    ):
        if fits:
            check_composition(rule, **options)
        else:
            with pytest.raises(UserError, match=rf"^{type(rule).__name__} .*turn the \w+ off$"):
                check_composition(rule, **options)


@by_name
def test_a_canvas_that_comes_block_by_block_is_refused_by_what_needs_all_of_it(name: str) -> None:
    rule = rule_of(name)
    if not (rule.sees_canvas or rule.cuts):
        check_composition(rule, blockwise=True)
        return
    with pytest.raises(UserError, match="needs a whole canvas, .* choose another decoder"):
        check_composition(rule, blockwise=True)


class NoWaiting(TorchDispatchMode):
    """Fails at an operation whose answer, or the shape of it, the host has to wait for."""

    WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "unique", "repeat_interleave")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert not any(word in func.__name__ for word in self.WAITING), f"{func} waits for the device"
        mask = func.__name__.startswith("index.") and any(i is not None and i.dtype == torch.bool for i in args[1])
        assert not mask, "an index by a mask waits for the device"
        return func(*args, **(kwargs or {}))


@by_name
def test_it_never_waits_for_the_device(name: str) -> None:
    rules = variants(rule_of(name))
    rule = type(rules[0]).stack(rules, torch.empty(0, dtype=torch.float64))
    for step, _ in random_steps(rules, seed=0):
        with NoWaiting():
            rule(step)
            if rule.needs_logits:
                assert step.logits_BKV is not None
                rule.transform(step.logits_BKV, step.state)


def test_waiting_is_noticed() -> None:
    for wait in (lambda x: x.sum().item(), lambda x: x[x > 0], lambda x: bool(x.any()), torch.nonzero):
        with NoWaiting(), pytest.raises(AssertionError, match="waits for the device"):
            wait(torch.ones(3))
