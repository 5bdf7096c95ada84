"""docs/decoders.md says of every decoder what its config and class say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from dlmlab.rule import Rule
from tests.decoder.steps import CONF, NAMES, rule_of

PAGE = Path(__file__).resolve().parents[2] / "docs" / "decoders.md"
TABLE = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.read_text(encoding="utf-8").splitlines()
    if line.startswith("| `")
]
ROWS = {
    cells[0].strip("`"): dict(zip(("rule", "values", "source", "needs", "with"), cells[1:], strict=True))
    for cells in TABLE
}


def words(cell: str) -> set[str]:
    return {word.strip() for word in cell.split(",") if word.strip()}


def needs(rule: Rule) -> set[str]:
    flags = {
        "schedule": rule.scheduled,
        "noise": rule.needs_noise,
        "measure": rule.measures,
        "logits": rule.needs_logits,
        "kept": rule.revokes,
        "state": bool(rule.initial_state(2, 3, torch.empty(0))),
    }
    return {word for word, needed in flags.items() if needed}


def test_the_table_has_every_decoder_once() -> None:
    assert sorted(cells[0].strip("`") for cells in TABLE) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_row_says_what_config_and_class_say(name: str) -> None:
    row, rule = ROWS[name], rule_of(name)
    assert needs(rule) == words(row["needs"])
    fits = {
        "sharing": not (rule.needs_logits or rule.revokes),
        "memo": rule.memoisable,
        "cache": not rule.revokes,
    }
    assert {word for word, fitting in fits.items() if fitting} == words(row["with"])
    assert row["source"] in (type(rule).__doc__ or "")

    config = OmegaConf.load(CONF / f"{name}.yaml")
    given = OmegaConf.to_container(config, resolve=False)
    assert isinstance(given, dict)
    values = {key: value for key, value in given.items() if key not in ("_target_", "anchors")}
    if row["values"].endswith(": the model's"):
        assert values == {key: f"${{model.localleap.{key}}}" for key in re.findall(r"`(\w+)`", row["values"])}
    else:
        assert {key: str(value) for key, value in values.items()} == dict(
            re.findall(r"`(\w+)` ([\d.]+)", row["values"])
        )
    assert set(re.findall(r"`(\w+)`", row["rule"])) == set(values)
