"""Does the decoder's speedup survive batching, and does the loop cost anything?

    python -m benchmarks.batching repeats=5

Goals: the speedup at the largest of `batch_sizes` is at least 0.9 of that at batch 1 (in the performance log it is
0.75), and the baseline at batch 1 is not slower than the reference loop.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from benchmarks.common import compose, exit_status, mark, prepare, show
from dlmlab.measure.timing import spread
from dlmlab.run import build
from dlmlab.tracking import Table
from experiments.throughput import BASELINE, REFERENCE, Setting, Timings, measure, rate

KEPT_SPEEDUP = 0.9
LOOP_BY_REFERENCE = 1.0
DECODER = "decoder"


def main(overrides: Sequence[str]) -> bool:
    """Measure, print, and say whether both goals are kept."""
    cfg = compose(overrides)
    rules = {BASELINE: (build.decoder(cfg, BASELINE), None), DECODER: (build.decoder(cfg), None)}
    model, prompts, generation = prepare(cfg)
    widest = max(cfg.batch_sizes)
    timings = measure(cfg, model, prompts, generation, rules, [1, widest])

    alone, together = speedups(timings, 1), speedups(timings, widest)
    kept = spread(wide / one for wide, one in zip(together, alone, strict=True))
    loop = spread(ratio(timings, Setting(BASELINE, 1), Setting(REFERENCE, 1)))
    columns = ["", "median", "lowest–highest", "goal"]
    rows = [
        [name, f"{each.median:.1f}", f"{each.low:.1f}–{each.high:.1f}", ""]
        for name, each in (
            (f"{setting.decoder}, batch {setting.batch}, tok/s", rate(timings, setting)) for setting in timings
        )
    ]
    for name, each, goal in (
        ("speedup at batch 1", spread(alone), None),
        (f"speedup at batch {widest}", spread(together), None),
        ("the second by the first", kept, KEPT_SPEEDUP),
        ("baseline by reference, batch 1", loop, LOOP_BY_REFERENCE),
    ):
        verdict = "" if goal is None else f"≥ {goal:.2f} {mark(each.median >= goal)}"
        rows.append([name, f"{each.median:.3f}", f"{each.low:.3f}–{each.high:.3f}", verdict])
    show(Table(f"Batching: {rules[DECODER][0]}", columns, rows, note="Ratios are of runs of the same round."))
    return kept.median >= KEPT_SPEEDUP and loop.median >= LOOP_BY_REFERENCE


def speedups(timings: Timings, batch: int) -> list[float]:
    """The decoder against the baseline, round by round."""
    return ratio(timings, Setting(DECODER, batch), Setting(BASELINE, batch))


def ratio(timings: Timings, setting: Setting, than: Setting) -> list[float]:
    """How much faster one setting was than another, round by round; both fill the same canvases."""
    return [b.seconds / a.seconds for a, b in zip(timings[setting], timings[than], strict=True)]


if __name__ == "__main__":
    sys.exit(exit_status(main))
