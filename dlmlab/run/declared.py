"""What a function or class takes and a module says, read from its source: nothing is imported, torch least of all.

    kinds("dlmlab.decoder.localleap.LocalLeap")  # {'kappa': Annotated[float, Limits(0, 1)], …}

What can't be read so, such as a class that is made at run time, is anything here, and is looked at once it is imported.
"""

from __future__ import annotations

import ast
import builtins
import sys
from functools import cache
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

SETTINGS = "dlmlab.settings"


class Unread:
    """Stands for a value that only the import of its module gives; as an annotation it allows anything."""


class Defined(NamedTuple):
    """A definition, and the module that it stands in."""

    module: str
    node: ast.AST


def kinds(target: str) -> dict[str, Any] | None:
    """Return the annotations of a function's or class's parameters by name, as `dlmlab.settings.kinds_of` does.

    Args:
        target: The dotted name of it.

    Returns:
        The annotations; None where its source isn't found, or isn't sure to show all of them.
    """
    found = _find(target)
    if found is None:
        return None
    module, node = found
    if isinstance(node, ast.FunctionDef):
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        given = {each.arg: _kind(module, each.annotation) for each in arguments}
        return given | ({"**": Any} if node.args.kwarg else {})
    return _fields(found) if isinstance(node, ast.ClassDef) else None


def constant(target: str) -> dict[str, Any] | None:
    """Return the annotations that a module's dict of them holds.

    Args:
        target: The dict's dotted name, such as `experiments.evaluate.KINDS`.

    Returns:
        The annotations, none where the module has no such dict; None where its source doesn't show all of them.
    """
    found = _find(target)
    if found is None:
        return {} if _tree(target.rpartition(".")[0]) else None
    if not isinstance(found.node, ast.Dict):
        return None
    held = dict[str, Any]()
    for key, value in zip(found.node.keys, found.node.values, strict=True):
        if isinstance(key, ast.Constant):
            held[str(key.value)] = _kind(found.module, value)
        elif isinstance(value, ast.Name) and (other := constant(f"{found.module}.{value.id}")) is not None:
            held |= other  # **OTHER
        else:
            return None
    return held


def _fields(found: Defined) -> dict[str, Any] | None:
    """Return the annotations of a dataclass's fields, its bases' first; None for another class."""
    module, node = found
    assert isinstance(node, ast.ClassDef)
    if not any("dataclass" in ast.unparse(each) for each in node.decorator_list):
        return None
    held = dict[str, Any]()
    for base in node.bases:
        above = _find(f"{module}.{ast.unparse(base)}")
        if above is not None and isinstance(above.node, ast.ClassDef):
            held |= _fields(above) or {}
    for each in node.body:
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name) and not _of_class(each.annotation):
            held[each.target.id] = _kind(module, each.annotation)
    return held


def _of_class(annotation: ast.expr) -> bool:
    """Return whether an annotation is that of a class's own value, which is no field."""
    return ast.unparse(annotation).startswith("ClassVar")


def _kind(module: str, annotation: ast.expr | None) -> Any:
    """Return an annotation's value; anything where it can't be told without an import."""
    if annotation is None:
        return Any
    holder = type("Holder", (), {"__annotations__": {"kind": ast.unparse(annotation)}})
    names = {each.id: _value(module, each.id) for each in ast.walk(annotation) if isinstance(each, ast.Name)}
    try:
        return get_type_hints(holder, names, include_extras=True)["kind"]
    except (NameError, TypeError, AttributeError, SyntaxError):
        return Any


def _value(module: str, name: str) -> Any:
    """Return what a name stands for in a module, as far as its sources say."""
    if name in dir(builtins):
        return getattr(builtins, name)
    found = _find(f"{module}.{name}")
    if found is None:
        return Unread
    if _light(found.module):
        return getattr(import_module(found.module), name)
    if isinstance(found.node, ast.Dict):
        return {key.value: Unread for key in found.node.keys if isinstance(key, ast.Constant)}
    try:
        return ast.literal_eval(found.node)
    except (ValueError, TypeError):
        return _kind(found.module, found.node) if isinstance(found.node, ast.expr) else Unread


def _light(module: str) -> bool:
    """Return whether a module is imported where an annotation names something of it: a few milliseconds."""
    return module == SETTINGS or module.partition(".")[0] in sys.stdlib_module_names


def _find(target: str) -> Defined | None:
    """Return what defines a dotted name, through the modules that hand it on; None where that can't be told."""
    module, _, name = target.rpartition(".")
    if _light(module):
        return Defined(module, ast.Pass())
    tree = _tree(module)
    return next((found for node in tree.body if (found := _defined(module, node, name))), None) if tree else None


def _defined(module: str, node: ast.stmt, name: str) -> Defined | None:
    """Return what a statement of a module defines under a name, if it does."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
        return Defined(module, node)
    if isinstance(node, ast.ImportFrom) and not node.level:
        for alias in node.names:
            if (alias.asname or alias.name) == name:
                return _find(f"{node.module}.{alias.name}")
    if isinstance(node, ast.Assign | ast.AnnAssign) and node.value:
        places = node.targets if isinstance(node, ast.Assign) else [node.target]
        if any(isinstance(each, ast.Name) and each.id == name for each in places):
            return Defined(module, node.value)
    return None


@cache
def _tree(module: str) -> ast.Module | None:
    """Return a module's source, parsed; None where there is none to read."""
    spec = _spec(module)
    if spec is None or not (spec.origin or "").endswith(".py"):
        return None
    try:
        return ast.parse(Path(str(spec.origin)).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None


def _spec(module: str) -> ModuleSpec | None:
    """Return where a module lies, without importing what it lies in."""
    spec, places = None, None
    for name in module.split("."):  # alone: for a dotted one Python asks the package, which isn't imported
        spec = PathFinder.find_spec(name, places)
        if spec is None:
            return None
        places = list(spec.submodule_search_locations or [])
    return spec
