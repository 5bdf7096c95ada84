"""Measure where a step's time goes, by part, with torch.profiler. Marks are set around the model, not in the loop.

The host's time is cut into stretches, each of one part. On a CPU a part's time is that of its stretches. On a GPU it is
that of the kernels launched in them, and the device's wait for each kernel is charged to the part that launched it.
"""

from __future__ import annotations

import bisect
import gzip
import json
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, record_function

from dlmlab.decoder.baseline import Baseline
from dlmlab.denoise import StepTiming, denoise
from dlmlab.denoiser import Query, Ready
from dlmlab.measure.roofline import ATTENTION, HEAD, MLP
from dlmlab.types import Generation, Request

REST, RULE = "rest of the model", "rule and bookkeeping"
BY_NAME = {
    "attention kernels": re.compile("flash|fmha|attention|sdpa|_attend|_keep|_join", re.IGNORECASE),
    "norms and activations": re.compile("_add_norm|_swiglu|_quantize"),
    "unpacking of weights": re.compile("_unpack|dequant", re.IGNORECASE),
    "matrix products": re.compile("gemm|nvjet|cutlass|xmma|cublas|matmul|_mm", re.IGNORECASE),
}
"""Parts of a captured or compiled forward pass, which is launched as a whole, by what the names of its
kernels contain.
"""
MARK = "dlmlab: "
TOLD = "Memcpy HtoD"
"""Prefix of the copies that bring a query to the device; the wait for them is counted as bookkeeping."""
KERNELS = {"kernel", "gpu_memcpy", "gpu_memset"}
LAUNCHES = {"cuda_runtime", "cuda_driver"}


class PartTime(NamedTuple):
    """The seconds of a step that one part takes.

    Attributes:
        busy: Seconds in which the device works for the part.
        idle: Seconds in which the device waits for the part's next kernel; 0 on a CPU.
    """

    busy: float
    idle: float


class Timeline:
    """Marks the host's time, as stretches that follow each other."""

    def __init__(self) -> None:
        self._open: record_function | None = None

    def enter(self, part: str) -> None:
        """Begin a stretch of a part, and end the one before."""
        self.close()
        self._open = record_function(MARK + part)
        self._open.__enter__()

    def close(self) -> None:
        """End the stretch under way; what follows belongs to no part."""
        if self._open is not None:
            self._open.__exit__(None, None, None)
        self._open = None


class Watched:
    """Wraps a model and marks on a timeline what it does."""

    def __init__(self, model: Any, timeline: Timeline) -> None:
        self._model, self._timeline = model, timeline

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def hidden(self, query: Query) -> Tensor:
        self._timeline.enter(REST)
        return self._model.hidden(query)  # type: ignore[no-any-return]

    def ready(self, query: Query) -> Ready:
        self._timeline.enter(REST)
        return self._model.ready(query)  # type: ignore[no-any-return]

    def head(self, *arguments: Any) -> Tensor:
        self._timeline.enter(HEAD)
        return self._model.head(*arguments)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class WatchedBaseline(Baseline):
    """The baseline, which says when the loop turns to it: before a forward pass is prepared and after its proposals."""

    timeline: Timeline

    @classmethod
    def stack(cls, rules: Sequence[Self], like: Tensor) -> Self:
        rules[0].timeline.enter(RULE)
        return super().stack(rules, like)


@contextmanager
def watched(model: Any, timeline: Timeline) -> Iterator[Watched]:
    """Mark the parts of the model's blocks: a block is attention up to its second norm, and MLP from there on.

    Args:
        model: The model; its blocks are watched until the context ends, if it has any with such a norm.
        timeline: Where the parts are marked.
    """
    hooks = []
    for block in [block for block in getattr(model, "modules", list)() if hasattr(block, "ff_norm")]:
        hooks += [  # a pass with a cache calls the block's parts, not the block
            (block.attn_norm or block).register_forward_pre_hook(lambda *_: timeline.enter(ATTENTION)),
            block.ff_norm.register_forward_pre_hook(lambda *_: timeline.enter(MLP)),
            block.register_forward_hook(lambda *_: timeline.enter(REST)),
        ]
    try:
        yield Watched(model, timeline)
    finally:
        for hook in hooks:
            hook.remove()


