"""Which part of an answer is the function that was asked for.

Candidates are, in the order in which they end in the answer:

- a statement that binds the entry point's name: `def`, `async def`, a lambda or another name assigned to it, a class,
  an import from the standard library, any of these inside `if` or `try`, or a class with a method of that name;
- a piece of the text, or several joined, as the body that continues the prompt, with its indentation repaired.

The last of the best kind is taken. Kinds, the best first:

1. a statement that binds the name and does something;
2. the same, where its end had to be cut off to parse;
3. a body that returns or yields something, and reads no name that nothing binds;
4. a body that returns or yields something;
5. another body that does something;
6. what does nothing: a docstring, `pass`, `...`, `return None`, `raise NotImplementedError`.

With it go the statements that it needs: those that bind, or change in place, a name that it or another kept statement
reads, out of its own piece or, where that binds it nowhere, out of the nearest other one; imports from `__future__`;
and settings such as `sys.setrecursionlimit(…)`. Nothing else of the top level is kept: no prints, no example calls, no
tests, no `input()`, no `sys.exit()`.
"""

from __future__ import annotations

import ast
import builtins
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from dlmlab.task.fences import pieces
from dlmlab.task.problem import Problem, asked, margin, stub
from dlmlab.task.source import expand_tabs, indentation, shift, split_lines
from dlmlab.task.statements import Budget, Statement, read_one, read_statements, walk_scope

_FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
_BUILTINS = frozenset(dir(builtins))
_STARTS = 20
"""Lines at which a body may begin behind prose, at most."""
_HEADER = re.compile(r"[^\n]*?:[ \t]*(?:#[^\n]*)?\n|.*?:[ \t]*\n", re.DOTALL)


class Piece(NamedTuple):
    """A part of the answer.

    Attributes:
        raw: Its lines as they stand.
        lines: The same with blanks for tabs.
        statements: Its statements of the top level.
    """

    raw: list[str]
    lines: list[str]
    statements: list[Statement]


@dataclass(frozen=True)
class Candidate:
    """A part of the answer that may be the function.

    Attributes:
        kind: A number from 1, the best; see the module's list.
        read: All pieces of the text; in place of a body's own, the body behind the prompt.
        where: The number of the candidate's own piece in `read`.
        number: The number of the statement in that piece that binds the name.
        raw: The piece's lines as they stand in the answer.
        prompt: How many of that piece's statements are the prompt's; 0 for what is no body.
    """

    kind: int
    read: Sequence[Piece]
    where: int
    number: int
    raw: Sequence[str]
    prompt: int = 0

    @property
    def piece(self) -> Piece:
        return self.read[self.where]

    @property
    def statement(self) -> Statement:
        return self.piece.statements[self.number]


@lru_cache(maxsize=64)
def choose(problem: Problem, text: str) -> Candidate | None:
    """Return the candidate that is the answer; None where nothing of the text can be.

    Args:
        problem: What an answer is judged by: prompt, tests and entry point.
        text: The answer's text.
    """
    budget = Budget()
    readings = [pieces(text), pieces(text, strings=False)]
    read = [_read(problem, reading, budget) for reading in (readings if readings[0] != readings[1] else readings[:1])]
    found = [candidate for each in reversed(read) for candidate in _bindings(problem, each)]
    if all(candidate.kind > 2 for candidate in found):
        found = [body for each in reversed(read) for body in _bodies(problem, each, budget)] + found
    return min(reversed(found), key=lambda candidate: candidate.kind, default=None)


def method_of(problem: Problem, statement: Statement) -> str:
    """Return the expression for the entry point where it is a method of a class; empty where it isn't.

    Args:
        problem: What an answer is judged by: prompt, tests and entry point.
        statement: A class, perhaps.
    """
    node = statement.node
    if not isinstance(node, ast.ClassDef) or node.name == problem.entry_point:
        return ""
    method = _method(problem, node)
    function = asked(problem)
    if method is None or function is None:
        return ""
    bound = len(method.args.args) > len(function.args.args)
    return f"{node.name}().{method.name}" if bound else f"{node.name}.{method.name}"


def _read(problem: Problem, reading: Sequence[list[str]], budget: Budget) -> list[Piece]:
    """Return the pieces with their statements; one that goes on in the middle of a function is joined to it."""
    read: list[Piece] = []
    for raw in reading:
        lines = expand_tabs(raw)
        piece = Piece(raw, lines, read_statements(lines, budget))
        begun = next((number for number in reversed(range(len(read))) if read[number].statements), None)
        if begun is not None and _goes_on(problem, read[begun], piece):
            joined = Piece(read[begun].raw + raw, both := read[begun].lines + lines, read_statements(both, budget))
            last = joined.statements[-1] if joined.statements else None
            if last and last.first < len(read[begun].lines) <= last.last:
                read[begun], piece = Piece([], [], []), joined
        read.append(piece)
    return read


