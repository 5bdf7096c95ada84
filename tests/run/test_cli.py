"""The command line as users meet it: a bad input is one line that names it, and an exit status that isn't 0."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from hydra.errors import MissingConfigException

from dlmlab.run.cli import EXTRAS, one_line
from dlmlab.run.logs import Console
from tests.test_imports import POSIX

ROOT = Path(__file__).parents[2]

BAD = {
    "gen_length=60": (["generation.gen_length=60", "generation.block_length=32"], r"gen_length=60.*block_length=32"),
    "steps=7": (["generation.steps=7", "generation.block_length=16"], r"steps=7.*blocks"),
    "steps=0": (["generation.steps=0"], r"steps=0 is not a positive integer"),
    "steps=1.5": (["generation.steps=1.5"], r"steps=1.5 is not a positive integer"),
    "gen_length=-4": (["generation.gen_length=-4"], r"gen_length=-4 is not a positive integer"),
    "block_length=a": (["generation.block_length=a"], r"block_length='a' is not a positive integer"),
    "batch_size=0": (["experiment=quality_gate", "batch_size=0"], r"batch_size=0 is not a positive integer"),
    "batch_size=2.5": (["experiment=quality_gate", "batch_size=2.5"], r"batch_size=2.5 is not a positive integer"),
    "batch_size=many": (["experiment=evaluate", "batch_size=many"], r"batch_size='many' is not .* or auto"),
    "kappa=1.1": (["decoder.kappa=1.1"], r"kappa=1.1 is not a number between 0 and 1"),
    "kappa=nan": (["decoder.kappa=nan"], r"kappa=nan is not a number between 0 and 1"),
    "tau=-1": (["decoder.tau=-1"], r"tau=-1 is not a number between 0 and 1"),
    "tau=high": (["decoder.tau=high"], r"tau='high' is not a number between 0 and 1"),
    "radius=-1": (["decoder.radius=-1"], r"radius=-1 is not a whole number"),
    "radius=1.5": (["decoder.radius=1.5"], r"radius=1.5 is not a whole number"),
    "threshold=2": (["decoder=threshold", "decoder.threshold=2"], r"threshold=2 is not a number between 0 and 1"),
    "temperature=-1": (["generation.temperature=-1"], r"temperature=-1 is not a number of at least 0"),
    "confidence": (["generation.confidence_dtype=half"], r"confidence_dtype='half' is not one of float32, float64"),
    "memo=force": (["decoder=klass", "memo=force"], r"KLASS sees more of the model than the memo keeps"),
    "seed=x": (["seed=x"], r"seed='x' is not a whole number"),
    "seed=1.5": (["seed=1.5"], r"seed=1.5 is not a whole number"),
    "decoder=foo": (["decoder=foo"], r"Could not find 'decoder/foo'.*baseline.*localleap"),
    "decoder.kapa": (["decoder.kapa=0.5"], r"decoder.kapa is not a setting; did you mean decoder.kappa\?"),
    "batchsize": (["batchsize=4"], r"batchsize is not a setting"),
    "path": (["model.path=/no/such/folder", "decoder=baseline"], r"/no/such/folder"),
    "localleap": (["localleap=log"], r"Could not find 'localleap/log'.*paper"),
    "uncalibrated": (["model.path=no/such"], r"no/such has no calibrated kappa.*localleap=paper"),
    "device": (["device=cuda:63"], r"device=cuda:63 asked for"),
    "dtype": (["model.dtype=float8"], r"dtype='float8' is not one of"),
    "quantization": (["model.quantization=int3"], r"quantization='int3' is not one of"),
    "tasks": (["experiment=quality_gate", "tasks=[mmul]"], r"tasks has 'mmul', which is not one of mmlu"),
    "no tasks": (["experiment=quality_gate", "tasks=[]"], r"tasks=\[\] is not a non-empty list, each"),
    "margin": (["experiment=quality_gate", "gates.mmlu.margin=2"], r"gates.mmlu.margin=2 is not a number between"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line(command, name):
    arguments, expected = BAD[name]
    status, _, errors = command(*arguments)
    assert status == 1
    assert re.fullmatch(r"error: .+\n", errors), errors
    assert re.search(expected, errors)


@pytest.mark.parametrize("plugin", EXTRAS)
def test_a_plugin_that_is_not_there_comes_with_its_remedy(plugin):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert EXTRAS[plugin] in extras
    error = MissingConfigException(f"Could not find '{plugin}'", missing_cfg_file=plugin, options=["basic"])
    assert one_line(error) == f"{plugin} is not installed: pip install -e '.[{EXTRAS[plugin]}]'"


MISTAKES = {
    "decoder.kappa": "2",
    "decoder.radius": "many",
    "generation.gen_length": "-1",
    "model.quantization": "nf8",
    "task.limit": "0",
    "tracking.markdown.log_file": "3",
    "sandbox.cpu_seconds": "0",
    "batch_sizes": "4",
    "batch_size": "some",
    "memo": "perhaps",
    "device": "gpu",
    "seed": "-1",
}
"""Settings, and a value that each can't have."""


def test_mistakes_are_told_without_importing_torch(tmp_path):
    """Nor anything that Windows lacks."""
    code = f"import sys, psutil, filelock; sys.modules.update(dict.fromkeys({POSIX}))\n"  # those know every system
    code += "from dlmlab.run.cli import exit_status, main; status = exit_status(main)\n"
    code += "print(status, sorted({'torch', 'transformers', 'scipy', 'datasets'} & set(sys.modules)))"
    typed = [*(f"{key}={value}" for key, value in MISTAKES.items()), "model.path=/no/such", "+sedd=3"]
    command = [sys.executable, "-c", code, *typed, f"hydra.run.dir={tmp_path / 'run'}"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert told.stdout == "1 []\n", told.stderr
    lines = told.stderr.splitlines()
    for subject in (*MISTAKES, "model path '/no/such'", "sedd"):
        assert any(re.match(rf"error: {re.escape(subject)}(?!\w)", line) for line in lines), (subject, lines)
    assert len(lines) == len(typed)


def test_help_names_the_choices_without_importing_torch(tmp_path):
    code = f"import sys, runpy; sys.argv = ['run.py', '--help']; sys.path.insert(0, {str(ROOT)!r})\n"
    code += f"try: runpy.run_path({str(ROOT / 'run.py')!r}, run_name='__main__')\n"
    code += "except SystemExit: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout.endswith("False\n")
    for choice in ("localleap_paper", "llada15", "quality_gate", "confidence_dtype", "batch_size"):
        assert choice in done.stdout


def test_a_librarys_warning_is_shown_once(capfd):
    library, inner = logging.getLogger("some_library"), logging.getLogger("some_library.inner")
    record = logging.LogRecord(inner.name, logging.WARNING, "", 0, "slow", (), None)
    Console().handle(record)
    library.addHandler(own := logging.StreamHandler())
    Console().handle(record)
    library.removeHandler(own)
    assert capfd.readouterr().err == "slow\n"
