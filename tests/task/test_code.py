"""How code is taken out of an answer, and what each way makes of it."""

from __future__ import annotations

import ast

import pytest

from dlmlab.errors import UserError
from dlmlab.sandbox import Sandbox, Verdict
from dlmlab.task.base import Score
from dlmlab.task.code import EXTRACTORS, check_extractor, score_function
from dlmlab.task.problem import Problem, check_problem

PROMPT = '''from typing import List


def offset() -> int:
    """What to add."""
    return 1


def solve(xs: List[int], sign: int = 1) -> List[int]:
    """Add the offset to each number.

    >>> solve([1, 2])
    [2, 3]
    """
'''
PROBLEM = Problem(
    "Toy/0",
    PROMPT,
    "solve",
    "    return [x + offset() for x in xs]\n",
    "def check(candidate):\n    assert candidate([1, 2]) == [2, 3]\n    assert candidate([]) == []\n",
)
BODY = "    out = []\n    for x in xs:\n        out.append(x + offset())\n    return out\n"
DEFINITION = f"def solve(xs: List[int], sign: int = 1) -> List[int]:\n{BODY}"
LESS = "".join(line[4:] + "\n" for line in BODY.splitlines())
MORE = "".join(f"    {line}\n" for line in BODY.splitlines())

ANSWERS = {
    "a body": (BODY, "raw fenced sanitised"),
    "a body after blank lines": ("\n\n" + BODY, "raw fenced sanitised"),
    "the whole function": (DEFINITION, "raw fenced sanitised"),
    "prompt and body": (PROMPT + BODY, "raw fenced sanitised"),
    "a fenced function": (f"```python\n{DEFINITION}```", "fenced sanitised"),
    "a fenced function in prose": (f"Sure! Here it is:\n\n```python\n{DEFINITION}```\nIt works.", "fenced sanitised"),
    "a fence without a language": (f"```\n{DEFINITION}```", "fenced sanitised"),
    "a fence that is cut off": (f"Here:\n```python\n{DEFINITION}", "fenced sanitised"),
    "a fenced body": (f"```python\n{BODY}```", "fenced sanitised"),
    "the second block defines it": (f"```\npip install x\n```\n```python\n{DEFINITION}```", "fenced sanitised"),
    "a fence that is indented": (f"  ```python\n{DEFINITION}  ```\n", "fenced sanitised"),
    "prose and a function": (f"Here is the function:\n{DEFINITION}\nThis adds one to each.\n", "sanitised"),
    "a body and prose": (f"{BODY}\nThis adds one to each of the numbers.\n", "sanitised"),
    "a body without its indentation": (LESS, "sanitised"),
    "a body whose first line lost it": (BODY.lstrip(), "sanitised"),
    "a body with too much": (MORE, "sanitised"),
    "a body in tabs": (BODY.replace("    ", "\t"), "sanitised"),
    "a function that is indented": ("    " + DEFINITION.replace("\n", "\n    "), "sanitised"),
    "a function and a wrong example": (f"{DEFINITION}\nassert solve([1]) == [7]\n", "sanitised"),
    "a function and a cut-off test": (f"{DEFINITION}\ndef test():\n    assert solve([1", "sanitised"),
    "a signature and a body without indentation": (DEFINITION.splitlines()[0] + "\n" + LESS, "sanitised"),
    "a function with its own import": (
        f"import math\n{DEFINITION.replace('offset()', 'math.ceil(0.5)')}", "raw fenced sanitised"
    ),
    "a function after a constant": (f"ONE = 1\n\n{DEFINITION.replace('offset()', 'ONE')}", "raw fenced sanitised"),
    "a fenced function and its example": (f"```python\n{DEFINITION}\nprint(solve(3))\n```", "sanitised"),
    "a function with Windows line ends": (DEFINITION.replace("\n", "\r\n"), "raw fenced sanitised"),
    "nothing": ("", ""),
    "prose": ("I can not help with that.", ""),
    "a wrong body": ("    return xs\n", ""),
    "pass": ("    pass\n", ""),
    "a nested fence of prose": ("```\nI am not code\n```", ""),
    "no code but a null byte": ("\0", ""),
    "too deep": ("    return " + "(" * 5000, ""),
}  # fmt: skip


