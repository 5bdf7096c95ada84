"""The loop and every decoder of conf/decoder/ against plain loops, on random shapes, schedules, parameters and orders.

    pytest tests/test_properties.py                                     a few examples of each
    DLMLAB_EXAMPLES=200 pytest tests/test_properties.py                 thousands

Models are small and random: tables of logits, which are exact, and a LLaDA in double precision.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import fields, replace
from functools import cache
from typing import Annotated, Any, get_args, get_origin

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dlmlab.denoise import denoise
from dlmlab.denoiser import Layout, Query
from dlmlab.loop.row import Row
from dlmlab.measure.reference import RULES, reference
from dlmlab.model.config import LLaDAConfig
from dlmlab.model.llada import LLaDAModelLM
from dlmlab.policy import View
from dlmlab.rule import Rule, Step
from dlmlab.settings import Limits, kinds_of
from dlmlab.types import CONFIDENCE_DTYPES, Generation, Output, Request
from tests.decoder.steps import NAMES, rule_of
from tests.fakes import EOS, EOT, MASK, VOCABULARY, FakeModel

examples = settings(
    max_examples=int(os.environ.get("DLMLAB_EXAMPLES", "8")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


SWITCHES = ("logits_eos_inf", "confidence_eos_eot_inf", "confidence_eos_eot_zero")
"""LLaDA's ways to keep an answer from ending early."""


@cache
def small_llada() -> LLaDAModelLM:
    """Two layers of random weights in double precision, whose answers do not depend on how rows are batched."""
    torch.manual_seed(0)
    ids = {"mask_token_id": MASK, "eos_token_id": EOS, "pad_token_id": EOS}
    config = LLaDAConfig(vocab_size=VOCABULARY, d_model=16, n_layers=2, n_heads=2, mlp_hidden_size=32,
                         max_sequence_length=64, **ids)  # fmt: skip
    model = LLaDAModelLM(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return model.double().train(False)


models = st.one_of(
    st.builds(FakeModel, sharpness=st.sampled_from([0.5, 3.0, 12.0]), favourite=st.sampled_from([None, EOS, MASK])),
    st.builds(small_llada),
)


@st.composite
def generations(draw: Any, **fixed: Any) -> Generation:
    """A canvas of up to four blocks of up to eight places, and a schedule for it."""
    block, blocks = draw(st.integers(1, 8)), draw(st.integers(1, 4))
    return Generation(
        gen_length=block * blocks,
        block_length=block,
        steps=blocks * draw(st.integers(1, block)),
        confidence_dtype="float64",
        **{name: draw(st.booleans()) for name in SWITCHES if name not in fixed},
        **fixed,
    )


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Numbers that a rule's parameter may be, by its annotation; the small ones, where something happens."""
    base, limits = get_args(kind) if get_origin(kind) is Annotated else (kind, Limits(0, 1))
    low, high = limits
    if base is int:
        return st.integers(int(low), int(min(high, 6)))
    return st.one_of(st.floats(low, min(high, 2.0)), st.sampled_from([low, min(high, 1.0)]))


@st.composite
def rules(draw: Any, name: str) -> Rule:
    """A decoder of conf/decoder/ with any parameters."""
    rule = rule_of(name)
    numbers = {
        field.name: kinds_of(type(rule))[field.name]
        for field in fields(rule)  # type: ignore[arg-type]
        if field.name not in rule.alike and isinstance(getattr(rule, field.name), int | float)
    }
    return replace(rule, **{key: draw(values(kind)) for key, kind in numbers.items()})  # type: ignore[type-var]


prompts = (
    st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=9)
    .map(tuple)
    .filter(lambda prompt: set(prompt) != {MASK})  # where all tokens are alike all places tie, but for rounding
)


@st.composite
def waiting(draw: Any, names: list[str]) -> list[Request]:
    """Up to seven requests in any order; each row has parameters of its own."""
    count = draw(st.integers(1, 7))
    found = [Request(index, draw(prompts), draw(rules(draw(st.sampled_from(names))))) for index in range(count)]
    if draw(st.booleans()):  # rows that share canvases
        found = [replace(each, prompt=found[0].prompt) for each in found]
    return draw(st.permutations(found))


batch_sizes = st.integers(1, 8)
shares = st.booleans()
memos = st.sampled_from([False, True])


def decoded(
    model: Any, requests: list[Request], generation: Generation, batch_size: int, share: bool, memo: bool, seed: int = 0
) -> dict[int, Output]:
    kept: Any = {} if memo else None
    outputs = denoise(model, requests, generation, batch_size, seed=seed, share=share, memo=kept)
    return {output.index: output for output in outputs}


Ask = Callable[[torch.Tensor, View], tuple[torch.Tensor, torch.Tensor]]


