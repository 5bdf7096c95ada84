"""Statements of the top level, taken out of text that is part prose and part code.

Each is read on its own, so that what surrounds it does no harm: a line that begins no statement is passed over, and one
that breaks off is kept as far as it parses.
"""

from __future__ import annotations

import ast
import re
import symtable
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dlmlab.task.source import State, indentation, scan, shift

MODEL_OUTPUT = "<model output>"
UNPARSABLE = (SyntaxError, ValueError, MemoryError, RecursionError)
PARSED = 300_000
"""Characters that are parsed for one answer, tries that fail included; beyond, an answer is no code."""
OVERHEAD = 100
"""Characters that a try counts for besides its own."""
TRIES = 20
"""Most times that a statement which doesn't parse is shortened."""
SETTINGS = {"setrecursionlimit", "set_int_max_str_digits", "seed", "filterwarnings", "simplefilter", "setcontext"}
"""Functions of modules that a solution may rely on having been called."""
_CONTINUES = re.compile(r"\s*(?:[)\]}]|(?:else|elif|except|finally)\b)")
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)

warnings.filterwarnings("ignore", module=MODEL_OUTPUT)  # such as an invalid escape in a string of the model's


class Budget:
    """Characters that may still be parsed."""

    def __init__(self, characters: int = PARSED) -> None:
        self.left = characters

    def spend(self, characters: int) -> bool:
        """Take so many, and say whether they were there."""
        self.left -= characters
        return self.left >= 0


class Names(NamedTuple):
    """What a statement has to do with global names.

    Attributes:
        binds: Those it gives a value.
        reads: Those it reads itself.
        needs: Those that it or functions in it read.
        changes: Those whose value it changes in place, as `table.append(1)` does.
        inside: Those that a call of the function changes, where it defines one.
        calls: The functions that it calls for their effect.
    """

    binds: frozenset[str]
    reads: frozenset[str]
    needs: frozenset[str]
    changes: frozenset[str]
    inside: frozenset[str]
    calls: frozenset[str]


@dataclass(frozen=True)
class Statement:
    """A statement of the top level.

    Attributes:
        source: Its text, without its indentation.
        node: Its syntax tree.
        names: What it has to do with global names.
        first: The number of its first line, counted from 0.
        last: The number of its last line.
        whole: Whether nothing of it was cut off.
    """

    source: str
    node: ast.stmt
    names: Names
    first: int
    last: int
    whole: bool

    @property
    def is_future(self) -> bool:
        return isinstance(self.node, ast.ImportFrom) and self.node.module == "__future__"

    @property
    def is_import(self) -> bool:
        return isinstance(self.node, ast.Import | ast.ImportFrom)

    @property
    def is_setup(self) -> bool:
        """It acts on the whole program: a setting such as `sys.setrecursionlimit(9999)`, or an import of everything."""
        if isinstance(self.node, ast.ImportFrom):
            return self.is_future or self.node.names[0].name == "*"
        return isinstance(self.node, ast.Expr) and _attribute_called(self.node) in SETTINGS


def read_statements(lines: Sequence[str], budget: Budget) -> list[Statement]:
    """Return the statements of some lines, in their order, each without its indentation.

    The guard `if __name__ == "__main__":` is none, since no program here is the main one.

    Args:
        lines: Lines of source.
        budget: What reading may still cost; it is used up.
    """
    found: list[Statement] = []
    at = 0
    while at < len(lines) and budget.left > 0:
        read = read_one(lines, at, budget)
        found += [statement for statement in read if not _is_guard(statement.node)]
        at = read[-1].last + 1 if read else at + 1
    return found


def read_one(lines: Sequence[str], at: int, budget: Budget) -> list[Statement]:
    """Return the statement that begins at a line, or those where semicolons part them; none where none begins.

    Args:
        lines: Lines of source.
        at: The line's number, counted from 0.
        budget: What reading may still cost; it is used up.
    """
    if lines[at].lstrip()[:1] in ("", "#"):
        return []
    own = lines[at : _end(lines, at)]
    return _longest(own, at, budget) if budget.spend(sum(map(len, own))) else []


def parse(source: str) -> ast.Module | None:
    """Return a source's syntax tree; None where it doesn't parse."""
    try:
        return ast.parse(source, MODEL_OUTPUT)
    except UNPARSABLE:
        return None


def walk_scope(node: ast.AST) -> Iterator[ast.AST]:
    """Yield a node and all below it, without what runs later or in a scope of its own."""
    waiting = [node]
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, _SCOPES):
            waiting.extend(ast.iter_child_nodes(node))


