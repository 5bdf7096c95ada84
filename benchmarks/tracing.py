"""What does a trace cost? The same prompts with every row traced, and without.

    python -m benchmarks.tracing repeats=7
    python -m benchmarks.tracing model=llada model.load_format=dummy

Timed is the loop, which copies a few more tensors a step; what follows, a trace's words and
its line on the disk, is shown apart.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.common import compose, exit_status, prepare, show
from dlmlab.generation import decode
from dlmlab.measure.timing import clock, take_turns
from dlmlab.record.traces import TraceFile, trace_of
from dlmlab.run import build
from dlmlab.tracking import Table
from dlmlab.types import Generation, Request


def main(overrides: Sequence[str]) -> bool:
    """Measure and print; there is no goal to miss."""
    cfg = compose(overrides)
    model, prompts, generation = prepare(cfg)
    rule = build.decoder(cfg)
    waiting = [Request(place, prompt, rule) for place, prompt in enumerate(prompts)]
    traced = [replace(request, traced=True) for request in waiting]

    def seconds(requests: Sequence[Request], batch: int) -> float:
        begun = clock(model.device)
        list(decode(model, requests, generation, batch_size=batch, share=False))
        return clock(model.device) - begun

    jobs = {
        (batch, name): partial(seconds, requests, batch)
        for batch in cfg.batch_sizes
        for name, requests in (("without", waiting), ("traced", traced))
    }
    take_turns(jobs, cfg.warmup)
    found = take_turns(jobs, cfg.repeats)
    rows = []
    for batch in cfg.batch_sizes:
        plain, own = (min(found[batch, name]) for name in ("without", "traced"))
        rows.append([str(batch), f"{1000 * plain:.0f} ms", f"{1000 * own:.0f} ms", f"{100 * (own / plain - 1):+.1f} %"])
    columns = ["batch", "without", "traced", "more"]
    note = f"The fastest of {cfg.repeats} rounds. {on_disk(model, traced, generation)}"
    show(Table(f"Tracing {len(prompts)} prompts: {rule}", columns, rows, note=note))
    return True


def on_disk(model: Any, traced: Sequence[Request], generation: Generation) -> str:
    """What keeping the traces takes, in words."""
    outputs = list(decode(model, traced, generation, batch_size=len(traced)))
    with tempfile.TemporaryDirectory() as folder:
        file = TraceFile(Path(folder), len(traced))
        begun = clock(model.device)
        for output in outputs:
            file.add(trace_of(model, output, "decoder", "", index=output.index))
        each = (clock(model.device) - begun) / len(outputs)
        size = file.path.stat().st_size / len(outputs)
    return f"Then {1000 * each:.1f} ms and {size / 1000:.0f} kB a trace, of {outputs[0].forwards} passes the first."


if __name__ == "__main__":
    sys.exit(exit_status(main))
