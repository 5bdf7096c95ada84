"""Open prompts are the lines of a text file."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.utils import instantiate

from dlmlab.errors import UserError
from dlmlab.task.base import Task
from dlmlab.task.open_prompts import OpenPrompts

CONFIG = Path(__file__).parents[2] / "conf/task/open_prompts.yaml"


def task(**settings: Any) -> OpenPrompts:
    built: OpenPrompts = instantiate(yaml.safe_load(CONFIG.read_text()) | settings)
    return built


def test_the_projects_own_prompts() -> None:
    items = task().items()
    assert len({item.prompt for item in items}) == 50
    assert len({item.id for item in items}) == 50
    assert items == task(limit=None).items()
    assert any(not item.prompt.isascii() for item in items)


def test_an_answer_has_no_score_of_its_own() -> None:
    prompts: Task = task()
    assert prompts.score(prompts.items()[0], "Because.") is None


def test_only_line_feeds_end_a_prompt(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_bytes("one\u2028still one\x0cand\x85on\rhere\r\ntwo\n".encode())
    assert [item.prompt for item in task(path=str(file), limit=None).items()] == [
        "one\u2028still one\x0cand\x85on\rhere",
        "two",
    ]


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("\ufeffFirst\n\n  Zweite ä \r\n", encoding="utf-8")
    items = task(path=str(file), limit=None).items()
    assert [(item.id, item.prompt) for item in items] == [("mine.txt/1", "First"), ("mine.txt/3", "Zweite ä")]
    assert task(path=str(file)).fingerprint == task(path=str(file), limit=1).fingerprint != task().fingerprint


@pytest.mark.parametrize(
    ("content", "settings", "message"),
    [
        (None, {}, r"mine\.txt could not be read \(No such file or directory\)"),
        (b" \n\n", {}, "has no prompt: write one a line"),
        (b"one\ntwo\nd\xe9j\xe0\n", {}, "line 3: not UTF-8"),
        (b"one\ntwo\n", {"limit": 3}, "limit=3 is more than the 2 items"),
    ],
)
def test_bad_file_is_one_line(tmp_path: Path, content: bytes | None, settings: dict[str, Any], message: str) -> None:
    file = tmp_path / "mine.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        task(path=str(file), **settings).items()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\r"])
def test_only_a_newline_ends_a_prompt(tmp_path: Path, separator: str) -> None:
    file = tmp_path / "mine.txt"
    file.write_text(f"Count{separator}up\r\nSay hello.\n", encoding="utf-8", newline="")
    assert [item.prompt for item in task(path=str(file), limit=None).items()] == [f"Count{separator}up", "Say hello."]
