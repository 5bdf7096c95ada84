"""Twelve ways in which models wrap a right answer, and two answers that are none."""

from __future__ import annotations

from collections.abc import Callable

from dlmlab.task.problem import Problem, asked
from dlmlab.task.source import shift

Wrapping = Callable[[Problem], str]


def body(problem: Problem) -> str:
    return problem.canonical_solution.rstrip("\n") + "\n"


def function(problem: Problem) -> str:
    """The whole function, without the prompt's helpers and imports."""
    node = asked(problem)
    assert node is not None
    lines = (problem.prompt + body(problem)).split("\n")
    return "\n".join(lines[node.lineno - 1 :])


def moved(text: str, columns: int) -> str:
    return "".join(" " * columns + line if line.strip() else line for line in text.splitlines(keepends=True))


def in_class(problem: Problem) -> str:
    head, _, rest = function(problem).partition("(")
    method = f"{head}(self, {rest}".replace("(self, )", "(self)", 1)
    return "\n".join(["class Solution:", *shift(method.split("\n"), 4)])


def parted(problem: Problem) -> str:
    node = asked(problem)
    assert node is not None
    before = "\n".join(problem.prompt.split("\n")[: node.lineno - 1]) or "import math"
    return f"First this:\n```python\n{before}\n```\nThen:\n```python\n{function(problem)}```\n"


def renamed(problem: Problem, name: str) -> str:
    return (problem.prompt + body(problem)).replace(f"def {problem.entry_point}(", f"def {name}(")


def dedented(problem: Problem) -> str:
    return "".join(line.removeprefix("    ") for line in body(problem).splitlines(keepends=True))


WRAPPINGS: dict[str, Wrapping] = {
    "body": body,
    "function": lambda p: p.prompt + body(p),
    "fenced": lambda p: f"```python\n{p.prompt}{body(p)}```",
    "fenced, no language": lambda p: f"```\n{function(p)}```\n",
    "prose around": lambda p: f"Sure, here's how:\n\n```python\n{p.prompt}{body(p)}```\n\nIt isn't hard.\n",
    "tildes": lambda p: f"~~~python\n{p.prompt}{body(p)}~~~\n",
    "closing fence only": lambda p: f"{body(p)}```\n\nThis does what the docstring says.\n",
    "imports on top": lambda p: f"import re\nfrom collections import Counter\n\n{p.prompt}{body(p)}",
    "in a class": in_class,
    "indented block": lambda p: f"1. Like this:\n\n   ```python\n{moved(p.prompt + body(p), 3)}   ```\n",
    "Windows line ends": lambda p: f"```python\n{p.prompt}{body(p)}```\n".replace("\n", "\r\n"),
    "example after it": lambda p: f"{p.prompt}{body(p)}\nprint(input())\nassert {p.entry_point}() == 'no'\n",
}
MORE: dict[str, Wrapping] = {
    "parted over blocks": parted,
    "glued closing fence": lambda p: f"```python\n{p.prompt}{body(p).rstrip()}```",
    "fence behind a sentence": lambda p: f"Here it is: ```python\n{function(p)}```\n",
    "skeleton first": lambda p: f"```python\n{p.prompt}    pass\n```\nSo:\n```python\n{p.prompt}{body(p)}```\n",
    "body in a fence": lambda p: f"```python\n{body(p)}```",
    "body without indentation": lambda p: dedented(p),
    "prose, no fence": lambda p: f"Here's the function.\n\n{function(p)}\n\nIt's done in one pass (I think.\n",
    "guard": lambda p: f"{function(p)}\n\nif __name__ == '__main__':\n    import doctest\n    doctest.testmod()\n",
    "future": lambda p: f"```python\nfrom __future__ import annotations\n{p.prompt}{body(p)}```",
    "not closed": lambda p: f"Here:\n```python\n{function(p)}",
    "thinking": lambda p: f"<think>\n```python\n{p.prompt}    ...\n```\n</think>\n\n{function(p)}",
    "alias": lambda p: f"```python\n{renamed(p, '_own')}\n\n{p.entry_point} = _own\n```",
    "exit after it": lambda p: f"{function(p)}\nimport sys\nsys.exit(0)\n",
}
EMPTY: dict[str, Wrapping] = {
    "nothing": lambda p: "",
    "pass": lambda p: "    pass\n",
    "fenced pass": lambda p: f"```python\n{p.prompt}    pass\n```\n",
    "prose": lambda p: "I can't write this function, I'm sorry.",
}
