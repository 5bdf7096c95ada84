"""Every policy against published code: the same tokens from the same passes over the same positions, and logits."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.cache import golden
from tests.cache.golden import AS_PUBLISHED, METHODS, Listening, answer, cases, decoder_of, logits, policy_of, ranges

TOLERANCE = 1e-4
"""Of a logit, as a share of the largest."""


@pytest.mark.parametrize("method", METHODS)
def test_tokens_passes_and_computed_positions_are_those_of_published_code(method: str) -> None:
    for case in cases(method):
        output = answer(case)
        assert output.tokens == case["tokens"], case["id"]
        assert output.step_of == case["step_of"], case["id"]
        assert [step.computed for step in output.trace] == list(map(ranges, case["computed"])), case["id"]
        assert output.forwards == len(case["computed"])
        assert output.positions == sum(end - begin for each in case["computed"] for begin, end in each)


def test_only_the_named_cases_hang_on_what_the_code_of_d2cache_does_besides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden, "policy_of", lambda case: replace(policy_of(case), variant="paper"))
    for case in cases("d2cache"):
        computed = [step.computed for step in answer(case).trace]
        assert (computed != list(map(ranges, case["computed"]))) == (case["id"] in AS_PUBLISHED), case["id"]


@pytest.mark.parametrize("method", METHODS)
def test_logits_are_those_of_published_code(method: str) -> None:
    published = logits(method)
    assert published
    for case in cases(method):
        wanted = {number: found for (name, number), found in published.items() if name == case["id"]}
        if not wanted:
            continue
        listening = Listening(decoder_of(case["decoder"]))
        trace = answer(case, listening).trace
        for number, (positions, expected_NV) in wanted.items():
            [logits_KV], [eligible_K] = listening.steps[number].logits_BKV, listening.steps[number].eligible_BK
            begin = trace[number].begin - positions.start
            expected_KV = expected_NV[begin : begin + len(logits_KV)]
            error = (logits_KV[:, ::8] - expected_KV)[eligible_K].abs().max()
            assert error <= TOLERANCE * expected_KV.abs().max(), (case["id"], number)
            assert torch.isfinite(error)
