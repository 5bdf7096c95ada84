"""What holds for every policy of conf/cache/, found there by itself."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from dlmlab.decoder.baseline import Baseline
from dlmlab.denoise import denoise
from dlmlab.errors import UserError
from dlmlab.generation import decode, generate
from dlmlab.loop.row import Row
from dlmlab.policy import KEPT, KEYS_AND_VALUES, Frozen, Plan, Policy, View, check_pair
from dlmlab.rule import Rule
from dlmlab.types import Generation, Output, Request
from tests.decoder.steps import NAMES as DECODER_NAMES
from tests.decoder.steps import rule_of
from tests.fakes import MASK, FakeModel
from tests.test_properties import batch_sizes, examples, generations, in_plain_sight, plainly, prompts, small_llada

CONF = Path(__file__).parents[2] / "conf" / "cache"
NAMES = sorted(path.stem for path in CONF.glob("*.yaml"))
by_name = pytest.mark.parametrize("name", NAMES)
RULES = list(map(rule_of, DECODER_NAMES))


@cache
def policy_named(name: str) -> Policy:
    """A policy at its defaults."""
    policy: Policy = instantiate(OmegaConf.load(CONF / f"{name}.yaml"))
    return policy


def smaller(policy: Policy) -> Policy:
    """The policy with whole numbers that make something happen on a canvas of a few positions."""
    numbers = {field.name: getattr(policy, field.name) for field in fields(policy)}  # type: ignore[arg-type]
    few = {name: 1 + value % 3 for name, value in numbers.items() if type(value) is int and name != "kernel_size"}
    return replace(policy, **few)  # type: ignore[type-var]


def fits(rule: Rule, policy: Policy) -> bool:
    """Whether a decoder and a cache go together."""
    try:
        check_pair(rule, policy)
    except UserError:
        return False
    return True


@st.composite
def cached_requests(draw: Any, policies: list[Policy], rules: list[Rule]) -> list[Request]:
    """Up to six requests, each with a decoder and a cache of its own."""
    found = []
    for index in range(draw(st.integers(1, 6))):
        policy = draw(st.sampled_from(policies))
        rule = draw(st.sampled_from([rule for rule in rules if fits(rule, policy)]))
        found.append(Request(index, draw(prompts), rule, cache=policy))
    return found


def decoded(requests: list[Request], generation: Generation, batch_size: int, seed: int = 0) -> dict[int, Output]:
    outputs = denoise(small_llada(), requests, generation, batch_size, seed=seed)
    return {output.index: output for output in outputs}


class NaiveStore:
    """A row's pass with a cache, written plainly: a dict of keys and values by layer and position."""

    def __init__(self, policy: Policy) -> None:
        self.policy, self.kept, self.positions = policy, dict[tuple[int, int], Any](), 0

    def __call__(self, x: torch.Tensor, view: View) -> tuple[torch.Tensor, torch.Tensor]:
        plan = self.policy.plan(view) if self.policy.keeps else Plan(view.everything)
        own = torch.from_numpy(np.flatnonzero(plan.computed))
        seen = range(len(x)) if plan.visible is None else np.flatnonzero(plan.visible).tolist()
        self.positions += len(own)
        network = small_llada().model
        h_TD = network.embed(x[own])
        cos, sin = network.angles(h_TD, own)
        for layer, block in enumerate(network.transformer["blocks"]):  # type: ignore[arg-type]
            q_THE, k_THE, v_THE = block.heads(h_TD, cos, sin)
            self.kept |= {(layer, int(at)): pair for at, *pair in zip(own, k_THE, v_THE, strict=True)}
            k_SHE, v_SHE = (torch.stack([self.kept[layer, at][part] for at in seen]) for part in (0, 1))
            weight_THS = (torch.einsum("the,she->ths", q_THE, k_SHE) / q_THE.shape[-1] ** 0.5).softmax(-1)
            h_TD = block.finish(h_TD, torch.einsum("ths,she->the", weight_THS, v_SHE).flatten(1))
        logits_TV = small_llada().head(network.transformer["ln_f"](h_TD))
        return logits_TV.new_zeros(len(x), logits_TV.shape[1]).index_copy(0, own, logits_TV), torch.from_numpy(
            plan.computed
        )


@examples
@given(
    cached_requests(
        [smaller(policy_named(name)) for name in NAMES if policy_named(name).needs == KEYS_AND_VALUES],
        list(filter(in_plain_sight, RULES)),
    ),
    generations(),
    batch_sizes,
)
def test_a_batch_gives_each_row_what_a_plain_loop_with_a_store_gives_it_alone(
    requests: list[Request], generation: Generation, size: int
) -> None:
    found = decoded(requests, generation, size)
    for request in requests:
        assert request.cache is not None
        if not request.cached:
            assert found[request.index] == plainly(small_llada(), request, generation)
            continue
        store = NaiveStore(request.cache)
        assert found[request.index] == plainly(small_llada(), request, generation, ask=store)
        assert found[request.index].positions == store.positions


