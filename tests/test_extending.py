"""What docs/extending.md shows works as it stands: its files are written, its commands are run."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dlmlab.run import cli

PAGE = (Path(__file__).parents[1] / "docs" / "extending.md").read_text(encoding="utf-8")
FILE = re.compile(r"^`([\w/.]+)`\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMANDS = re.findall(r"^```\n(dlmlab .*?)\n```$", PAGE, re.MULTILINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory with the page's files, which is the current one."""
    folder = tmp_path_factory.mktemp("extending")
    for name, text in FILE.findall(PAGE):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        patch.setenv("DLMLAB_ROOT", str(folder))
        yield folder


def test_the_page_shows_every_extension_point() -> None:
    points = ["decoder", "cache", "task", "gate", "model family", "experiment", "tracker", "sweep"]
    assert [name.lower() for name in re.findall(r"^## An? (.*)$", PAGE, re.MULTILINE)] == points
    assert len(COMMANDS) == len(points)


@pytest.mark.parametrize("typed", COMMANDS, ids=re.findall(r"^## An? (.*)$", PAGE, re.MULTILINE))
def test_what_the_page_says_works(folder: Path, typed: str, monkeypatch: pytest.MonkeyPatch, capfd) -> None:
    monkeypatch.setattr(sys, "argv", shlex.split(typed))
    status = cli.exit_status(cli.main)
    shown = capfd.readouterr()
    assert status == 0, shown.err
    assert any(line.startswith(str(folder / "outputs")) for line in shown.out.splitlines()), "where the run is"


def test_items_of_a_task_that_is_only_data_are_filled_in(folder: Path) -> None:
    shown = "".join(path.read_text() for path in folder.glob("outputs/**/samples.jsonl"))
    assert "Which colour has snow?" in shown


def test_the_tracker_was_told(folder: Path) -> None:
    assert (folder / "verdicts.txt").read_text().startswith(str(folder / "outputs"))
