"""Rules against decodes that their published code gave (tests/data/rules, tests/data/decoders)."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from dlmlab.cache.dual import Dual
from dlmlab.decoder.baseline import Baseline
from dlmlab.decoder.eb import EB
from dlmlab.decoder.factor import Factor
from dlmlab.decoder.klass import KLASS
from dlmlab.decoder.saber_published import SaberPublished
from dlmlab.rule import Rule
from tests import golden
from tests.decoder.steps import rule_of

RULES: dict[str, Callable[..., Rule]] = {
    "eb_entropy": EB,
    "eb_margin": EB,
    "factor_nvlabs": lambda **parameters: Factor(**parameters, variant="published"),
    "klass_blocks": KLASS,
    "llada_cfg": Baseline,
    "llada_confidence_eos_eot_inf": Baseline,
    "saber_published": SaberPublished,
}


@pytest.mark.parametrize("name", RULES)
def test_it_decodes_as_its_published_code(name: str) -> None:
    cases = list(golden.rules(name))
    golden.check(cases, [RULES[name](**case.parameters) for case in cases])


DECODERS: dict[str, dict[str, Any]] = {
    "adablock_none": {"name": "adablock"},
    "adablock_dual": {"name": "adablock", "cache": Dual()},
    "dapd": {"name": "dapd"},
    "dinfer_hierarchy": {"name": "hierarchy", "stop_at_end": True},
    "pc_sampler": {"name": "pc_sampler"},
    "prophet": {"name": "prophet"},
    "slowfast": {"name": "slowfast"},
    "wino": {"name": "wino"},
}


@pytest.mark.parametrize("case", DECODERS)
def test_it_commits_what_its_published_code_does_at_the_same_passes(case: str) -> None:
    told = dict(DECODERS[case])
    rule, cache = rule_of(told.pop("name")), told.pop("cache", None)
    cases = list(golden.decoders(case, **told))
    golden.check(cases, [replace(rule, **each.parameters) for each in cases], cache)  # type: ignore[type-var]
