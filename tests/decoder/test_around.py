"""A rule inside another one, and from the command line."""

import pytest

from dlmlab.decoder.adablock import AdaBlock
from dlmlab.decoder.prophet import Prophet
from dlmlab.errors import UserError
from tests.decoder.steps import NAMES, rule_of

LIMITS = {"early": 1.0, "mid": 1.0, "late": 1.0}
OUTER = {"AdaBlock": lambda rule: AdaBlock([9], 0.5, rule=rule), "Prophet": lambda rule: Prophet(0, LIMITS, rule=rule)}


@pytest.mark.parametrize("outer", OUTER)
@pytest.mark.parametrize("name", NAMES)
def test_a_rule_that_does_more_than_commit_is_refused_inside_another(outer, name):
    rule = rule_of(name)
    if rule.edits or rule.shadows or rule.drafts or rule.cuts:
        with pytest.raises(UserError, match=f"rule={type(rule).__name__} .*can't inside {outer}: choose another rule"):
            OUTER[outer](rule)
    elif not rule.revokes:
        assert OUTER[outer](rule).inner is rule


def test_a_rule_takes_the_name_of_another_that_decides_inside_it(command):
    status, _, errors = command(
        "experiment=trace", "decoder=adablock", "decoder.rule=frechet", "decoder.delimiter_ids=[204]", "prompt=Hi",
        "device=cpu", "tracking=terminal",
    )  # fmt: skip
    assert status == 0, errors


def test_a_rule_that_there_is_not_is_one_line(command):
    status, _, errors = command("decoder=prophet", "decoder.rule=frechett", "device=cpu", "tracking=terminal")
    assert status == 1
    assert errors.startswith("error: decoder.rule='frechett' is not one of")
    assert errors.endswith("did you mean frechet?\n")