def _goes_on(problem: Problem, begun: Piece, piece: Piece) -> bool:
    """Return whether a piece may be the rest of the function that ends the one before."""
    last, first = begun.statements[-1], next((line for line in piece.lines if line.strip()), "")
    deeper = indentation(first) > indentation(begun.lines[last.first])
    return deeper and isinstance(last.node, _FUNCTION) and not any(_binds(problem, each) for each in piece.statements)


def _bindings(problem: Problem, read: Sequence[Piece]) -> Iterator[Candidate]:
    """Yield the statements that bind the entry point, less those that only wrap a body that continues the prompt."""
    for where, piece in enumerate(read):
        bound = False
        for number, statement in enumerate(piece.statements):
            if _binds(problem, statement):
                kind = 6 if not _does(statement.node, problem) else 1 if statement.whole else 2
                bound = bound or problem.entry_point not in statement.names.reads
                if bound:
                    yield Candidate(kind, read, where, number, piece.raw)


def _binds(problem: Problem, statement: Statement) -> bool:
    """Return whether a statement may make the entry point what was asked for."""
    node = statement.node
    if isinstance(node, ast.ClassDef) and node.name != problem.entry_point:
        return _method(problem, node) is not None
    if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] not in sys.stdlib_module_names:
        return False
    if problem.entry_point not in statement.names.binds:
        return False
    return not isinstance(node, ast.Assign | ast.AnnAssign) or _may_be_function(problem, node.value)


def _may_be_function(problem: Problem, value: ast.expr | None) -> bool:
    if isinstance(value, ast.Call):
        return not (isinstance(value.func, ast.Name) and value.func.id == problem.entry_point)
    return isinstance(value, ast.Lambda | ast.Name | ast.Attribute | ast.IfExp | ast.Subscript | ast.BoolOp)


def _method(problem: Problem, node: ast.ClassDef) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    methods = [each for each in node.body if isinstance(each, _FUNCTION) and each.name == problem.entry_point]
    return methods[-1] if methods else None


def _does(node: ast.AST, problem: Problem) -> bool:
    """Return whether what a statement binds does something."""
    if isinstance(node, _FUNCTION):
        return any(map(_acts, node.body))
    if isinstance(node, ast.ClassDef):
        method = _method(problem, node)
        functions = [method] if method else [each for each in ast.walk(node) if isinstance(each, _FUNCTION)]
        return any(_does(function, problem) for function in functions)
    inner = [each for each in ast.walk(node) if isinstance(each, _FUNCTION) and each.name == problem.entry_point]
    return not inner or any(_does(function, problem) for function in inner)


def _acts(node: ast.stmt) -> bool:
    """Return whether a statement of a body is more than a stand-in."""
    if isinstance(node, ast.Expr):
        return any(isinstance(each, ast.Call | ast.Await | ast.Yield | ast.YieldFrom) for each in ast.walk(node))
    if isinstance(node, ast.Return):
        nothing = node.value is None or (isinstance(node.value, ast.Constant) and node.value.value in (None, ...))
        return not nothing and not (isinstance(node.value, ast.Name) and node.value.id == "NotImplemented")
    if isinstance(node, ast.Raise):
        return not any(isinstance(each, ast.Name) and each.id == "NotImplementedError" for each in ast.walk(node))
    if isinstance(node, ast.AnnAssign):
        return node.value is not None
    return not isinstance(node, ast.Pass | ast.Global | ast.Nonlocal | ast.Import | ast.ImportFrom)


def _bodies(problem: Problem, read: Sequence[Piece], budget: Budget) -> Iterator[Candidate]:
    """Yield the pieces, and all that begin indented joined, as bodies."""
    indented = [piece for piece in read if indentation(next((line for line in piece.lines if line.strip()), "")) > 0]
    joined = [Piece([], [line for piece in indented for line in piece.lines], [])] if len(indented) > 1 else []
    everything = [*read, *joined]
    prompt = expand_tabs(split_lines(problem.prompt.rstrip()))
    for where, piece in enumerate(everything):
        if lines := _continued(problem, prompt, piece, budget):
            whole = Piece([], lines, read_statements(lines, budget))
            around = [*everything[:where], whole, *everything[where + 1 :]]
            number = next((n for n, each in enumerate(whole.statements) if _defines(problem, each)), None)
            if number is not None:
                final = max(n for n, each in enumerate(whole.statements) if _binds(problem, each))
                kind = _kind_of_body(problem, whole.statements[number], around)
                yield Candidate(kind, around, where, final, piece.raw, prompt=number + 1)


def _kind_of_body(problem: Problem, function: Statement, read: Sequence[Piece]) -> int:
    if not _does(function.node, problem):
        return 6
    if not any(isinstance(each, ast.Return | ast.Yield | ast.YieldFrom) and each.value for each in _below(function)):
        return 5
    bound = _BUILTINS.union(*(each.names.binds for piece in read for each in piece.statements))
    return 3 if function.names.needs <= bound else 4


