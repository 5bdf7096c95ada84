"""What does a model answer? Prints the answer to one prompt, or writes those to many as JSON lines.

    python run.py experiment=answer prompt="Count from 3 to 12"
    python run.py experiment=answer prompts=mine.jsonl decoder=threshold

`answers.jsonl` in the run's folder has a line for each prompt: what its own line held, `prompt`, `answer`, and the
`forwards` that it took. A run that was killed goes on with the same prompts and `resume=`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from omegaconf import DictConfig

from dlmlab.errors import UserError
from dlmlab.policy import Policy
from dlmlab.record.files import visible, write_text
from dlmlab.record.samples import Sample
from dlmlab.rule import Rule
from dlmlab.run import build
from dlmlab.run.begin import begin
from dlmlab.run.check import check_fit
from dlmlab.run.kinds import TRACED, gathered
from dlmlab.run.samples import cost_of, count_tokens
from dlmlab.task.base import Item
from dlmlab.task.prompts import Prompts, read_prompts
from dlmlab.tracking import Cell, Report, Table
from experiments.trace import prompt_of

if TYPE_CHECKING:
    from dlmlab.run.rescore import Saved

KINDS: Mapping[str, Any] = {"prompt": str | float | None, "prompts": str | None, **TRACED}
ANSWERS = "answers.jsonl"
OWN = ("answer", "forwards")
"""Keys that an answer's line adds to the prompt's."""
SHOWN = 5
"""Answers that stand in the report; the file has them all."""


class Parts(NamedTuple):
    """The prompts, and what answers them."""

    rule: Rule
    cache: Policy
    task: Prompts


def check(cfg: DictConfig) -> Parts:
    """Return the prompts, as a task, and the decoder.

    Raises:
        UserError: One of them can't be had, or a prompt doesn't fit the model.
    """
    with gathered() as errors:
        with errors:
            rule = build.decoder(cfg)
            cache = build.cache(cfg, [rule])
        with errors:
            task = Prompts(given(cfg), build.own_generation(cfg))
            check_fit(cfg, task, task.generation)
    return Parts(rule, cache, task)


def given(cfg: DictConfig) -> list[Item]:
    """The prompt, or the prompts of the file. Raises UserError for both, or neither."""
    if cfg.prompts is None:
        return [Item("prompt", prompt_of(cfg), "")]
    if cfg.prompt is not None:
        raise UserError("prompt= is one prompt and prompts= names a file of them: give one of the two")
    items = read_prompts(cfg.prompts)
    for item in items:
        if taken := [key for key in OWN if key in item.meta]:
            raise UserError(f"prompts={cfg.prompts}: {item.id} has {taken[0]!r}, a key of the answers': rename it")
    return items


def run(cfg: DictConfig, parts: Parts) -> None:
    """Decode every prompt, write the answers, and print one that is asked for by itself.

    Args:
        cfg: The run's config.
        parts: What `check` returned.
    """
    rule, cache, task = parts
    with begin(cfg, [task]) as run:
        [samples] = run.evaluate(task, {"candidate": rule}, task.generation, {"candidate": cache}).values()
        file = run.folder / ANSWERS
        write_answers(file, task.items(), samples)
        if cfg.prompts is None:
            print("\n".join(map(visible, samples[0].text.splitlines())))
        else:
            print(f"answers: {visible(str(file))}")
        report = Report(
            title="Answers",
            question=f"What does {build.model_name(cfg)} answer by {build.described(rule, cache)}?",
            settings={
                "model": build.model_name(cfg),
                "decoder": str(rule),
                "cache": str(cache),
                "generation": str(task.generation),
                "batch_size": str(run.batch),
            },
            **report_fields(run.model, samples),
        )
        run.publish(report)


def write_answers(file: Path, items: Sequence[Item], samples: Sequence[Sample]) -> None:
    """Write a line for each prompt.

    Args:
        file: The file that is written, as JSON lines.
        items: The prompts.
        samples: Their answers, in the same order.

    Raises:
        OSError: The file can't be written.
    """
    lines = [
        {**item.meta, "prompt": item.prompt, "answer": sample.text, "forwards": sample.forwards}
        for item, sample in zip(items, samples, strict=True)
    ]
    write_text(file, "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines))


def report_fields(model: Any, samples: Sequence[Sample]) -> dict[str, Any]:
    """Return what was answered and what it took, in a Report's fields; the first answers of many in a table.

    Args:
        model: What is known of it: the tokens that end an answer.
        samples: The answers, at least one.
    """
    figures = {"answers": len(samples), **cost_of(samples, count_tokens(model, samples))}
    cost = f"{figures['forwards per item']:.2f} forward passes"
    several = len(samples) > 1
    rows: list[list[Cell]] = [[sample.prompt, sample.text, sample.forwards] for sample in samples[:SHOWN]]
    note = f"The first {SHOWN} of {len(samples)}; {ANSWERS} has them all." if len(samples) > SHOWN else ""
    return {
        "tables": [Table("", ["prompt", "answer", "forward passes"], rows, note)] if several else [],
        "verdict": f"{len(samples)} answers, {cost} each." if several else f"Answered in {cost}.",
        "results": figures,
        "summary": figures,
    }


def recompute(saved: Saved) -> dict[str, Any]:
    """Return what must stand in the results of a run that left these samples; see `dlmlab.verify`."""
    return report_fields(saved.model, saved.samples)