def _end(lines: Sequence[str], at: int) -> int:
    """Return the line behind the statement that begins at a line, going by indentation, strings and brackets."""
    base, last = indentation(lines[at]), at
    decorated = lines[at].lstrip().startswith("@")
    state = scan(lines[at], State())
    for number, line in enumerate(lines[at + 1 :], at + 1):
        inside = bool(state.quote or state.depth) or lines[number - 1].endswith("\\")
        if not inside and line.lstrip()[:1] in ("", "#"):
            continue
        if not inside and indentation(line) <= base:
            if indentation(line) < base or not (decorated or _CONTINUES.match(line)):
                break
            decorated = decorated and line.lstrip().startswith("@")
        state, last = scan(line, state), number
    return last + 1


def _longest(lines: Sequence[str], first: int, budget: Budget) -> list[Statement]:
    """Return the statements of as many leading lines as are valid."""
    lines = shift(lines, -indentation(lines[0]))
    end = len(lines)
    for _ in range(TRIES):
        source = "\n".join(lines[:end])
        if not end or not budget.spend(len(source) + OVERHEAD):
            break
        try:
            tree = ast.parse(source, MODEL_OUTPUT)
            compile(tree, MODEL_OUTPUT, "exec", dont_inherit=True)  # finds a `return` outside of functions
            parts = [source] if len(tree.body) == 1 else _parts(source, tree)
            whole = end == len(lines)
            return [
                Statement(part, node, _names(part, node), first, first + end - 1, whole)
                for part, node in zip(parts, tree.body, strict=True)
            ]
        except SyntaxError as error:
            # What stands before the line of the error is the next to try; at the end itself there is no such line.
            end = min(end - 1, max((error.lineno or end) - 1, 0))
        except UNPARSABLE:
            break
    return []


def _parts(source: str, tree: ast.Module) -> list[str]:
    """Return the source of each statement."""
    lines = [line.encode() for line in source.split("\n")]
    parts = []
    for node in tree.body:
        begin, end = node.lineno - 1, (node.end_lineno or node.lineno) - 1
        own = lines[begin : end + 1]
        own[-1] = own[-1][: node.end_col_offset]
        own[0] = own[0][node.col_offset :]
        parts.append(b"\n".join(own).decode())
    return parts


def _names(source: str, node: ast.stmt) -> Names:
    module = symtable.symtable(source, MODEL_OUTPUT, "exec")
    binds = {symbol.get_name() for symbol in module.get_symbols() if symbol.is_assigned() or symbol.is_imported()}
    reads = {symbol.get_name() for symbol in module.get_symbols() if symbol.is_referenced()}
    needs = set(reads)
    inside: set[str] = set()
    waiting = list(module.get_children())
    while waiting:
        table = waiting.pop()
        waiting.extend(table.get_children())
        symbols = [symbol for symbol in table.get_symbols() if symbol.is_global()]
        needs |= {symbol.get_name() for symbol in symbols if symbol.is_referenced()}
        inside |= {symbol.get_name() for symbol in symbols if symbol.is_assigned()}
    changed = _changed(ast.walk(node)) & needs
    direct = _changed(walk_scope(node))
    calls = {
        each.value.func.id
        for each in walk_scope(node)
        if isinstance(each, ast.Expr) and isinstance(each.value, ast.Call) and isinstance(each.value.func, ast.Name)
    }
    return Names(*map(frozenset, (binds, reads, needs, direct, inside | changed, calls)))


def _changed(nodes: Iterator[ast.AST]) -> set[str]:
    """Return the names whose values an assignment to a part, or a method called for its effect, changes."""
    changed = set()
    for node in nodes:
        if isinstance(node, ast.Attribute | ast.Subscript) and not isinstance(node.ctx, ast.Load):
            changed.add(_root(node))
        elif isinstance(node, ast.Expr) and _attribute_called(node):
            changed.add(_root(node.value))
    return changed - {""}


def _root(node: ast.AST) -> str:
    """Return the name that an expression such as `a.b[0].c()` begins with."""
    while not isinstance(node, ast.Name):
        if isinstance(node, ast.Attribute | ast.Subscript):
            node = node.value
        elif isinstance(node, ast.Call):
            node = node.func
        else:
            return ""
    return node.id


def _attribute_called(node: ast.Expr) -> str:
    """Return the name of the method that an expression statement calls."""
    call = node.value
    return call.func.attr if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) else ""


def _is_guard(node: ast.stmt) -> bool:
    names = {each.id for each in ast.walk(node.test) if isinstance(each, ast.Name)} if isinstance(node, ast.If) else ()
    return "__name__" in names