def _continued(problem: Problem, prompt: list[str], piece: Piece, budget: Budget) -> list[str] | None:
    """Return the prompt and a piece as its body, in the indentation that makes most of it parse; None if none does."""
    function = asked(problem)
    if function is None:
        return None
    for body in _starts(problem, piece):
        reached = dict[int, list[str]]()
        if not budget.spend(sum(map(len, body))):
            break
        for lines in _repaired(problem, body):
            whole = [*prompt, *lines]
            found = read_one(whole, function.lineno - 1, budget)
            if found and found[0].last >= len(prompt):
                reached.setdefault(found[0].last, whole)
        if reached:
            return reached[max(reached)]
    return None


def _below(statement: Statement) -> Iterator[ast.AST]:
    """Yield what runs when the function is called."""
    for node in getattr(statement.node, "body", []):
        yield from walk_scope(node)


def _defines(problem: Problem, statement: Statement) -> bool:
    return isinstance(statement.node, _FUNCTION) and statement.node.name == problem.entry_point


def _starts(problem: Problem, piece: Piece) -> Iterator[list[str]]:
    """Yield a piece's lines from where a body may begin: its start, indented lines or paragraphs behind prose."""
    text = "\n".join(piece.lines)
    signature = re.search(rf"^[ ]*(?:async +)?def +{re.escape(problem.entry_point)}\b", text, re.MULTILINE)
    header = _HEADER.match(text, signature.start()) if signature else None
    if header:  # a signature whose body has lost its indentation
        yield text[header.end() :].split("\n")
        return
    starts = [
        number
        for number, line in enumerate(piece.lines)
        if line.strip() and (number == 0 or not piece.lines[number - 1].strip() or indentation(line) > 0)
    ]
    for start in starts[:_STARTS]:
        yield piece.lines[start:]


def _repaired(problem: Problem, body: list[str]) -> Iterator[list[str]]:
    """Yield a body as it is, with its first line indented, and with all moved to the prompt's indentation."""
    wanted = margin(problem)
    yield body
    first = next((line for line in body if line.strip()), "")
    yield [line if line is not first else " " * wanted + line.lstrip() for line in body]
    least = min((indentation(line) for line in body if line.strip()), default=0)
    yield shift(body, wanted - least)


def kept_statements(problem: Problem, chosen: Candidate) -> list[Statement]:
    """Return the statements of a candidate's program, in their order.

    Args:
        problem: What an answer is judged by: prompt, tests and entry point.
        chosen: The candidate.
    """
    read, where, number = chosen.read, chosen.where, chosen.number
    kept = {(where, number)} | {(where, n) for n in range(chosen.prompt)}
    kept |= {(where, n) for n, each in enumerate(chosen.piece.statements) if each.is_setup}
    given = {name for each in read_statements(split_lines(stub(problem)), Budget()) for name in each.names.binds}
    about = [_about(piece.statements) for piece in read]
    binding = [{name for each in piece.statements for name in each.names.binds} for piece in read]
    waiting, seen = [problem.entry_point], set[str]()
    waiting += [name for at, n in kept for name in read[at].statements[n].names.needs]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        places = [where] if name in given or name in _BUILTINS else [where, *_nearest(binding, where, name)]
        found = {(place, n) for place in places for n in about[place].get(name, ())}
        if name == problem.entry_point:  # what replaces it later is another answer, or an example's
            found = {(at, n) for at, n in found if n <= number or name not in read[at].statements[n].names.binds}
        waiting += [name for at, n in found - kept for name in read[at].statements[n].names.needs]
        kept |= found
    return [read[at].statements[n] for at, n in sorted(kept)]


def _nearest(binding: Sequence[set[str]], where: int, name: str) -> list[int]:
    """Return the piece that binds a name which a candidate's own doesn't: the nearest before it, else behind it."""
    order = (where, *range(where - 1, -1, -1), *range(where + 1, len(binding)))
    return [place for place in order if name in binding[place]][:1]


def _about(statements: Sequence[Statement]) -> dict[str, set[int]]:
    """Return for each name the statements that give it its value or change it, themselves or by calling what does."""
    imported = {name for each in statements if each.is_import for name in each.names.binds}
    inside: dict[str, set[str]] = {}
    for statement in statements:
        for function in statement.names.binds:
            inside.setdefault(function, set()).update(statement.names.inside)
    about: dict[str, set[int]] = {}
    for number, statement in enumerate(statements):
        names = statement.names
        changes = names.changes - imported if isinstance(statement.node, ast.Expr) else names.changes
        for name in names.binds.union(changes, *(inside.get(function, ()) for function in names.calls)):
            about.setdefault(name, set()).add(number)
    return about
