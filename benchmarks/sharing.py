"""What does a grid cost when its settings share their forward passes, against one run after another?

    python -m benchmarks.sharing                                 the calibration's grid of 18 settings, and the baseline
    python -m benchmarks.sharing decoder=localleap_paper task=tiny_open

Each single run is the loop by itself, as one evaluation has it; the pool is the calibration's, with the memo's file
new and empty. Goals: 0.15 of the forwards, 0.2 of the wall time, and every token the same. Neither the loading of the
model nor scoring is timed. How many canvases there are is the limit: a rule that revokes meets more than are counted.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import hydra

from benchmarks.common import exit_status, mark, show
from dlmlab.denoise import StepTiming
from dlmlab.generation import decode, encode
from dlmlab.loop.shared_pass import Memo
from dlmlab.measure.timing import clock
from dlmlab.memo import DiskMemo
from dlmlab.paths import CONF
from dlmlab.rule import Rule
from dlmlab.run import build
from dlmlab.run.grid import BASELINE, grid
from dlmlab.tracking import Table
from dlmlab.types import Generation, Output, Request

FORWARDS, SECONDS = 0.15, 0.2


class Cost(NamedTuple):
    """What some requests took: canvases that went through the model, wall time, and what they gave by index."""

    forwards: int
    seconds: float
    outputs: Mapping[int, Output]


def main(overrides: Sequence[str]) -> bool:
    """Measure, print, and say whether the goals are kept."""
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = hydra.compose("config", overrides=["experiment=calibration", *overrides])
    settings = grid(cfg)
    rules = [build.decoder(cfg, BASELINE), *(setting.rule for setting in settings)]
    task = build.task(cfg, cfg.task.get("name") or cfg.model.tasks.humaneval)
    generation = build.generation(cfg, task)
    model = build.model(cfg)
    prompts = [encode(model, item.prompt, generation.gen_length, item.id) for item in task.items()]

    def requests(rule: Rule, turn: int) -> list[Request]:
        return [Request(turn * len(prompts) + place, prompt, rule) for place, prompt in enumerate(prompts)]

    each = [requests(rule, turn) for turn, rule in enumerate(rules)]
    measure(model, each[0][:1], generation, cfg.batch_size)
    singles = [measure(model, own, generation, cfg.batch_size) for own in each]
    with tempfile.TemporaryDirectory() as folder:
        memo = DiskMemo(Path(folder) / "memo.sqlite", model, generation, cfg.memo_gb)
        pool = measure(model, [request for own in each for request in own], generation, cfg.batch_size, memo)

    forwards, seconds = sum(one.forwards for one in singles), sum(one.seconds for one in singles)
    alone = {index: output for one in singles for index, output in one.outputs.items()}
    changed = sum(alone[index].tokens != output.tokens for index, output in pool.outputs.items())
    by_forwards, by_seconds = pool.forwards / forwards, pool.seconds / seconds
    kept = [by_forwards <= FORWARDS, by_seconds <= SECONDS, changed == 0]
    rows = [
        ["forwards", str(forwards), str(pool.forwards), f"{by_forwards:.3f}", f"≤ {FORWARDS} {mark(kept[0])}"],
        ["seconds", f"{seconds:.1f}", f"{pool.seconds:.1f}", f"{by_seconds:.3f}", f"≤ {SECONDS} {mark(kept[1])}"],
        ["answers that differ", "", "", f"{changed} of {len(alone)}", f"0 {mark(kept[2])}"],
    ]
    title = f"{len(settings)} settings of {type(settings[0].rule).__name__} and the baseline, {len(prompts)} items"
    note = f"{task.name}, {generation}. {limit(pool.outputs, len(prompts))}"
    show(Table(title, ["", "one after another", "as one pool", "ratio", "goal"], rows, note=note))
    return all(kept)


def limit(outputs: Mapping[int, Output], prompts: int) -> str:
    """What no sharing can go below: the different canvases, which a row met before each of its passes."""
    baseline, settings = set[object](), list[object]()
    for index, output in outputs.items():
        steps = list(zip(output.tokens, output.step_of, strict=True))
        met = [(index % prompts, *(tok if step < t else None for tok, step in steps)) for t in range(output.forwards)]
        if index < prompts:
            baseline.update(met)
        else:
            settings += met
    own = set(settings)
    return (
        f"Different canvases: {len(own | baseline)}, of which {len(baseline)} are the baseline's and "
        f"{len(baseline - own)} its alone. The settings by themselves: {len(own)} of {len(settings)}, "
        f"{len(own) / len(settings):.3f}."
    )


def measure(
    model: Any, requests: Sequence[Request], generation: Generation, batch_size: int, memo: Memo | None = None
) -> Cost:
    """Decode the requests against the clock."""
    ticks: list[StepTiming] = []
    begun = clock(model.device)
    outputs = list(decode(model, requests, generation, batch_size=batch_size, memo=memo, on_step=ticks.append))
    seconds = clock(model.device) - begun
    return Cost(sum(tick.computed for tick in ticks), seconds, {output.index: output for output in outputs})


if __name__ == "__main__":
    sys.exit(exit_status(main))