Job = Callable[[Any, Timeline], int]
"""Takes steps with a model that marks its own parts, marks what else it does, and returns how many steps it took."""


def decoding(prompts: Sequence[tuple[int, ...]], generation: Generation) -> Job:
    """Return the decoding of one batch with the baseline.

    Args:
        prompts: Token ids of the prompts.
        generation: How canvases are laid out and scheduled.
    """

    def job(model: Any, timeline: Timeline) -> int:
        steps, rule = list[StepTiming](), WatchedBaseline(timeline)
        requests = [Request(index, prompt, rule) for index, prompt in enumerate(prompts)]
        for _ in denoise(model, requests, generation, len(requests), share=False, on_step=steps.append):
            pass
        return len(steps)

    return job


def profile(model: Any, job: Job, trace: Path) -> dict[str, PartTime]:
    """Measure what a step spends on each part, on average.

    Args:
        model: The model.
        job: Takes the steps.
        trace: File that keeps the profiler's trace, gzipped, for chrome://tracing or ui.perfetto.dev.

    Returns:
        The seconds of a step by part.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # it writes about itself to stderr
    timeline = Timeline()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if model.device.type == "cuda" else [])]
    with watched(model, timeline) as marked, torch.profiler.profile(activities=activities) as profiler:
        steps = job(marked, timeline)
        timeline.close()
    profiler.export_chrome_trace(str(trace))
    with gzip.open(trace, "rt", encoding="utf-8") as file:
        events = json.load(file)["traceEvents"]
    spent = by_kernel(events) if model.device.type == "cuda" else by_stretch(events)
    return {part: PartTime(*(seconds / steps for seconds in each)) for part, each in spent.items()}


def stretches(events: Sequence[Mapping[str, Any]]) -> list[tuple[float, float, str]]:
    """Return begin, end (both in µs) and part of each marked stretch, in order."""
    marks = (each for each in events if each.get("cat") == "user_annotation" and each["name"].startswith(MARK))
    return sorted((each["ts"], each["ts"] + each["dur"], each["name"].removeprefix(MARK)) for each in marks)


def by_stretch(events: Sequence[Mapping[str, Any]]) -> dict[str, PartTime]:
    """Sum the seconds of each part on a CPU, which does at once what it is told."""
    spent = defaultdict[str, float](float)
    for begin, end, part in stretches(events):
        spent[part] += (end - begin) / 1e6
    return {part: PartTime(busy, 0.0) for part, busy in spent.items()}


def by_kernel(events: Sequence[Mapping[str, Any]]) -> dict[str, PartTime]:
    """Sum the seconds of each part on a GPU: of its kernels, and of the device's waits for them."""
    marks = stretches(events)
    begins = [begin for begin, _, _ in marks]
    launched = {
        each["args"]["correlation"]: each["ts"]
        for each in events
        if each.get("cat") in LAUNCHES and "correlation" in each.get("args", {})
    }
    hooked = any(part == MLP for _, _, part in marks)
    busy, idle = defaultdict[str, float](float), defaultdict[str, float](float)
    free = begins[0]
    for kernel in sorted((each for each in events if each.get("cat") in KERNELS), key=lambda each: each["ts"]):
        begin, end = kernel["ts"], kernel["ts"] + kernel["dur"]
        launch = launched.get(kernel["args"]["correlation"], begin)
        part = marks[max(0, bisect.bisect_right(begins, launch) - 1)][2]
        if kernel["name"].startswith(TOLD):
            part = RULE
        elif part == REST and not hooked:
            part = next((name for name, pattern in BY_NAME.items() if pattern.search(kernel["name"])), REST)
        idle[part] += max(0.0, begin - free) / 1e6
        busy[part] += max(0.0, end - max(begin, free)) / 1e6
        free = max(free, end)
    idle[RULE] += max(0.0, marks[-1][1] - free) / 1e6
    return {part: PartTime(busy[part], idle[part]) for part in dict.fromkeys([*busy, *idle])}
