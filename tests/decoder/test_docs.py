"""The table of docs/decoders.md says of every decoder what its config and class say, and is up to date."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from docs import decoder_table
from tests.decoder.steps import CONF, NAMES, rule_of

COLUMNS = ("rule", "values", "source", "needs", "with", "published")
TABLE = [
    [cell.strip() for cell in line.strip("|\n").split("|")]
    for line in decoder_table.table().splitlines()
    if line.startswith("| `")
]
ROWS = {cells[0].strip("`"): dict(zip(COLUMNS, cells[1:], strict=True)) for cells in TABLE}


def test_the_page_is_up_to_date() -> None:
    page = decoder_table.PAGE.read_text(encoding="utf-8")
    assert decoder_table.renewed(page) == page, "make docs"


def words(cell: str) -> set[str]:
    return {word.strip() for word in cell.split(",") if word.strip()}


def test_the_table_has_every_decoder_once() -> None:
    assert [cells[0].strip("`") for cells in TABLE] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_row_says_what_config_and_class_say(name: str) -> None:
    row, rule = ROWS[name], rule_of(name)
    assert set(decoder_table.needs(rule)) == words(row["needs"])
    fits = {"sharing": not (rule.needs_logits or rule.revokes or rule.drafts), "memo": rule.memoisable}
    assert {word for word, fitting in fits.items() if fitting} == words(row["with"])
    assert row["source"] in (type(rule).__doc__ or "")

    given = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"), resolve=False)
    assert isinstance(given, dict)
    published = given.pop("published", {})
    assert words(row["published"]) == {f"`{key}` {value}" for key, value in published.items()}
    if name == "prophet":
        given["thresholds"] = "early 7.5 / mid 5.0 / late 2.5"
    values = {key: str(value).replace("None", "null") for key, value in given.items() if key != "_target_"}
    assert dict(re.findall(r"`(\w+)` ([^,]+)", row["values"])) == {
        key: "the model's" if value == f"${{model.localleap.{key}}}" else value for key, value in values.items()
    }
    assert set(re.findall(r"`(\w+)`", row["rule"])) <= set(values) | {"remasking"}


def test_a_decoder_without_a_comment_is_described_by_its_class(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("_target_: dlmlab.decoder.threshold.Threshold\nthreshold: 0.8\n")
    name, rule, values, source, *_ = decoder_table.row(tmp_path / "mine.yaml")
    assert (name, values, source) == ("`mine`", "`threshold` 0.8", "")
    assert rule == "Commit the most confident position and every position of at least `threshold`; steps play no part"
