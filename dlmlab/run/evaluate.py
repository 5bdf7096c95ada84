"""Decode a task's items and score them. Answers are scored on the CPU while the model decodes the next ones."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Any

from dlmlab.denoise import StepTiming
from dlmlab.generation import decode, encode, token_texts
from dlmlab.loop.batch import Batch
from dlmlab.loop.interrupt import finishing
from dlmlab.loop.shared_pass import Memo
from dlmlab.policy import Policy
from dlmlab.record.samples import Sample, SampleFile
from dlmlab.record.traces import TraceFile, trace_of
from dlmlab.rule import Rule
from dlmlab.run.display import bar
from dlmlab.task.base import Item, Task, score_answer, until
from dlmlab.types import Generation, Output, Request


@dataclass(frozen=True)
class Decoding:
    """How a task's items are decoded, whatever the task and the rules."""

    batch: Batch
    seed: int = 0
    share: bool = True
    memo: Memo | None = None
    traces: TraceFile | None = None
    file: SampleFile | None = None
    on_step: Callable[[StepTiming], None] = lambda step: None
    display: str = "auto"
    caches: Mapping[str, Policy] = field(default_factory=dict)
    decode: Callable[..., Iterator[Output]] = decode


def evaluate(
    model: Any, task: Task, rules: Mapping[str, Rule], generation: Generation, how: Decoding
) -> dict[str, list[Sample]]:
    """Decode all of a task's items by each of the rules in one pool, and score them.

    What a rule draws depends on the seed and the item, and not on the rules beside it.

    Args:
        model: What decodes.
        task: The task whose items are decoded.
        rules: By what they are called in the samples.
        generation: How canvases are laid out and scheduled.
        how: Everything else.

    Returns:
        The samples in the items' order, by the rule's name.

    Raises:
        UserError: A prompt doesn't fit the model.
        KeyboardInterrupt: The user has asked for an end; what was under way is kept.
    """
    items = task.items()
    shard, num_shards = getattr(task, "shard", 0), getattr(task, "num_shards", 1)
    indices = [shard + place * num_shards for place in range(len(items))]
    prompts = [encode(model, item.prompt, generation.gen_length, f"{task.name} item {item.id}") for item in items]
    meaning: dict[int, tuple[int, Item, str]] = {}
    requests: list[Request] = []
    samples = {name: how.file.known(task.name, name) if how.file else {} for name in rules}
    for turn, (name, rule) in enumerate(rules.items()):
        for place, (index, item, prompt) in enumerate(zip(indices, items, prompts, strict=True)):
            traced = how.traces is not None and place < how.traces.limit
            request = Request(turn * (indices[-1] + 1) + index, prompt, rule, traced, how.caches.get(name), index)
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
            if how.file:
                how.file.add(sample)
            shown.advance()

    what = f"{task.name}, {next(iter(rules)) if len(rules) == 1 else f'{len(rules)} settings'}"
    progress = bar(what, len(meaning), len(meaning) - len(requests), how.display)
    with finishing(), progress as shown, ThreadPoolExecutor(os.cpu_count()) as pool:
        outputs = how.decode(
            model,
            requests,
            generation,
            batch_size=how.batch,
            seed=how.seed,
            share=how.share,
            memo=how.memo,
            on_step=how.on_step,
        )
        for output in outputs:
            if how.traces is not None and output.trace:
                index, item, name = meaning[output.index]
                how.traces.add(trace_of(model, output, name, item.prompt, task=task.name, index=index, id=item.id))
            pieces = list(map(text_of, output.tokens))
            again = tokens_again(model, output.text, meaning[output.index][1])
            pending[pool.submit(scored, task, *meaning[output.index], output, pieces, again)] = None
            collect([future for future in pending if future.done()])
        collect(as_completed(list(pending)))
    return {name: [each[index] for index in indices] for name, each in samples.items()}


def scored(
    task: Task, index: int, item: Item, decoder: str, output: Output, pieces: list[str], again: int | None
) -> Sample:
    """Score one output; called from the pool's threads.

    Args:
        task: The task, which scores the answer.
        index: The item's index in the task, whatever shard it came in.
        item: The item that was answered.
        decoder: What the rule is called in the samples.
        output: The filled canvas; without a tokenizer it has no text, and an empty one is scored.
        pieces: The text of each of the canvas's tokens.
        again: How many tokens the answer's text has, see `tokens_again`.
    """
    text = output.text or ""
    score = score_answer(task, item, text)
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
        positions=output.positions,
        full_passes=output.full_passes,
        score=None if score is None else score.value,
        reason="" if score is None else score.reason,
        variants={} if score is None else dict(score.variants),
        target=item.answer,
        answer_tokens=again,
        pieces=pieces,
    )


def tokens_again(model: Any, text: str | None, item: Item) -> int | None:
    """Return how many tokens an answer's text has, cut at its task's stops and tokenised again; None without text.

    Args:
        model: The model, whose tokenizer counts.
        text: The answer's text; None where the model has no tokenizer.
        item: The item, whose `meta` may hold the stops, under `until`.
    """
    if text is None:
        return None
    answer = until(text, item.meta.get("until", ()))
    return len(model.tokenizer(answer, add_special_tokens=False)["input_ids"])
