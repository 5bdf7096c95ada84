"""Decode a task's items and score them. Answers are scored on the CPU while the model decodes the next ones."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from dlmlab.batch import Batch
from dlmlab.denoise import Tick
from dlmlab.files import plain, write_text
from dlmlab.generation import decode, encode
from dlmlab.look import Memo
from dlmlab.task.base import Item, Task
from dlmlab.trace import TraceFile, trace_of
from dlmlab.types import Generation, Output, Request, Rule


@dataclass(frozen=True)
class Sample:
    """One item, decoded and scored.

    index: the item's place in the task, whatever shard it came in. score: 0 to 1, None where the task gives none.
    reason: why it isn't right. variants: the score by other ways of extracting the answer. The rest is the
    `dlmlab.types.Output`.
    """

    task: str
    decoder: str
    index: int
    id: str
    prompt: str
    text: str
    tokens: list[int]
    step_of: list[int]
    forwards: int
    score: float | None
    reason: str
    variants: dict[str, float]


class SampleFile:
    """`samples.jsonl` of a run: a line as soon as an item is scored, sorted when the run is finished."""

    def __init__(self, folder: Path):
        self.path = folder / "samples.jsonl"
        self._samples: list[Sample] = []

    def add(self, sample: Sample) -> None:
        """Append a line, on disk when this returns."""
        self._samples.append(sample)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line(sample))

    def finish(self) -> None:
        """Sort by task, decoder and index."""
        ready = sorted(self._samples, key=lambda each: (each.task, each.decoder, each.index))
        write_text(self.path, "".join(map(line, ready)))


def line(sample: Sample) -> str:
    """A sample as a line of JSON."""
    return json.dumps(plain(asdict(sample)), ensure_ascii=False) + "\n"


def evaluate(model: Any, task: Task, rule: Rule, generation: Generation, *, decoder: str, **how: Any) -> list[Sample]:
    """All of the task's items, in order. decoder: what the rule is called in the samples. how: see `evaluate_all`."""
    return evaluate_all(model, task, {decoder: rule}, generation, **how)[decoder]


def evaluate_all(
    model: Any,
    task: Task,
    rules: Mapping[str, Rule],
    generation: Generation,
    *,
    batch_size: int | str | Batch,
    seed: int = 0,
    share: bool = True,
    memo: Memo | None = None,
    traces: TraceFile | None = None,
    on_sample: Callable[[Sample], None] = lambda sample: None,
    on_step: Callable[[Tick], None] = lambda tick: None,
) -> dict[str, list[Sample]]:
    """All of the task's items, in order, decoded by each of the rules in one pool, by the rule's name.

    traces: where it is kept how the first few items' canvases were filled. on_sample is called from this thread as
    items are scored, on_step after each of the loop's steps. Above temperature 0 only the first rule's randomness is
    what it would be alone.
    Raises UserError for a prompt that doesn't fit the model.
    """
    items = task.items()
    shard, num_shards = getattr(task, "shard", 0), getattr(task, "num_shards", 1)
    indices = [shard + place * num_shards for place in range(len(items))]
    prompts = [encode(model, item.prompt, generation.gen_length, f"{task.name} item {item.id}") for item in items]
    meaning: dict[int, tuple[int, Item, str]] = {}
    requests: list[Request] = []
    for turn, (name, rule) in enumerate(rules.items()):
        for place, (index, item, prompt) in enumerate(zip(indices, items, prompts, strict=True)):
            traced = traces is not None and place < traces.limit
            request = Request(turn * (indices[-1] + 1) + index, prompt, rule, traced)
            requests.append(request)
            meaning[request.index] = index, item, name
    samples: dict[str, list[Sample]] = {name: [] for name in rules}
    pending: dict[Future[Sample], None] = {}

    def collect(ready: Iterable[Future[Sample]]) -> None:
        for future in ready:
            del pending[future]
            sample = future.result()
            samples[sample.decoder].append(sample)
            on_sample(sample)
            bar.advance(shown)

    with progress() as bar, ThreadPoolExecutor(os.cpu_count()) as pool:
        shown = bar.add_task(
            f"{task.name}, {next(iter(rules)) if len(rules) == 1 else f'{len(rules)} settings'}", total=len(requests)
        )
        outputs = decode(
            model, requests, generation, batch_size=batch_size, seed=seed, share=share, memo=memo, on_step=on_step
        )
        for output in outputs:
            if traces is not None and output.trace:
                index, item, name = meaning[output.index]
                traces.add(trace_of(model, output, name, item.prompt, task=task.name, index=index, id=item.id))
            pending[pool.submit(scored, task, *meaning[output.index], output)] = None
            collect([future for future in pending if future.done()])
        collect(list(pending))
    return {name: sorted(each, key=lambda sample: sample.index) for name, each in samples.items()}


def scored(task: Task, index: int, item: Item, decoder: str, output: Output) -> Sample:
    """Score one output; called from the pool's threads."""
    text = output.text or ""
    score = task.score(item, text)
    return Sample(
        task=task.name,
        decoder=decoder,
        index=index,
        id=item.id,
        prompt=item.prompt,
        text=text,
        tokens=output.tokens,
        step_of=output.step_of,
        forwards=output.forwards,
        score=None if score is None else score.value,
        reason="" if score is None else score.reason,
        variants={} if score is None else dict(score.variants),
    )


def progress() -> Progress:
    """A bar with rate and time left, on stderr; nothing where that is no terminal."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
