"""Docstrings that tools can read: a public function's `Args:` names each of its parameters.

The site is built from the library's (`make docs`), and editors show them; the experiments' are held to the same. A
function of one parameter may say in its sentence what that is. `Task.score` is every task's: those that override it
say only what is theirs.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OVERRIDDEN = {"score"}
"""Methods of a contract, which describes what they take."""
SECTION = re.compile(r"^(Args|Attributes|Returns|Yields|Raises|Example|Examples|Note):$")


def public_functions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every function and method whose name and class are public, by its dotted name."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            yield node.name, node
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef) and not inner.name.startswith("_"):
                    yield f"{node.name}.{inner.name}", inner


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """Names of what a function takes, without self and cls."""
    given = function.args
    names = [each.arg for each in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    names += [each.arg for each in (given.vararg, given.kwarg) if each]
    return [name for name in names if name not in ("self", "cls")]


def described(docstring: str) -> set[str]:
    """Names that a Google-style docstring's `Args:` describes."""
    found, section, indent = set(), "", 0
    for line in docstring.splitlines():
        if match := SECTION.match(line.strip()):
            section, indent = match[1], len(line) - len(line.lstrip()) + 4
        elif (
            section == "Args"
            and line[:indent].isspace()
            and (match := re.match(r"\*{0,2}(\w+(?:, \*{0,2}\w+)*)(?: \([^)]*\))?: ", line[indent:]))
        ):
            found |= {name.lstrip("*") for name in match[1].split(", ")}
    return found


def missing(path: Path) -> list[str]:
    """Public functions of a file with two and more parameters whose `Args:` leave one out."""
    found = []
    for name, function in public_functions(ast.parse(path.read_text(encoding="utf-8"))):
        takes = parameters(function)
        text = ast.get_docstring(function)
        owner, _, own = name.rpartition(".")
        if len(takes) < 2 or (owner and (text is None or (own in OVERRIDDEN and owner != "Task"))):
            continue
        if left := [each for each in takes if each not in described(text or "")]:
            found.append(f"{path.relative_to(ROOT)}:{function.lineno} {name}: {', '.join(left)}")
    return found


FILES = sorted(path for folder in ("dlmlab", "experiments") for path in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_args_name_every_parameter(path: Path) -> None:
    assert not missing(path)


def test_what_is_missing_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    source = tmp_path / "some.py"
    source.write_text(
        'def one(a):\n    """Do."""\n\n'
        'def two(a, *, b):\n    """Do.\n\n    Args:\n        a: It.\n    """\n\n'
        'def both(a, b, **more):\n    """Do.\n\n    Args:\n        a, b: Them.\n        **more: Others.\n    """\n\n'
        'class It:\n    def three(self, a, b):\n        """Do.\n\n        Raises:\n            b: no.\n        """\n'
    )
    assert missing(source) == ["some.py:4 two: b", "some.py:20 It.three: a, b"]
