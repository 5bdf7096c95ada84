"""Does a run survive what happens to it? Each fault is done to an evaluation of the tiny model, which then goes on.

    python -m tests.faults                  the long form: 24 kills at random moments, then every other fault
    python -m tests.faults 3                with three kills, as tests/test_faults.py has it

After each fault the run ends with the samples and results of one that nobody disturbed, or it is refused in one line.
What is lost is the batch under way at most: no other item is decoded twice.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from dlmlab.record.journal import Journal

ROOT = Path(__file__).resolve().parents[1]
KILLS = 24
BATCH = 4
SETTING = ("experiment=evaluate", "task=tiny_open", "task.limit=60", "decoder=localleap", f"batch_size={BATCH}")
TINY = ROOT / "dlmlab" / "model" / "tiny" / "v1"
JUMPING = """
import datetime, itertools, time
usual, turns = time.time, itertools.count()
time.time = lambda: usual() + (-1) ** next(turns) * 86400 * (next(turns) % 400)
class Jumping(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(time.time(), tz)
datetime.datetime = Jumping
"""
"""A clock that goes back and forth by up to a year whenever it is read."""

fork = multiprocessing.get_context("forkserver")  # starts a run without importing torch again


class Faults:
    """The faults, all within a folder. `whole` is the run that nobody disturbs, `cut` one that was ended half-way."""

    def __init__(self, folder: Path):
        self.folder = folder
        fork.set_forkserver_preload(["run", "dlmlab.run.build", "experiments.evaluate", "transformers"])
        os.environ |= {"DLMLAB_ROOT": str(ROOT), "OMP_NUM_THREADS": "1"}
        self.run("warm-up")  # waits until everything is imported
        began = time.perf_counter()
        assert self.run("whole") == 0, self.said("whole")
        self.seconds = time.perf_counter() - began
        assert self.end("cut", signal.SIGTERM) == 130, self.said("cut")

    def start(self, name: str, *arguments: str) -> BaseProcess:
        """`python run.py` in a process of its own, into a folder of that name."""
        own = self.arguments(name, *arguments)
        process = fork.Process(target=call, args=(own, str(self.folder / f"{name}.log")))
        process.start()
        return process

    def arguments(self, name: str, *arguments: str) -> list[str]:
        given = {each.partition("=")[0] for each in arguments}
        usual = ["memo=off", "device=cpu", "tracking=terminal", f"hydra.run.dir={self.folder / name}"]
        return [*SETTING, *(each for each in usual if each.partition("=")[0] not in given), *arguments]

    def run(self, name: str, *arguments: str) -> int | None:
        process = self.start(name, *arguments)
        process.join()
        return process.exitcode

    def within(self, name: str, *wrap: str, after: str = "true", folder: str = "", **env: str) -> int:
        """A run under another command, and what a shell does `after` it in there."""
        command = [sys.executable, str(ROOT / "run.py"), *self.arguments(folder or name)]
        shell = [*wrap, "sh", "-c", f'"$@"; status=$?; {after}; exit $status', "sh", *command]
        with (self.folder / f"{name}.log").open("w") as log:
            return subprocess.run(shell, stdout=log, stderr=log, env={**os.environ, **env}).returncode

    def end(self, name: str, *signals: int, after: int = 12, arguments: tuple[str, ...] = ()) -> int | None:
        """Signal a run once it has some samples."""
        process = self.start(name, *arguments)
        while self.count(name) < after and process.is_alive():
            time.sleep(0.01)
        for number in signals:
            os.kill(process.pid or 0, number)
            time.sleep(0.005)
        process.join()
        return process.exitcode

    def copy(self, name: str) -> Path:
        """The run that was cut, under another name."""
        return Path(shutil.copytree(self.folder / "cut", self.folder / name))

    def count(self, name: str) -> int:
        file = self.folder / name / "samples.jsonl"
        return file.read_bytes().count(b"\n") if file.exists() else 0

    def said(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def same(self, name: str) -> None:
        """The run has ended as if nothing had happened."""
        whole, own = (self.folder / each / "samples.jsonl" for each in ("whole", name))
        assert own.read_bytes() == whole.read_bytes()
        assert self.results(name) == self.results("whole")

    def results(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / name / "results.json").read_text())
        found["forwards"].pop("computed")  # what it cost, which depends on how often it was begun
        found["settings"].pop("memo")
        return found

    def refused(self, name: str, status: int | None, reason: str) -> None:
        errors = [line for line in self.said(name).splitlines() if line.startswith("error: ")]
        assert status == 1, self.said(name)
        assert len(errors) == 1, self.said(name)
        assert re.search(reason, errors[0]), errors
        assert "Traceback" not in self.said(name)

    def killed(self, kills: int) -> str:
        """SIGKILL, at random moments of a run and of those that go on with it."""
        died, runs, done = 0, 0, True
        while died < kills or not done:
            runs += done
            name = f"killed-{runs}"
            before, process = self.count(name), self.start(name)
            process.join(random.uniform(0, self.seconds) if died < kills else None)
            if done := process.exitcode is not None:
                assert process.exitcode == 0, self.said(name)
                self.same(name)
            else:
                process.kill()
                process.join()
                died += 1
                assert self.count(name) >= before, "a kill lost samples"
        return f"{died} kills, {runs} runs"

    def terminated(self) -> str:
        """SIGTERM finishes the batch, as `cut` shows; the rest is decoded later, and nothing twice."""
        before = self.count("cut")
        self.copy("terminated")
        assert self.run("terminated") == 0, self.said("terminated")
        self.same("terminated")
        return f"{before} of {self.count('whole')} samples were kept"

    def kept(self) -> str:
        """What is finished is not decoded again: marked samples come out as they went in."""
        journal = Journal(self.copy("kept") / "samples.jsonl")
        journal.rewrite({**entry, "reason": "marked"} for entry in journal.entries)
        assert self.run("kept") == 0, self.said("kept")
        samples = Journal(journal.path).entries
        assert sum(sample["reason"] == "marked" for sample in samples) == len(journal.entries) < len(samples)
        return f"{len(journal.entries)} of {len(samples)} samples were not decoded again"

    def interrupted(self) -> str:
        """Ctrl-C once."""
        assert self.end("interrupted", signal.SIGINT) == 130
        assert "resume=" in self.said("interrupted")
        assert self.run("interrupted") == 0
        self.same("interrupted")
        return "exit status 130, then the same"

    def interrupted_twice(self) -> str:
        """Ctrl-C twice."""
        status = self.end("twice", signal.SIGINT, signal.SIGINT)
        assert status in (-signal.SIGINT, 130)
        assert self.run("twice") == 0
        self.same("twice")
        return "ended at once, then the same"

    def disk_full(self) -> str:
        """ENOSPC on a small tmpfs; what fitted is copied to where there is room, and goes on there."""
        small = self.folder / "small"
        small.mkdir()
        wrap = ["bwrap", "--dev-bind", "/", "/", "--size", "98304", "--tmpfs", str(small)]
        status = self.within("full", *wrap, after=f"cp -r {small}/full {self.folder}/full", folder="small/full")
        self.refused("full", status, "No space left on device.*free some")
        kept = self.count("full")
        assert kept > 0
        assert self.run("full") == 0, self.said("full")
        self.same("full")
        return f"refused in a line, {kept} samples kept, then the same"

    def read_only(self) -> str:
        """A folder that can't be written: a read-only mount, which stops root too."""
        fixed = self.folder / "fixed"
        fixed.mkdir()
        wrap = ["bwrap", "--dev-bind", "/", "/", "--ro-bind", str(fixed), str(fixed)]
        status = self.within("fixed", *wrap, folder="fixed/run")
        self.refused("fixed", status, "Read-only file system.*hydra.run.dir=")
        return "refused in a line"

    def damaged_samples(self) -> str:
        """samples.jsonl with its tail cut off and a bit flipped: those items are decoded again, and a line says so."""
        file = self.copy("damaged") / "samples.jsonl"
        content = bytearray(file.read_bytes()[:-7])
        content[len(content) // 3] ^= 4
        file.write_bytes(content)
        assert self.run("damaged") == 0, self.said("damaged")
        assert "2 of " in self.said("damaged")
        assert "lines are damaged: their items are decoded again" in self.said("damaged")
        self.same("damaged")
        return "two items decoded again, then the same"

    def damaged_memo(self) -> str:
        """The memo with its tail cut off, or with flipped bits."""
        memo = self.folder / "memo.sqlite"
        own = ("memo=on", f"memo_path={memo}")
        assert self.end("remembered", signal.SIGKILL, arguments=own) == -signal.SIGKILL
        kept = memo.read_bytes()
        rng = random.Random(0)
        flipped = bytearray(kept)
        for _ in range(200):
            flipped[rng.randrange(len(kept))] ^= 1 << rng.randrange(8)
        for name, content in (("cut", kept[: len(kept) // 2]), ("flipped", bytes(flipped))):
            memo.write_bytes(content)
            shutil.copytree(self.folder / "remembered", self.folder / f"memo-{name}")
            assert self.run(f"memo-{name}", *own) == 0, self.said(f"memo-{name}")
            self.same(f"memo-{name}")
        return "the same both times"

    def damaged_weights(self) -> str:
        """A safetensors file with a flipped bit, which still loads, and one with its tail cut off."""
        model = Path(shutil.copytree(TINY, self.folder / "model"))
        own = (f"model.path={model}", "decoder=threshold")
        assert self.end("weights", signal.SIGTERM, arguments=own) == 130
        before = self.count("weights")
        file = model / "model.safetensors"
        content = bytearray(file.read_bytes())
        content[-1000] ^= 1
        file.write_bytes(content)
        self.refused("weights", self.run("weights", *own), "model.fingerprint was")
        file.write_bytes(content[:-1000])
        self.refused("weights", self.run("weights", *own), "truncated")
        assert self.count("weights") == before
        return "refused in a line both times, nothing lost"

    def clock_jumps(self) -> str:
        """A clock that jumps by up to a year at every look."""
        (self.folder / "sitecustomize.py").write_text(JUMPING)
        assert self.within("clock", PYTHONPATH=str(self.folder)) == 0, self.said("clock")
        self.same("clock")
        return "the same"

    def two_processes(self) -> str:
        """A second process in a folder that one is writing."""
        first = self.start("two")
        while self.count("two") < 5:
            time.sleep(0.01)
        second = fork.Process(target=call, args=(self.arguments("two"), str(self.folder / "second.log")))
        os.kill(first.pid or 0, signal.SIGSTOP)
        second.start()
        second.join()
        os.kill(first.pid or 0, signal.SIGCONT)
        self.refused("second", second.exitcode, r"is being written by process \d+")
        first.join()
        self.same("two")
        return "the second is refused in a line, the first ends the same"

    def other_settings(self) -> str:
        """Another config in the folder of a run that is not finished, and what `resume_force` makes of it."""
        self.copy("other")
        self.refused("other", self.run("other", "decoder.kappa=0.3"), "config.decoder.kappa was 0.9, is 0.3")
        assert self.run("other", "decoder.kappa=0.3", "resume_force=true") == 0
        [again] = json.loads((self.folder / "other" / "manifest.json").read_text())["resumes"]
        assert again["changed"] == {"config.decoder.kappa": [0.9, 0.3]}
        return "refused in a line; forced, the manifest tells of the mix"


def call(arguments: list[str], log: str) -> None:
    """`python run.py ARGUMENTS` in this process, with what it says in a file."""
    import run
    from dlmlab.run import cli

    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.argv = ["run.py", *arguments]
    sys.exit(cli.exit_status(run.main))


def main(kills: int = KILLS) -> None:
    """Do every fault, and print what came of it. Raises AssertionError where a run does not survive one."""
    with tempfile.TemporaryDirectory() as name:
        faults = Faults(Path(name))
        single: list[Callable[[], str]] = [
            *(
                faults.terminated,
                faults.kept,
                faults.interrupted,
                faults.interrupted_twice,
                faults.disk_full,
                faults.read_only,
            ),
            *(faults.damaged_samples, faults.damaged_memo, faults.damaged_weights, faults.clock_jumps),
            *(faults.two_processes, faults.other_settings),
        ]
        print(f"killed: {faults.killed(kills)}", flush=True)
        for fault in single:
            print(f"{fault.__name__}: {fault()}", flush=True)


if __name__ == "__main__":
    from tests import faults  # so that a process of its own finds what it is to call

    faults.main(*map(int, sys.argv[1:]))
