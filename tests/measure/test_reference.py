"""The plain loop gives what the published code gave."""

from __future__ import annotations

import pytest

from dlmlab.measure.reference import RULES, reference
from dlmlab.types import Generation
from tests.decodes import decodes, reference_model
from tests.fakes import FakeModel


def test_every_published_decode() -> None:
    assert {decode.name for decode in decodes()} == set(RULES)
    for decode in decodes():
        found = reference(reference_model(), decode.prompts, decode.generation, decode.name, **decode.parameters)
        assert found.tokens == decode.outputs, decode
        assert decode.forwards is None or found.forwards == [decode.forwards] * len(decode.prompts), decode


@pytest.mark.parametrize("rule", ["baseline", "threshold"])
def test_padding_changes_nothing(rule: str) -> None:
    prompts, generation = [[3, 1, 4, 1, 5], [9], [2, 6]], Generation(8, 4, 4)
    parameters = {"threshold": 0.6} if rule == "threshold" else {}
    together = reference(FakeModel(), prompts, generation, rule, **parameters)
    for place, prompt in enumerate(prompts):
        alone = reference(FakeModel(), [prompt], generation, rule, **parameters)
        assert alone.tokens == together.tokens[place : place + 1]
        assert alone.forwards == together.forwards[place : place + 1]
