"""With a cache too, a model that works while the host goes on is asked ahead, and nothing but time comes of that."""

from __future__ import annotations

from itertools import product

import pytest

from dlmlab.cache.dkv import DKV
from dlmlab.cache.dpad import DPad
from dlmlab.cache.dual import Dual
from dlmlab.cache.onward import Onward
from dlmlab.cache.prefix import Prefix
from dlmlab.cache.suffix import Suffix
from dlmlab.decoder.baseline import Baseline
from dlmlab.decoder.saber import Saber
from dlmlab.decoder.threshold import Threshold
from dlmlab.generation import generate
from dlmlab.loop.row import Row
from dlmlab.model.llada import LLaDAModelLM
from dlmlab.policy import Policy
from dlmlab.rule import Rule
from tests.model.helpers import small_model

PROMPTS = [[1, 2, 3], [4, 5, 6, 7, 8, 9], [7], [3, 1, 4, 1, 5]]


STEADY = [Prefix(), Dual(), Onward(), Suffix(4), DPad(8)]
PAIRS = [*product(STEADY, [Baseline(), Threshold(0.02), Saber(2, 2)]), (DKV(), Baseline()), (DKV(), Threshold(0.02))]


@pytest.mark.parametrize(("cache", "rule"), PAIRS, ids=lambda each: type(each).__name__)
def test_answers_are_the_same(cache: Policy, rule: Rule, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model()

    def run() -> list[object]:
        settings = {"gen_length": 24, "block_length": 8, "steps": 12, "batch_size": 3, "trace": True}
        outs = generate(model, PROMPTS, rule, cache=cache, **settings)
        return [(out, out.positions, out.trace) for out in outs]

    plain = run()
    monkeypatch.setattr(LLaDAModelLM, "works_ahead", property(lambda _: True))
    assert run() == plain


@pytest.mark.parametrize(("cache", "begun"), [(Dual(), [2, 3, 4, 4]), (DKV(), [1, 2, 3, 4])], ids=["steady", "other"])
def test_the_next_pass_begins_first_where_plans_are_steady(
    cache: Policy, begun: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, passes = small_model(), 0
    hidden, commit, seen = LLaDAModelLM.hidden, Row.commit, []

    def counted(self: LLaDAModelLM, *asked: object) -> object:
        nonlocal passes
        passes += 1
        return hidden(self, *asked)  # type: ignore[arg-type]

    def watched(row: Row, *told: object) -> None:
        seen.append(passes)
        commit(row, *told)  # type: ignore[arg-type]

    monkeypatch.setattr(LLaDAModelLM, "works_ahead", property(lambda _: True))
    monkeypatch.setattr(LLaDAModelLM, "hidden", counted)
    monkeypatch.setattr(Row, "commit", watched)
    generate(model, PROMPTS[:1], Baseline(), cache=cache, gen_length=8, block_length=8, steps=4)
    assert seen == begun, "after a block's last pass there is none"