def passes(program: str) -> bool:
    """Whether a program of this file, which is no model's, is right."""
    space: dict[str, object] = {}
    try:
        exec(compile(program, "<test>", "exec"), space)
        exec(PROBLEM.test + "check(solve)", space)
    except Exception:
        return False
    return True


@pytest.mark.parametrize("case", ANSWERS)
def test_extractors(case: str) -> None:
    text, right = ANSWERS[case]
    assert [name for name, extract in EXTRACTORS.items() if passes(extract(PROBLEM, text))] == right.split()


def kept(text: str) -> list[str]:
    """The statements of the top level behind the prompt's function."""
    program = EXTRACTORS["sanitised"](PROBLEM, text)
    return [ast.unparse(node).split("\n")[0] for node in ast.parse(program).body[3:]]


def test_sanitised_drops_what_runs_and_keeps_what_is_needed() -> None:
    needed = "import math\nLIMIT = 3\n@math.ceil\ndef other(): ...\n"
    text = f"{needed}UNUSED = input()\n{DEFINITION}    return C(LIMIT, other)\nclass C: ...\nprint(LIMIT)\n"
    assert kept(text + "if LIMIT:\n    1 / 0\n") == [
        "import math", "LIMIT = 3", "@math.ceil", "def solve(xs: List[int], sign: int=1) -> List[int]:", "class C:"
    ]  # fmt: skip


def test_a_prompt_without_docstring_takes_a_body_and_a_repeated_signature() -> None:
    problem = PROBLEM._replace(prompt=PROMPT[: PROMPT.index('    """Add')])
    check_problem(problem, "here")
    assert all(passes(extract(problem, BODY)) for extract in EXTRACTORS.values())
    assert passes(EXTRACTORS["fenced"](problem, DEFINITION))
    assert passes(EXTRACTORS["sanitised"](problem, f"Here:\n{DEFINITION}"))


def test_score_names_each_variant_and_runs_equal_programs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    def fake(self: Sandbox, program: str, **_: str) -> Verdict:
        ran.append(program)
        return Verdict(True, "passed") if passes(program) else Verdict(False, "exception", "why")

    monkeypatch.setattr(Sandbox, "run", fake)
    monkeypatch.setattr("dlmlab.task.code.probe", lambda sandbox: None)
    score = score_function(Sandbox("rlimit"), PROBLEM, f"```\n{DEFINITION}```\nprose", "raw")
    assert score == Score(0.0, "exception", {"raw": 0.0, "fenced": 1.0, "sanitised": 1.0})
    assert len(ran) == 3
    ran.clear()
    assert score_function(Sandbox("rlimit"), PROBLEM, "not code at all").value == 0
    assert len(ran) == 1


def test_score_runs_in_the_sandbox() -> None:
    assert score_function(Sandbox("rlimit"), PROBLEM, BODY, "raw").value == 1
    assert score_function(Sandbox("rlimit"), PROBLEM, "    return 1 +\n", "raw").reason == "syntax error"


def test_unknown_extractor() -> None:
    with pytest.raises(UserError, match="extract='best' is not one of raw, fenced, sanitised"):
        check_extractor("best")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test": "def check(candidate:"}, "here: 'test' is no source that defines check"),
        ({"test": "def verify(candidate): pass"}, "here: 'test' is no source that defines check"),
        ({"entry_point": "solved"}, "here: 'prompt' does not define the entry point 'solved'"),
        ({"prompt": "Write a function."}, "here: 'prompt' does not define the entry point 'solve'"),
    ],
)
def test_problems_that_cannot_be_scored(change: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_problem(PROBLEM._replace(**change), "here")
