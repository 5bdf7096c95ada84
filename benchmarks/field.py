"""The field's setting on a GPU: prompts of 1,024 tokens, canvases of 256, blocks of 32, by cache and batch size.

    python -m benchmarks.field                             # LLaDA-8B's shape in bfloat16, random weights
    python -m benchmarks.field model.quantization=fp8 per_forward=8 batch_sizes=[1,16]

The baseline's steps set how many tokens a forward pass commits, so that random weights cost what real ones would. Its
schedule tells beforehand whether a step can fill a block, and the next pass begins at once where it can't; with
`decoder=localleap decoder.kappa=1`, which commits the same, it waits for the tokens, as it does with most rules. Rows
are timed in turns, after runs of each that are not counted. Where a cache makes most passes ones over a block alone,
the median step is such a pass. Its floor: the time in which the weights, and the keys and values of the rows, can be
read once, at the rate of a large copy. Peak memory is that of all runs, with those that are not counted, and holds what
larger batches, which come first, have left behind: ask for one batch size, as in batch_sizes=[4], to learn its own.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from omegaconf import OmegaConf

from benchmarks.common import compose, exit_status, show
from dlmlab.cache.dual import Dual
from dlmlab.cache.onward import Onward
from dlmlab.cache.prefix import Prefix
from dlmlab.measure.roofline import KeptRow, copy_rate, count
from dlmlab.measure.timing import Timing, percentile, spread, take_turns, time_decode
from dlmlab.policy import Policy
from dlmlab.run import build
from dlmlab.tracking import Table
from dlmlab.types import Generation, Request
from experiments.throughput import random_prompts

PROMPT, CANVAS, BLOCK = 1024, 256, 32
OWN = {
    "per_forward": 4,
    "batch_sizes": [1, 8],
    "caches": ["none", "prefix", "dual", "onward"],
    "window": None,
    "rounds": 3,
}
"""What may be set besides the config's keys; the window is onward's."""


def main(arguments: Sequence[str]) -> bool:
    """Measure and print."""
    own = OmegaConf.merge(OWN, OmegaConf.from_dotlist([each for each in arguments if each.split("=")[0] in OWN]))
    others = [each for each in arguments if each.split("=")[0] not in OWN]
    usual = ["model=llada", "model.load_format=dummy", "model.quantization=none", "decoder=baseline"]
    cfg = compose([*usual, *others])
    model, rule = build.model(cfg), build.decoder(cfg)
    generation = Generation(CANVAS, BLOCK, CANVAS // own.per_forward)
    policies: dict[str, Policy | None] = {
        "none": None,
        "prefix": Prefix(),
        "dual": Dual(),
        "onward": Onward(window=own.window),
    }

    def timed(name: str, batch: int) -> Timing:
        prompts = random_prompts(model, [PROMPT] * batch, generation, cfg.seed)
        requests = [Request(index, prompt, rule, cache=policies[name]) for index, prompt in enumerate(prompts)]
        return time_decode(model, requests, generation, batch)

    settings = [(name, batch) for batch in own.batch_sizes for name in own.caches]
    first = {}
    for setting in sorted(settings, key=lambda each: -each[1]):  # the largest first: more rows need another memory
        first[setting] = [timed(*setting) for _ in range(2)]  # shapes are recorded the second time that they come
    stored, dtype = str(cfg.model.quantization), str(model.dtype).removeprefix("torch.")
    kept, rate_of_copy = KeptRow(PROMPT + CANVAS, model.new_store(PROMPT + CANVAS).nbytes), copy_rate(model.device)
    timings = take_turns({each: lambda each=each: timed(*each) for each in settings}, own.rounds)
    rows = []
    for (name, batch), runs in timings.items():
        rate = spread(run.ledger.canvas / run.seconds for run in runs)
        steps = [step.seconds for run in runs for step in run.steps]
        work = count(model.config, stored, dtype, batch, BLOCK, batch * BLOCK, kept)
        read = sum(part.weight_bytes for part in work.values()) / rate_of_copy
        floor = None if policies[name] is None else read
        rows.append(
            [
                *(name, batch, f"{rate.median:.1f}", f"{rate.low:.1f}–{rate.high:.1f}"),
                *(f"{1000 * percentile(steps, percent):.2f} ms" for percent in (10, 50, 90)),
                None if floor is None else f"{1000 * floor:.2f} ms",
                None if floor is None else f"{percentile(steps, 50) / floor:.2f}×",
                f"{max(run.peak_bytes for run in [*first[name, batch], *runs]) / 1e9:.2f} GB",
            ]
        )
    rates, steps_of = ["canvas tok/s", "lowest–highest"], ["step p10", "p50", "p90", "floor", "p50 / floor"]
    columns = ["cache", "batch", *rates, *steps_of, "peak memory"]
    title = f"Prompt {PROMPT}, canvas {CANVAS}, block {BLOCK}, {own.per_forward} tokens a forward pass"
    show(Table(title, columns, rows))
    return True


if __name__ == "__main__":
    sys.exit(exit_status(main))
