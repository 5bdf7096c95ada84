"""Decode a task's items and score them. Answers are scored on the CPU while the model decodes the next ones."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from dlmlab.denoise import StepTiming
from dlmlab.generation import decode, encode, token_texts
from dlmlab.loop.batch import Batch
from dlmlab.loop.interrupt import finishing
from dlmlab.loop.shared_pass import Memo
from dlmlab.record.samples import Sample, SampleFile
from dlmlab.record.traces import TraceFile, trace_of
from dlmlab.rule import Rule
from dlmlab.task.base import Item, Task
from dlmlab.types import Generation, Output, Request


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
    file: SampleFile | None = None,
    on_step: Callable[[StepTiming], None] = lambda tick: None,
) -> dict[str, list[Sample]]:
    """All of the task's items, in order, decoded by each of the rules in one pool, by the rule's name.

    traces: where it is kept how the first few items' canvases were filled. file: where samples are kept as items are
    scored; those that it has are not decoded again. on_step is called after each of the loop's steps. Above
    temperature 0 only the first rule's randomness is what it would be alone.
    Raises UserError for a prompt that doesn't fit the model, KeyboardInterrupt where the user has asked for an end,
    once what was under way is kept.
    """
    items = task.items()
    shard, num_shards = getattr(task, "shard", 0), getattr(task, "num_shards", 1)
    indices = [shard + place * num_shards for place in range(len(items))]
    prompts = [encode(model, item.prompt, generation.gen_length, f"{task.name} item {item.id}") for item in items]
    meaning: dict[int, tuple[int, Item, str]] = {}
    requests: list[Request] = []
    samples = {name: file.known(task.name, name) if file else {} for name in rules}
    for turn, (name, rule) in enumerate(rules.items()):
        for place, (index, item, prompt) in enumerate(zip(indices, items, prompts, strict=True)):
            traced = traces is not None and place < traces.limit
            request = Request(turn * (indices[-1] + 1) + index, prompt, rule, traced)
            if index not in samples[name]:
                requests.append(request)
            meaning[request.index] = index, item, name
    pending: dict[Future[Sample], None] = {}
    text_of = token_texts(model)

    def collect(ready: Iterable[Future[Sample]]) -> None:
        for future in ready:
            del pending[future]
            sample = future.result()
            samples[sample.decoder][sample.index] = sample
            if file:
                file.add(sample)
            bar.advance(shown)

    with finishing(), progress() as bar, ThreadPoolExecutor(os.cpu_count()) as pool:
        what = next(iter(rules)) if len(rules) == 1 else f"{len(rules)} settings"
        done = len(meaning) - len(requests)
        shown = bar.add_task(f"{task.name}, {what}", total=len(meaning), completed=done)
        outputs = decode(
            model, requests, generation, batch_size=batch_size, seed=seed, share=share, memo=memo, on_step=on_step
        )
        for output in outputs:
            if traces is not None and output.trace:
                index, item, name = meaning[output.index]
                traces.add(trace_of(model, output, name, item.prompt, task=task.name, index=index, id=item.id))
            pieces = list(map(text_of, output.tokens))
            pending[pool.submit(scored, task, *meaning[output.index], output, pieces)] = None
            collect([future for future in pending if future.done()])
        collect(list(pending))
    return {name: [each[index] for index in indices] for name, each in samples.items()}


def scored(task: Task, index: int, item: Item, decoder: str, output: Output, pieces: list[str]) -> Sample:
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
        target=item.answer,
        pieces=pieces,
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
