"""An audit changes no answer, and finds nothing where nothing is kept from before a change."""

from __future__ import annotations

from dlmlab.cache.dual import Dual
from dlmlab.cache.prefix import Prefix
from dlmlab.decoder.baseline import Baseline
from dlmlab.denoise import denoise
from dlmlab.measure.audit import Audited, summary, tables
from dlmlab.policy import Plan, Policy, View
from dlmlab.types import Generation, Request
from tests.test_properties import small_llada

GENERATION = Generation(gen_length=12, block_length=6, steps=12, confidence_dtype="float64")
PROMPTS = [(1, 2, 3), (4, 5), (6, 7, 8, 9)]


class Faithful(Policy):
    """Computes all but one position of the prompt, whose keys and values are made wrong on purpose nowhere."""

    def plan(self, view: View) -> Plan:
        return Plan(view.everything if view.step == 0 else view.between(1, 99))


def requests(cache: Policy) -> list[Request]:
    return [Request(index, prompt, Baseline(), cache=cache) for index, prompt in enumerate(PROMPTS)]


def test_an_audit_changes_nothing_and_says_how_far_each_layer_is_off() -> None:
    for cache in (Dual(), Prefix(), Faithful()):
        audited = Audited(small_llada(), 2)
        plain = list(denoise(small_llada(), requests(cache), GENERATION, 3))
        assert list(denoise(audited, requests(cache), GENERATION, 3)) == plain
        assert len(audited.audits) == 3 * sum(number % 2 == 0 and number % 6 > 0 for number in range(12))
        for audit in audited.audits:
            assert 0 <= audit.same <= 1
            assert audit.kl > -1e-6
            assert abs(audit.keys[0] - 1) < 1e-6, "the first layer's keys follow from the tokens alone"
            assert audit.keys[1] < 1
        found = summary(audited.audits)
        assert found["audits"] == len(audited.audits) == sum(each["audits"] for each in found["by_age"])
        assert len(tables(found)) == 2


def test_no_audit_has_no_tables() -> None:
    assert summary([]) == {}
    assert tables({}) == []
