"""A task that is only data: a YAML and a file of lines."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dlmlab.errors import UserError
from dlmlab.task.extract import last_number, matched, whole
from dlmlab.task.jsonl import Jsonl

LINES = [{"city": "Oslo", "country": "Norway"}, {"city": "Lima", "country": "Peru", "id": "capital of Peru"}]


def task(path: Path, **settings: Any) -> Jsonl:
    usual = {"prompt": "Where is {{ city }}?\n", "answer": "{{ country }}", "filter": whole}
    return Jsonl(name="x", version="1", gen_length=8, block_length=8, steps=8, path=str(path), **usual | settings)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "cities.jsonl"
    path.write_text("\n\n".join(map(json.dumps, LINES)) + "\n")
    return path


def test_lines_fill_the_templates(file: Path) -> None:
    first, second = task(file).items()
    assert (first.id, first.prompt, first.answer) == ("cities.jsonl/1", "Where is Oslo?\n", "Norway")
    assert second.id == "capital of Peru"


def test_gzipped_lines_are_the_same_items(file: Path, tmp_path: Path) -> None:
    packed = tmp_path / "cities.jsonl.gz"
    packed.write_bytes(gzip.compress(file.read_bytes()))
    assert [item.prompt for item in task(packed).items()] == [item.prompt for item in task(file).items()]


def test_an_answer_is_right_where_the_filter_gives_it(file: Path) -> None:
    own = task(file, filter=partial(matched, pattern=r"in (\w+)"))
    item = own.items()[0]
    scores = [own.score(item, text) for text in ("It is in Norway.", "It is in Peru.", "I don't know", "")]
    assert [(score.value, score.reason) for score in scores] == [
        (1.0, ""), (0.0, "wrong answer"), (0.0, "no answer"), (0.0, "no answer")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("read", "text", "found"),
    [
        (whole, " a b\n", "a b"),
        (last_number, "3 apples, then $1,250.50.", "1250.50"),
        (last_number, "It is -7", "-7"),
        (last_number, "none", ""),
        (partial(matched, pattern="[a-z]+"), "1 abc", "abc"),
        (partial(matched, pattern="a(b)?"), "ac", ""),
    ],
)
def test_filters(read: Callable[[str], str], text: str, found: str) -> None:
    assert read(text) == found


@pytest.mark.parametrize(
    ("content", "settings", "message"),
    [
        ("", {}, "has no item"),
        ("[1]\n", {}, "line 1: not a JSON object"),
        ('{"city": "Oslo"}\n', {}, r"line 1: task.answer cannot be filled \('country' is undefined\): it has city"),
        ('{"city": "Oslo"}\n', {"prompt": "{{ city"}, "task.prompt='{{ city' is no Jinja template"),
        (
            "{}\n",
            {"prompt": "Where is {city}?"},
            r"task.prompt='Where is {city}\?' names no field .*: write it as {{ field }}",
        ),
        (
            '{"city": null, "country": 3}\n',
            {},
            r"line 1: task.prompt cannot be filled \(null is no text and no number\)",
        ),
        ('{"city": "Oslo", "country": ["NO"]}\n', {}, r'task.answer cannot be filled \(\["NO"\] is no text'),
        ('{"city": "", "country": "", "id": 1}\n' * 2, {}, "ids are not unique"),
    ],
)
def test_a_bad_file_is_one_line(tmp_path: Path, content: str, settings: dict[str, Any], message: str) -> None:
    (tmp_path / "bad.jsonl").write_text(content)
    with pytest.raises(UserError, match=message) as error:
        task(tmp_path / "bad.jsonl", **settings).items()
    assert "\n" not in str(error.value)


def test_a_template_runs_no_code(file: Path) -> None:
    with pytest.raises(UserError, match="cannot be filled"):
        task(file, prompt="{{ city.__class__.__mro__ }}").items()