@torch.inference_mode()
def plainly(model: Any, request: Request, generation: Generation, seed: int = 0, ask: Ask | None = None) -> Output:
    """One canvas by itself, greedily, all logits at every step: no batch, padding, sharing, memo, chunks or stacks.

    ask: what answers a row's tokens, and what a cache sees of it, with logits (L, V) and where they mean something.
    """
    rule, start = request.rule, len(request.prompt)
    width = generation.gen_length if rule.sees_canvas else generation.block_length
    dtype = CONFIDENCE_DTYPES[generation.confidence_dtype]
    generator = Row(request, generation, model, seed).generator
    x = torch.tensor([*request.prompt, *[MASK] * generation.gen_length])
    step_of, forwards, positions = [0] * generation.gen_length, 0, torch.arange(len(x))
    begin, state = start, None
    while begin < len(x):
        first, end = start if rule.sees_canvas else begin, min(begin + generation.block_length, len(x))
        place, seen, step = slice(first, first + width), len(x), 0
        if state is None or not rule.sees_canvas:
            state = tuple(each[None] for each in rule.initial_state(width, VOCABULARY, torch.empty(0, dtype=dtype)))
        while (x[begin:end] == MASK).any():
            if ask is None:
                all_logits, computed = torch.zeros(len(x), VOCABULARY), positions < seen
                all_logits = all_logits.to(dtype)
                all_logits[:seen] = model(x[None, :seen], attention_mask=None).logits[0]
            else:
                committed = [-1] * start + [
                    forwards if x[start + at] == MASK else step_of[at] for at in range(len(step_of))
                ]
                view = View(start, begin, end, step, forwards, np.array(committed), seed=(seed, request.index))
                all_logits, computed = ask(x, view)
            logits = all_logits[None, place].to(dtype)
            eligible = (x[place] == MASK)[None] & computed[place]
            if rule.shadows:
                logits = torch.where(eligible[..., None], logits, beside(model, x, first, width).to(dtype))
            raw = logits.masked_fill(~eligible[..., None], 0.0)
            shown = rule.transform(raw, state).clone() if rule.needs_logits else logits.clone()
            if generation.logits_eos_inf:
                shown[..., EOS] = -torch.inf
            counted = shown.clone()
            if generation.confidence_eos_eot_inf:
                counted[..., list(model.end_token_ids)] = -torch.inf
            probability = counted.softmax(-1)
            shown[..., MASK] = -torch.inf
            token = shown.argmax(-1)
            confidence = probability.gather(-1, token[..., None])[..., 0]
            measure = rule.measure(probability[0])[None] if rule.measures else None
            if generation.confidence_eos_eot_inf or generation.confidence_eos_eot_zero:
                ends = (token == EOS) | (token == EOT) & has_turns(model)
                confidence = confidence.masked_fill(ends, 0.0)
                if measure is not None:
                    nothing = rule.measure(torch.full((1, VOCABULARY), 1 / VOCABULARY, dtype=dtype))
                    measure = torch.where(wide(ends, measure), nothing, measure)
            hidden = ~eligible
            unmeasured = ~computed[place][None] if rule.everywhere else hidden
            kept = probability.gather(-1, x[place][None, :, None])[..., 0]
            kept = kept.masked_fill(eligible | ~computed[place], -torch.inf)
            decision = rule(
                Step(
                    token,
                    confidence.masked_fill(hidden, -torch.inf),
                    eligible,
                    torch.tensor([[generation.quota(step)]]),
                    None if measure is None else measure.masked_fill(wide(unmeasured, measure), -torch.inf),
                    raw if rule.needs_logits else None,
                    kept if rule.revokes else None,
                    torch.rand(width, generator=generator)[None] if rule.needs_noise else None,
                    state,
                    ((begin <= positions) & (positions < end))[place][None],
                    torch.tensor([[(forwards + 1) / generation.steps]], dtype=torch.float64),
                    attention_BKK=attention(model, x[:seen], first, width, rule.attends, dtype),
                )
            )
            looked_BK = torch.ones_like(eligible) if ask is None else computed[place][None]
            commit, state = decision.commit_BK[0], held(looked_BK, state, decision.state)
            for offset in range(width):
                if commit[offset]:
                    x[first + offset], step_of[first - start + offset] = token[0, offset], forwards
                elif decision.revoke_BK is not None and decision.revoke_BK[0, offset]:
                    x[first + offset], step_of[first - start + offset] = MASK, forwards
            forwards, step = forwards + 1, step + 1
            end = end if decision.end_B1 is None else start + int(decision.end_B1)
            seen = seen if decision.seen_B1 is None else begin + int(decision.seen_B1)
        begin = end
    return Output(request.index, x[start:].tolist(), forwards, step_of)


