"""The tables of docs/caches.md are up to date, and say what the classes declare."""

from __future__ import annotations

from docs import cache_table
from tests.cache.test_contract import NAMES
from tests.decoder.steps import NAMES as DECODERS


def test_the_page_is_up_to_date() -> None:
    page = cache_table.PAGE.read_text(encoding="utf-8")
    assert cache_table.renewed(page) == page, "make docs"


def test_the_tables_have_every_cache_and_decoder() -> None:
    caches = [line.split("`")[1] for line in cache_table.policies().splitlines()[2:]]
    assert caches == NAMES
    head, _, *rows = cache_table.pairs().splitlines()
    assert head.split("`")[1::2] == NAMES
    assert [row.split("`")[1] for row in rows] == DECODERS
    [saber] = [row for row in rows if row.startswith("| `saber` ")]
    fits = dict(zip(NAMES, (cell.strip() for cell in saber.strip("|").split("|")[1:]), strict=True))
    assert (fits["dual"], fits["dkv"]) == ("✓", "–")
