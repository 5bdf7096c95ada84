"""Docstrings that tools can read: `Args:` names each parameter of a public function, `Attributes:` a class's fields.

The site is built from the library's (`make docs`), and editors show them; the experiments' are held to the same. A
function of one parameter may say in its sentence what that is. `Task.score` is every task's: those that override it
say only what is theirs. A class may say in its sentences what its fields are, but where it lists one, it lists all.
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
FIELDS = re.compile(r"(?:^|[.;:]\s+)(\w+(?:, \w+)*): ", re.MULTILINE)
"""The beginning of `field: prose`, of one field or several, in a line or a sentence."""


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


def fields(node: ast.ClassDef) -> list[str]:
    """Public annotated fields that a class declares itself, without those that a docstring of their own follows."""
    found = []
    for place, each in enumerate(node.body):
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name) and each.target.id[0] != "_":
            after = node.body[place + 1] if place + 1 < len(node.body) else None
            told = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            if not told and "ClassVar" not in ast.unparse(each.annotation):
                found.append(each.target.id)
    return found


def listed(docstring: str) -> tuple[set[str], str]:
    """Names of a docstring's `Attributes:`, and what the docstring says outside of its sections."""
    found, prose, section = set(), [], ""
    for line in docstring.splitlines():
        if match := SECTION.match(line):
            section = match[1]
        elif not line.startswith(" "):
            section = section if not line else ""
            prose.append(line)
        elif section == "Attributes" and (match := re.match(r" {4}(\w+): \S", line)):
            found.add(match[1])
    return found, "\n".join(prose)


def unlisted(path: Path) -> list[str]:
    """Public classes of a file whose `Attributes:` leave a field out, or that describe one in a `field: prose`."""
    found = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.ClassDef) or node.name.startswith("_"):
            continue
        own, (names, prose) = fields(node), listed(ast.get_docstring(node) or "")
        in_prose = {name for match in FIELDS.finditer(prose) for name in match[1].split(", ")}
        if left := [each for each in own if each in in_prose or (names and each not in names)]:
            found.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {', '.join(left)}")
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


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_attributes_name_every_field(path: Path) -> None:
    assert not unlisted(path)


def test_a_field_that_is_left_out_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    source = tmp_path / "some.py"
    source.write_text(
        'class One:\n    """It has a, and b."""\n\n    a: int\n    b: int\n\n'
        'class Two:\n    """It.\n\n    Attributes:\n        a: This:\n            b: not one.\n    """\n\n'
        "    a: int\n    b: int\n    c: ClassVar[int] = 0\n    _d: int = 0\n"
        '    e: int = 0\n    """That."""\n\n'
        'class Three:\n    """It. a: this. b, c: those.\n\n    Raises:\n        d: no.\n    """\n\n'
        "    a: int\n    b: int\n    c: int\n    d: int\n\n"
        'class _Four:\n    """a: this."""\n\n    a: int\n'
    )
    assert unlisted(source) == ["some.py:7 Two: b", "some.py:22 Three: a, b, c"]
