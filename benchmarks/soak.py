"""Does anything grow or stay behind while requests go through the loop?

    python -m benchmarks.soak                       2,000 requests
    python -m benchmarks.soak --requests 120        a taste of it

Rounds of the tiny model's open prompts are decoded and scored, the decoders taking turns, and a few of its functions
run in the sandbox. After a warm-up of a fifth, resident memory must stay within 5 % of its first value, and at the end
there must be no more threads, processes, file descriptors or files than at its start. Exit status 1 where not.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import psutil
from hydra import compose, initialize_config_dir

import dlmlab
from dlmlab.loop.batch import Batch
from dlmlab.paths import CONF
from dlmlab.run import build
from dlmlab.run.evaluate import Decoding, evaluate

DECODERS = ("threshold", "localleap", "klass", "saber", "eb")
OF_A_ROUND, OF_THE_SANDBOX = 36, 4
WARM_UP, TOLERANCE = 0.2, 0.05


class Held(NamedTuple):
    """What a process holds."""

    memory: int
    threads: int
    processes: int
    descriptors: int
    files: int


COUNTED = ("threads", "processes", "descriptors", "files")


def held(folder: Path) -> Held:
    """What this process holds now; files are those of a folder and of the temporary one."""
    gc.collect()
    me = psutil.Process()
    files = [*folder.rglob("*"), *Path(tempfile.gettempdir()).glob("dlmlab*")]
    return Held(me.memory_info().rss, me.num_threads(), len(me.children(recursive=True)), me.num_fds(), len(files))


def soak(requests: int, folder: Path) -> list[Held]:
    """Decode the requests in rounds, and say what was held after each."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config")
        rules = [build.decoder(cfg, name) for name in DECODERS]
        spoken = build.task(cfg, "tiny_open", limit=OF_A_ROUND)
        run = build.task(cfg, "tiny_humaneval", limit=OF_THE_SANDBOX)
        canvas = {task.name: build.generation(cfg, task) for task in (spoken, run)}
    model = dlmlab.load("tiny/v1", device="cpu")
    after = []
    for number in range(-(-requests // (OF_A_ROUND + OF_THE_SANDBOX))):
        for task in (spoken, run):
            rule = rules[number % len(rules)]
            evaluate(model, task, {"soak": rule}, canvas[task.name], Decoding(Batch(8), seed=number))
        after.append(held(folder))
    return after


def judge(after: list[Held]) -> list[str]:
    """What grew or stayed behind, a line each."""
    warm = after[max(1, round(WARM_UP * len(after))) - 1 :]
    first, last = warm[0], warm[-1]
    low, high = (bound([each.memory for each in warm]) / first.memory - 1 for bound in (min, max))
    found = [f"memory went from {low:+.1%} to {high:+.1%} of {first.memory / 1e6:.0f} MB"] * (
        max(-low, high) > TOLERANCE
    )
    return found + [
        f"{getattr(last, n)} {n}, {getattr(first, n)} at first" for n in COUNTED if getattr(last, n) > getattr(first, n)
    ]


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser("python -m benchmarks.soak", description="Requests through the loop, for long.")
    parser.add_argument("--requests", type=int, default=2000)
    requests = parser.parse_args().requests
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        after = soak(requests, Path(folder))
    for number, each in enumerate(after, 1):
        if number in (1, len(after)) or number % 10 == 0:
            counts = ", ".join(f"{getattr(each, name)} {name}" for name in COUNTED)
            print(f"{number * (OF_A_ROUND + OF_THE_SANDBOX)} requests: {each.memory / 1e6:.1f} MB, {counts}")
    problems = judge(after)
    print("\n".join(problems) or "nothing grew, nothing stayed behind")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