@by_name
def test_company_and_order_change_nothing(name: str) -> None:
    @examples
    @given(
        cached_requests([smaller(policy_named(name))], RULES),
        generations(temperature=0.0) | generations(temperature=0.8),
        batch_sizes,
        st.data(),
    )
    def holds(requests: list[Request], generation: Generation, size: int, data: Any) -> None:
        alone = decoded(requests, generation, 1)
        together = decoded(data.draw(st.permutations(requests)), generation, size)
        assert together == alone
        for index, output in together.items():
            assert output.positions == alone[index].positions
            assert MASK not in output.tokens
            assert output.full_passes > 0
        for request in requests:
            dearer = request.rule.shadows or request.rule.drafts  # which compute tokens beside the canvas
            assert dearer or together[request.index].full_passes <= together[request.index].forwards

    holds()


@by_name
def test_a_plan_computes_a_masked_position_of_the_block_and_sees_only_what_was_computed(name: str) -> None:
    policy = policy_named(name)
    generation = Generation(gen_length=24, block_length=8, steps=24)
    seen = np.zeros(27, dtype=bool)

    class Told(type(policy)):  # type: ignore[misc]
        def plan(self, view: View) -> Plan:
            nonlocal seen
            plan = super().plan(view)
            assert (plan.computed & view.masked & view.block).any()
            seen |= plan.computed
            assert seen.all() if plan.visible is None else seen[plan.visible].all()
            return plan

    told = Told(**vars(policy))
    [output] = denoise(small_llada(), [Request(0, (1, 2, 3), rule_of("baseline"), cache=told)], generation, 1)
    assert output.forwards == 24


@by_name
def test_what_keeps_nothing_costs_a_row_nothing(name: str) -> None:
    policy = policy_named(name)
    request = Request(0, (1, 2), rule_of("baseline"), cache=policy)
    assert request.cached == policy.keeps
    assert policy.needs in KEPT
    assert (name == "none") == (not policy.keeps)


@by_name
def test_a_decoder_that_masks_again_goes_with_what_takes_no_commit_as_final(name: str) -> None:
    policy = policy_named(name)
    if policy.frozen is Frozen.COMMITS:
        with pytest.raises(UserError, match="Saber masks committed tokens again, .*cache"):
            check_pair(rule_of("saber"), policy)
    else:
        check_pair(rule_of("saber"), policy)


@by_name
def test_a_decoder_that_cuts_the_canvas_goes_with_no_cache_that_would_not_cut_it(name: str) -> None:
    policy = policy_named(name)
    if policy.keeps:
        with pytest.raises(UserError, match="SlowFast cuts the canvas, which a pass with a cache doesn't: turn the"):
            check_pair(rule_of("slowfast"), policy)
    else:
        check_pair(rule_of("slowfast"), policy)


def test_a_model_that_keeps_nothing_serves_no_cache() -> None:
    model = FakeModel(keeps=frozenset())
    with pytest.raises(UserError, match=r"cache Dual needs a model that keeps keys and values: set cache=none"):
        generate(model, [[1, 2]], rule_of("baseline"), gen_length=4, steps=4, cache=policy_named("dual"))


def test_rows_with_a_cache_are_neither_shared_nor_remembered() -> None:
    requests = [Request(index, (1, 2, 3), rule_of("baseline"), cache=policy_named("dual")) for index in range(3)]
    memo: dict[bytes, Any] = {}
    first, *others = decode(small_llada(), requests, Generation(8, 4, 8), batch_size=3, memo=memo)
    assert memo == {}
    assert all(other.tokens == first.tokens and other.positions == first.positions for other in others)


@pytest.mark.parametrize("name", [name for name in NAMES if policy_named(name).steady])
def test_what_a_steady_policy_computes_next_is_foreseen(name: str) -> None:
    """Whatever is committed, as long as the block isn't full."""
    request = Request(0, (1, 2, 3), Baseline(), cache=policy_named(name))
    row = Row(request, Generation(24, 8, 24), FakeModel(), 0)  # type: ignore[arg-type]
    draw, compared = np.random.default_rng(0), 0
    while not row.finished:
        assert row.foreseen
        foreseen, start = row.following.plan, row.start
        change_K = np.full(8, -1)
        change_K[draw.choice(np.flatnonzero(row.block == MASK))] = 5
        row.commit(change_K, ())
        if row.start == start:
            assert foreseen is not None
            assert row.plan is not None
            assert np.array_equal(foreseen.computed, row.plan.computed)
            assert np.array_equal(foreseen.visible, row.plan.visible)  # type: ignore[arg-type]
            compared += 1
    assert compared == 21
