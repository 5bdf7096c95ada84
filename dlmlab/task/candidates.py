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
from typing import NamedTuple

from dlmlab.task.fences import pieces
from dlmlab.task.problem import Problem, asked, margin, stub
from dlmlab.task.source import expand_tabs, indentation, shift, split_lines
from dlmlab.task.statements import Budget, Statement, read_statements, walk_scope

_FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
_BUILTINS = frozenset(dir(builtins))
_STARTS = 20
"""Lines at which a body may begin behind prose, at most."""
_HEADER = re.compile(r"[^\n]*?:[ \t]*(?:#[^\n]*)?\n|.*?:[ \t]*\n", re.DOTALL)


class Piece(NamedTuple):
    """A part of the answer. raw: its lines as they stand. lines: the same with blanks for tabs."""

    raw: list[str]
    lines: list[str]
    statements: list[Statement]


@dataclass(frozen=True)
class Candidate:
    """A part of the answer that may be the function.

    kind: see the module's list. where: the piece's number. statement: what binds the name. kept: all statements of the
    program, in their order. continues: it is a body, and the prompt is among its statements.
    """

    kind: int
    where: int
    piece: Piece
    statement: Statement
    kept: list[Statement]
    continues: bool


def choose(problem: Problem, text: str) -> Candidate | None:
    """Return the candidate that is the answer; None where nothing of the text can be."""
    budget = Budget()
    readings = [pieces(text), pieces(text, strings=False)]
    best: Candidate | None = None
    for reading in readings if readings[0] != readings[1] else readings[:1]:
        for candidate in _candidates(problem, _read(problem, reading, budget), budget):
            better = best is None or candidate.kind < best.kind
            if better or (best and candidate.kind == best.kind and reading is readings[0]):
                best = candidate
    return best


def method_of(problem: Problem, statement: Statement) -> str:
    """Return the expression for the entry point where it is a method of a class; empty where it isn't."""
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
    """Whether a piece may be the rest of the function that ends the one before."""
    last, first = begun.statements[-1], next((line for line in piece.lines if line.strip()), "")
    deeper = indentation(first) > indentation(begun.lines[last.first])
    return deeper and isinstance(last.node, _FUNCTION) and not any(_binds(problem, each) for each in piece.statements)


def _candidates(problem: Problem, read: Sequence[Piece], budget: Budget) -> Iterator[Candidate]:
    for where, piece in enumerate(read):
        for number, statement in enumerate(piece.statements):
            if _binds(problem, statement):
                kept = _kept(problem, read, where, number)
                kind = (1 if statement.whole else 2) if _does(statement.node, problem) else 6
                own = isinstance(statement.node, _FUNCTION) or problem.entry_point not in statement.names.needs
                if own or any(_binds(problem, each) for each in piece.statements[:number]):
                    yield Candidate(kind, where, piece, statement, kept, continues=False)
    indented = [piece for piece in read if indentation(next((line for line in piece.lines if line.strip()), "")) > 0]
    joined = [Piece([], [line for piece in indented for line in piece.lines], [])] if len(indented) > 1 else []
    for where, piece in enumerate([*read, *joined]):
        if candidate := _continuation(problem, piece, read, where, budget):
            yield candidate


def _binds(problem: Problem, statement: Statement) -> bool:
    """Whether a statement may make the entry point what was asked for."""
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
    """Whether what a statement binds does something."""
    if isinstance(node, _FUNCTION):
        return any(map(_acts, node.body))
    if isinstance(node, ast.ClassDef):
        method = _method(problem, node)
        functions = [method] if method else [each for each in ast.walk(node) if isinstance(each, _FUNCTION)]
        return any(_does(function, problem) for function in functions)
    inner = [each for each in ast.walk(node) if isinstance(each, _FUNCTION) and each.name == problem.entry_point]
    return not inner or any(_does(function, problem) for function in inner)


def _acts(node: ast.stmt) -> bool:
    """Whether a statement of a body is more than a stand-in."""
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


def _continuation(
    problem: Problem, piece: Piece, read: Sequence[Piece], where: int, budget: Budget
) -> Candidate | None:
    """Return a piece as the body, in the indentation that makes the most of it parse."""
    prompt = expand_tabs(split_lines(problem.prompt.rstrip()))
    best: tuple[int, int, Piece, int] | None = None
    for start, body in _bodies(problem, piece):
        for lines in _repaired(problem, body):
            whole = Piece([], [*prompt, *lines], read_statements([*prompt, *lines], budget))
            numbers = [n for n, each in enumerate(whole.statements) if _defines(problem, each)]
            number = next((n for n in numbers if whole.statements[n].last >= len(prompt)), None)
            if number is not None and (best is None or start == best[0]):
                reach = whole.statements[number].last
                if best is None or reach > best[1]:
                    best = (start, reach, whole, number)
        if best:
            break
    return _as_candidate(problem, best[2], best[3], (read, where)) if best else None


