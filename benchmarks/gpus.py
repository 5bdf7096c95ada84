"""How much faster several GPUs of one host decode than one of them, with a model that keeps them busy.

    python -m benchmarks.gpus                              # LLaDA-8B's shape in bfloat16, random weights
    python -m benchmarks.gpus +gpus=ray                    # on those of the Ray cluster that this machine is part of

The first run on all, and on one, counts for nothing: the other processes still load the model, and shapes are recorded
the second time that they come.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from omegaconf import open_dict

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
CANVASES = 240
GOAL = 1.9


def main(arguments: Sequence[str]) -> bool:
    """Measure and print; return whether the goal is met, which is stated for two GPUs of this host."""
    cfg = compose(["model=llada", "model.load_format=dummy", "model.quantization=none", *arguments])
    with open_dict(cfg):
        cfg.gpus = cfg.get("gpus") or torch.cuda.device_count()
    with spread(cfg) as decode_on_all:
        model = build.model(cfg)
        prompts = random_prompts(model, [PROMPT] * CANVASES, GENERATION, cfg.seed)
        requests = [Request(index, prompt, Baseline()) for index, prompt in enumerate(prompts)]

        def seconds(decoded: Callable[..., Iterable[Any]]) -> float:
            begun = time.perf_counter()
            told = {"batch_size": Batch(BATCH), "memo": None, "on_step": lambda step: None, "seed": cfg.seed}
            assert sum(1 for _ in decoded(model, requests, GENERATION, **told)) == CANVASES
            return time.perf_counter() - begun

        # All first: its first run waits until the others have loaded the model, of which the one would lose time.
        took = [[seconds(decoded) for _ in range(3)][1:] for decoded in (decode_on_all, decode)][::-1]
    one, several = map(min, took)
    rows = [
        [number, " and ".join(f"{each:.2f} s" for each in times), f"{one / min(times):.2f} ×"]
        for number, times in zip((1, cfg.gpus), took, strict=True)
    ]
    title = f"{CANVASES} canvases of {GENERATION.gen_length} tokens, in batches of {BATCH}"
    show(Table(title, ["GPUs", "time", "by one"], rows))
    return cfg.gpus != 2 or one / several >= GOAL


if __name__ == "__main__":
    sys.exit(exit_status(main))
