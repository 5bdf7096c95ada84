"""Rules against decodes that their published code gave (tests/data/rules)."""

from collections.abc import Callable

import pytest

from dlmlab.decoder.baseline import Baseline
from dlmlab.decoder.eb import EB
from dlmlab.decoder.factor import Factor
from dlmlab.decoder.saber_published import SaberPublished
from dlmlab.rule import Rule
from tests import golden

RULES: dict[str, Callable[..., Rule]] = {
    "eb_entropy": EB,
    "eb_margin": EB,
    "factor_nvlabs": lambda **parameters: Factor(**parameters, variant="published"),
    "llada_confidence_eos_eot_inf": Baseline,
    "saber_published": SaberPublished,
}


@pytest.mark.parametrize("name", RULES)
def test_it_decodes_as_its_published_code(name: str) -> None:
    cases = list(golden.rules(name))
    golden.check(cases, [RULES[name](**case.parameters) for case in cases])