def beside(model: Any, x: torch.Tensor, first: int, width: int) -> torch.Tensor:
    """Logits (1, K, V) at mask tokens beside a canvas, each of which sees it all but for its own position."""
    found = []
    for own in range(first, first + width):
        everything = [*range(len(x)), *range(first, first + width)]
        canvas = [[other < len(x) for other in range(len(everything))]] * len(x)
        shadows = [[other != at for other in range(len(everything))] for at in everything[len(x) :]]
        layout = Layout(torch.tensor([everything]), torch.tensor([canvas + shadows]))
        tokens = torch.tensor([[*x.tolist(), *[MASK] * width]])
        found.append(model.head(model.hidden(Query(tokens, layout=layout))[0, len(x) + own - first]))
    return torch.stack(found)[None]


def attention(
    model: Any, x: torch.Tensor, first: int, width: int, layers: float, dtype: torch.dtype
) -> torch.Tensor | None:
    """The attention (1, K, K) between a canvas's positions, for a rule that asks for that of so many layers."""
    if not layers:
        return None
    found: torch.Tensor = model.hidden_and_attention(Query(x[None]), torch.arange(first, first + width)[None], layers)[
        1
    ]
    return found.to(dtype)


def held(
    looked_BK: torch.Tensor, before: tuple[torch.Tensor, ...], after: tuple[torch.Tensor, ...]
) -> tuple[torch.Tensor, ...]:
    """A rule's new state: the old one at positions where the pass has computed nothing."""
    return tuple(
        torch.where(wide(looked_BK, new), new, old) if new.shape[:2] == looked_BK.shape else new
        for old, new in zip(before, after, strict=True)
    )


def wide(mask: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """A mask of positions for values that are one number or several at each."""
    return mask.view(*mask.shape, *[1] * (values.ndim - mask.ndim))


def has_turns(model: Any) -> bool:
    return EOT in model.end_token_ids


def in_plain_sight(rule: Rule) -> bool:
    """Whether the plain loop can serve a rule: one canvas a pass, until its block is full."""
    return not (rule.edits or rule.drafts)


@pytest.mark.parametrize("name", [name for name in NAMES if in_plain_sight(rule_of(name))])
def test_the_loop_gives_each_row_what_a_plain_loop_gives_it_alone(name: str) -> None:
    @examples
    @given(models, waiting([name]), generations(), batch_sizes, shares, memos)
    def holds(model: Any, requests: list[Request], generation: Generation, size: int, share: bool, memo: bool) -> None:
        found = decoded(model, requests, generation, size, share, memo)
        assert found == {each.index: plainly(model, each, generation) for each in requests}

    holds()


@pytest.mark.parametrize("name", sorted(RULES))
def test_the_loop_gives_a_batch_what_the_reference_gives_it(name: str) -> None:
    plain = dict.fromkeys(SWITCHES, False)

    @examples
    @given(models, rules(name), st.lists(prompts, min_size=1, max_size=6), generations(**plain), batch_sizes, memos)
    def holds(model: Any, rule: Rule, texts: list[Any], generation: Generation, size: int, memo: bool) -> None:
        parameters = {key: value for key, value in vars(rule).items() if key not in ("anchors", "kind")}
        expected = reference(model, texts, generation, name, **parameters)
        requests = [Request(index, text, rule) for index, text in enumerate(texts)]
        found = decoded(model, requests, generation, size, True, memo)
        assert [found[index].tokens for index in range(len(texts))] == expected.tokens
        assert [found[index].forwards for index in range(len(texts))] == expected.forwards

    holds()


@examples
@given(
    models,
    waiting(NAMES),
    generations(temperature=0.8),
    st.integers(0, 2**63 - 1),
    batch_sizes,
    shares,
    memos,
    st.data(),
)
def test_company_and_order_change_nothing_above_temperature_0(
    model: Any,
    requests: list[Request],
    generation: Generation,
    seed: int,
    size: int,
    share: bool,
    memo: bool,
    data: Any,
) -> None:
    """Rows of different decoders share the loop; a part of them, in another order, gets what all of them got."""
    together = decoded(model, requests, generation, size, share, memo, seed)
    some = data.draw(st.permutations(requests))[: data.draw(st.integers(1, len(requests)))]
    again = decoded(model, some, generation, data.draw(batch_sizes), not share, not memo, seed)
    assert again == {each.index: together[each.index] for each in some}
    edited = {each.index: 2 * generation.blocks * getattr(each.rule, "post_steps", 0) for each in requests}
    for output in together.values():
        assert MASK not in output.tokens
        assert output.forwards <= generation.gen_length + edited[output.index]