def _as_candidate(problem: Problem, whole: Piece, number: int, place: tuple[Sequence[Piece], int]) -> Candidate:
    read, where = place
    statement = whole.statements[number]
    around = [*read[:where], whole, *read[where + 1 :]]
    final = max((n for n, each in enumerate(whole.statements) if _binds(problem, each)), default=number)
    kept = _kept(problem, around, where, final, always=number)
    bound = _BUILTINS.union(*(each.names.binds for each in kept), {problem.entry_point})
    returns = any(isinstance(each, ast.Return | ast.Yield | ast.YieldFrom) and each.value for each in _below(statement))
    kind = 6 if not _does(statement.node, problem) else 5 if not returns else 3 if statement.names.needs <= bound else 4
    return Candidate(kind, where, read[where] if where < len(read) else whole, statement, kept, continues=True)


def _below(statement: Statement) -> Iterator[ast.AST]:
    """Yield what runs when the function is called."""
    for node in getattr(statement.node, "body", []):
        yield from walk_scope(node)


def _defines(problem: Problem, statement: Statement) -> bool:
    return isinstance(statement.node, _FUNCTION) and statement.node.name == problem.entry_point


def _bodies(problem: Problem, piece: Piece) -> Iterator[tuple[int, list[str]]]:
    """Yield a piece's lines from where a body may begin: its start, indented lines or paragraphs behind prose."""
    text = "\n".join(piece.lines)
    signature = re.search(rf"^[ ]*(?:async +)?def +{re.escape(problem.entry_point)}\b", text, re.MULTILINE)
    header = _HEADER.match(text, signature.start()) if signature else None
    if header:  # a signature whose body has lost its indentation
        yield 0, text[header.end() :].split("\n")
        return
    starts = [
        number
        for number, line in enumerate(piece.lines)
        if line.strip() and (number == 0 or not piece.lines[number - 1].strip() or indentation(line) > 0)
    ]
    for start in starts[:_STARTS]:
        yield start, piece.lines[start:]


def _repaired(problem: Problem, body: list[str]) -> Iterator[list[str]]:
    """Yield a body as it is, with its first line indented, and with all moved to the prompt's indentation."""
    wanted = margin(problem)
    yield body
    first = next((line for line in body if line.strip()), "")
    yield [line if line is not first else " " * wanted + line.lstrip() for line in body]
    least = min((indentation(line) for line in body if line.strip()), default=0)
    yield shift(body, wanted - least)


def _kept(
    problem: Problem, read: Sequence[Piece], where: int, number: int, always: int | None = None
) -> list[Statement]:
    """Return the statements of a program around the one that binds the entry point.

    That one is `read[where].statements[number]`. always: the last of those before it that are the prompt's.
    """
    own = read[where].statements
    kept = {(where, number)} | ({(where, n) for n in range(always + 1)} if always is not None else set())
    kept |= {(where, n) for n, each in enumerate(own) if each.is_setting or each.is_future or _is_star(each)}
    given = {name for each in read_statements(split_lines(stub(problem)), Budget()) for name in each.names.binds}
    waiting, seen = (
        [problem.entry_point, *(name for at, n in kept for name in read[at].statements[n].names.needs)],
        set[str](),
    )
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for place in _sources(read, where, name, given):
            statements = read[place].statements
            found = {(place, n) for n, each in enumerate(statements) if _touches(each, name, statements)}
            if name == problem.entry_point:  # what replaces it later is another answer, or an example's
                found = {(at, n) for at, n in found if n <= number or name not in statements[n].names.binds}
            new = found - kept
            kept |= new
            waiting += [name for at, n in new for name in read[at].statements[n].names.needs]
    return [read[at].statements[n] for at, n in sorted(kept)]


def _sources(read: Sequence[Piece], where: int, name: str, given: set[str]) -> list[int]:
    """Return the pieces whose statements about a name are kept: the candidate's own, and where need be the nearest."""
    order = [*range(where - 1, -1, -1), *range(where + 1, len(read))]
    binding = [place for place in (where, *order) if any(name in each.names.binds for each in read[place].statements)]
    if not binding or binding[0] == where or name in given or name in _BUILTINS:
        return [where]
    return [where, binding[0]]


def _touches(statement: Statement, name: str, statements: Sequence[Statement]) -> bool:
    """Whether a statement gives a name its value or changes it, itself or by calling a function that does."""
    names = statement.names
    if name in names.binds:
        return True
    imported = any(each.is_import and name in each.names.binds for each in statements)
    if name in names.changes:
        return not imported or not isinstance(statement.node, ast.Expr)
    return any(name in each.names.inside for each in statements if each.names.binds & names.calls)


def _is_star(statement: Statement) -> bool:
    return isinstance(statement.node, ast.ImportFrom) and statement.node.names[0].name == "*"
