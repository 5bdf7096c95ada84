"""What holds for every test: no network, and in CI no silent skips."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from pathlib import Path

import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before anything imports Triton, which reads it where a kernel is defined
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what it leaves in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)  # or what tests start would never see a Ctrl-C
if "PYTEST_XDIST_WORKER" in os.environ:  # workers share the cores: more threads than cores wait for each other
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # for the programs that tests start
os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub, which reads it once

ROOT = Path(__file__).parents[1]
LACKED_IN_CI = ("GPU", "CUDA", "LaTeX")
"""Words of the excuses that CI takes: everything else is installed there."""


LONG = (
    *("hostile", "page", "sandbox", "experiments", "tracking/test_wandb.py", "run/test_command_line.py"),
    *("test_benchmarks.py", "test_conftest.py", "test_determinism.py", "test_extending.py", "test_faults.py"),
    *("test_notebook.py", "test_sandbox.py", "test_soak.py", "test_sweeps.py", "test_verify.py"),
)
"""Files and folders whose tests start programs, servers or browsers, or whole runs: more than half of the time."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that `pytest` leaves out unless it is told `-m ""`, as CI does; skip what only a GPU can do."""
    long = tuple(Path(__file__).parent / name for name in LONG)
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
        if any(item.path.is_relative_to(each) for each in long):
            item.add_marker(pytest.mark.long)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """With CI=true, a test that was skipped for want of anything but a GPU fails the run."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") != "true" or reporter is None:
        return
    skipped = [report.longrepr for report in reporter.stats.get("skipped", [])]
    unexcused = [
        (path, line, reason) for path, line, reason in skipped if not any(word in reason for word in LACKED_IN_CI)
    ]
    for path, line, reason in unexcused:
        reporter.write_line(f"CI lacks nothing but a GPU and LaTeX, yet skipped {path}:{line}: {reason}", red=True)
    if unexcused and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture
def command(tmp_path, monkeypatch, capfd):
    """`python run.py ARGUMENTS` in this process, into tmp_path/run: its exit status, stdout and stderr."""
    monkeypatch.setenv("DLMLAB_ROOT", str(ROOT))
    spec = importlib.util.spec_from_file_location("run", ROOT / "run.py")
    run = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(run)

    from dlmlab.run import cli

    def call(*arguments: str) -> tuple[int, str, str]:
        folder = [] if {"-m", "--help"} & set(arguments) else [f"hydra.run.dir={tmp_path / 'run'}"]
        monkeypatch.setattr(sys, "argv", ["run.py", *arguments, *folder])
        capfd.readouterr()
        status = cli.exit_status(run.main)
        return status, *capfd.readouterr()

    return call
