"""Ctrl-C and SIGTERM end a command in order; once it is over they change nothing."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator

import pytest

from dlmlab.decoder.threshold import Threshold
from dlmlab.generation import generate
from dlmlab.loop import interrupt
from dlmlab.run import cli
from tests.fakes import FakeModel

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a command changes in its process."""
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    monkeypatch.setattr(sys, "path", [*sys.path])
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}  # other tests may leave some
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_raised_where_nothing_is_under_way(number: int) -> None:
    with interrupt.listening():
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
        assert interrupt.asked()


@pytest.mark.parametrize("number", SIGNALS)
def test_what_a_process_decodes_after_it_is_not_cut_off(number: int) -> None:
    with pytest.raises(KeyboardInterrupt), interrupt.listening():
        os.kill(os.getpid(), number)
    [output] = generate(FakeModel(), [[1, 2]], Threshold(0.9), gen_length=8, block_length=4, steps=8)
    assert len(output.tokens) == 8


def test_work_under_way_is_finished_first() -> None:
    done = []

    def work() -> None:
        with interrupt.finishing():
            os.kill(os.getpid(), signal.SIGTERM)
            done.append(interrupt.asked())

    with interrupt.listening(), pytest.raises(KeyboardInterrupt):
        work()
    assert done == [True]


def test_a_process_that_is_over_is_left_to_clean_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A launcher's semaphores leak where SIGTERM ends what cleans them up."""
    monkeypatch.setattr(cli, "exit_status", lambda main: 3)
    with pytest.raises(SystemExit) as ended:
        cli.command()
    assert ended.value.code == 3
    for number in SIGNALS:
        os.kill(os.getpid(), number)


def test_a_signal_while_the_summary_is_written_is_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def exit_status(main: object) -> int:
        cli._command.set(cli.Command())
        os.kill(os.getpid(), signal.SIGTERM)
        return 0

    monkeypatch.setattr(cli, "exit_status", exit_status)
    with pytest.raises(SystemExit) as ended:
        cli.command()
    assert ended.value.code == cli.INTERRUPTED
    assert capsys.readouterr().err == "interrupted: the summary isn't whole\n"
