"""CI's packages are those that pyproject.toml asks for, each known by its hashes."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
EXTRAS = ("dev", "eval", "inspect", "joblib", "optuna", "ray", "slurm", "trackio")
ENTRIES = (ROOT / ".ci" / "requirements.txt").read_text().replace("\\\n", " ").splitlines()


def locked(python: str) -> dict[str, str]:
    """Versions by name, on a Python of Linux."""
    where = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}
    entries = [Requirement(entry.partition("--hash")[0].strip()) for entry in ENTRIES]
    return {
        canonicalize_name(entry.name): str(entry.specifier).removeprefix("==")
        for entry in entries
        if entry.marker is None or entry.marker.evaluate(where)
    }


def wanted() -> Iterator[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    yield from map(Requirement, project["dependencies"])
    for extra in EXTRAS:
        yield from map(Requirement, project["optional-dependencies"][extra])


@pytest.mark.parametrize("python", ["3.11", "3.12"])
def test_the_lock_has_a_version_within_the_bounds_of_every_dependency(python: str) -> None:
    versions = locked(python)
    [versions["torch"]] = re.findall(r"torch==(\S+)", (ROOT / ".ci" / "run").read_text())
    wrong = [f"{each} ({versions.get(canonicalize_name(each.name))})" for each in wanted()
             if not each.specifier.contains(versions.get(canonicalize_name(each.name), ""))]  # fmt: skip
    assert not wrong, "make lock"


def test_every_package_of_the_lock_is_known_by_its_hashes() -> None:
    assert len(ENTRIES) > 100
    assert [entry for entry in ENTRIES if not re.search(r"==.* --hash=sha256:[0-9a-f]{64}", entry)] == []


def test_every_dependency_is_bounded_on_both_sides_and_named_once() -> None:
    names = [canonicalize_name(each.name) for each in wanted()]
    assert sorted(set(names)) == sorted(names)
    for each in wanted():
        operators = {clause.operator for clause in each.specifier}
        assert {">=", "<"} <= operators, each
