"""How much faster several GPUs of one host decode than one of them, with a model that keeps them busy.

    python -m benchmarks.gpus                              # LLaDA-8B's shape in bfloat16, random weights

Every other GPU loads the model in a process of its own. So that this doesn't count, the time is taken that so many more
canvases need.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from benchmarks.common import compose, exit_status, show
from dlmlab.decoder.baseline import Baseline
from dlmlab.generation import decode
from dlmlab.loop.batch import Batch
from dlmlab.run import build
from dlmlab.run.gpus import spread
from dlmlab.tracking import Table
from dlmlab.types import Generation, Request
from experiments.throughput import random_prompts

PROMPT, BATCH = 32, 8
GENERATION = Generation(64, 64, 16)
LEAST, MORE = 80, 480
"""Canvases whose time doesn't count, and how many more there are in the run whose time is compared."""
GOAL = 1.9


def main(arguments: Sequence[str]) -> bool:
    """Measure and print; return whether the goal is met, which is stated for two."""
    usual = ["model=llada", "model.load_format=dummy", "model.quantization=none"]
    cfg = compose([*usual, *arguments])
    names, model = [f"cuda:{number}" for number in range(torch.cuda.device_count())], build.model(cfg)

    def seconds(decoded: Callable[..., Iterable[Any]], canvases: int) -> float:
        prompts = random_prompts(model, [PROMPT] * canvases, GENERATION, cfg.seed)
        requests = [Request(index, prompt, Baseline()) for index, prompt in enumerate(prompts)]
        begun = time.perf_counter()
        outputs = decoded(
            model, requests, GENERATION, batch_size=Batch(BATCH), memo=None, on_step=lambda step: None, seed=cfg.seed
        )
        assert sum(1 for _ in outputs) == canvases
        return time.perf_counter() - begun

    seconds(decode, 2 * BATCH)  # shapes are recorded the second time that they come
    took = []
    for decoded in (decode, spread(cfg, names)):
        least, most = (seconds(decoded, canvases) for canvases in (LEAST, LEAST + MORE))
        took.append(most - least)
    faster = took[0] / took[1]
    rows = [
        [number, f"{each:.2f} s", f"{took[0] / each:.2f} ×"] for number, each in zip((1, len(names)), took, strict=True)
    ]
    show(
        Table(
            f"{MORE} canvases of {GENERATION.gen_length} tokens, in batches of {BATCH}",
            ["GPUs", "time", "by one"],
            rows,
        )
    )
    return len(names) != 2 or faster >= GOAL


if __name__ == "__main__":
    sys.exit(exit_status(main))
