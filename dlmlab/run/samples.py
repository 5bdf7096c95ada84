"""What scored samples amount to: a score with its interval, what it cost, and what went wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, NamedTuple

from dlmlab.generation import answer_length
from dlmlab.measure.stats import proportion_interval
from dlmlab.record.samples import Sample
from dlmlab.run.shown import interval, named, points
from dlmlab.task.base import Task
from dlmlab.tracking import Cell, Table

TOKENS = ("canvas tokens", "tokens before the end token", "non-EOS tokens")
AGAIN = "re-tokenised answer tokens"
"""The field's definition: the text before the stops, tokenised again; only where every sample knows it."""


def score_of(samples: Sequence[Sample]) -> dict[str, Any]:
    """Return the mean score with its 95 % interval, null for a task whose answers have none."""
    scores = [sample.score for sample in samples if sample.score is not None]
    if not scores:
        return {"score": None, "ci_low": None, "ci_high": None, "n": len(samples)}
    low, high = proportion_interval(sum(score == 1 for score in scores), len(scores))
    return {"score": sum(scores) / len(scores), "ci_low": low, "ci_high": high, "n": len(scores)}


def scorings_of(samples: Sequence[Sample]) -> dict[str, dict[str, Any]]:
    """Return, for each way of scoring the answers that a task has, the mean score with its 95 % interval."""
    found = {}
    for name in samples[0].variants:
        scores = [sample.variants[name] for sample in samples]
        low, high = proportion_interval(sum(score == 1 for score in scores), len(scores))
        found[name] = {"score": sum(scores) / len(scores), "ci_low": low, "ci_high": high, "n": len(scores)}
    return found


def count_tokens(model: Any, samples: Sequence[Sample]) -> dict[str, int]:
    """Count the generated tokens of all samples together, in each way that tokens are counted.

    Args:
        model: The model, or what knows its `end_token_ids`.
        samples: The samples, whose tokens are added up.

    Returns:
        The numbers by name: those of `TOKENS`, and `AGAIN` where every sample knows it.
    """
    canvas = sum(len(sample.tokens) for sample in samples)
    answer = sum(answer_length(model, sample.tokens) for sample in samples)
    non_eos = sum(token not in model.end_token_ids for sample in samples for token in sample.tokens)
    counts = dict(zip(TOKENS, (canvas, answer, non_eos), strict=True))
    again = [sample.answer_tokens for sample in samples if sample.answer_tokens is not None]
    return counts | ({AGAIN: sum(again)} if len(again) == len(samples) else {})


def cost_of(samples: Sequence[Sample], tokens: Mapping[str, int]) -> dict[str, float]:
    """Return the tokens of `count_tokens` and the forward passes that they took.

    Args:
        samples: The samples, at least one.
        tokens: Their tokens, as `count_tokens` returns them.
    """
    forwards = sum(sample.forwards for sample in samples)
    return {
        **tokens,
        "forwards per item": forwards / len(samples),
        **{f"{name} per forward": count / forwards for name, count in tokens.items()},
        **computed_of(samples),
    }


def computed_of(samples: Sequence[Sample]) -> dict[str, float]:
    """Return what forward passes computed for an item: positions, and full-pass equivalents."""
    return {
        "positions per item": sum(sample.positions for sample in samples) / len(samples),
        "full-pass equivalents per item": sum(sample.full_passes for sample in samples) / len(samples),
    }


class Evaluated(NamedTuple):
    """What was evaluated, as a report names it."""

    task: str
    model: str
    decoder: str
    items: int
    """Of the task in all, of which a limit takes a part."""
    beats_empty: bool | None
    """See `beats_empty`."""


def evaluated(results: Mapping[str, Any]) -> Evaluated:
    """Return what an evaluation's results.json says was evaluated. Raises KeyError where it doesn't."""
    task, model, decoder = (results["settings"][key] for key in ("task", "model", "decoder"))
    return Evaluated(task, model, decoder, results["of_items"], results["beats_empty"])


def joined(shards: Sequence[Evaluated]) -> Evaluated:
    """Return what was evaluated in shards; whether it beats empty answers is known where all agree."""
    beats = {shard.beats_empty for shard in shards}
    return shards[0]._replace(beats_empty=beats.pop() if len(beats) == 1 else None)


def all_items(task: Task) -> int:
    """Return how many items a task has, whatever part of them is selected."""
    if not is_dataclass(task):
        return len(task.items())
    whole: dict[str, Any] = {"limit": None, "shard": 0, "num_shards": 1}
    return len(replace(task, **{each.name: whole[each.name] for each in fields(task) if each.name in whole}).items())


def beats_empty(task: Task, samples: Sequence[Sample]) -> bool | None:
    """Say whether the answers score more than empty ones would; None for a task whose answers have no score.

    Empty answers are scored, on the same items, until it is certain: code is executed for it.

    Args:
        task: What the samples are of.
        samples: One for each of its items, in order.
    """
    if any(sample.score is None for sample in samples):
        return None
    own, empty = sum(sample.score or 0.0 for sample in samples), 0.0
    for place, item in enumerate(task.items()):
        if empty >= own or empty + len(samples) - place < own:
            break
        score = task.score(item, "")
        empty += score.value if score else 0.0
    return empty < own


def verdict(figures: Mapping[str, Any], of: Evaluated) -> str:
    """Return the score and its cost in a sentence, and in another that an empty answer does as well, where it does.

    Args:
        figures: Those of `score_of` and `cost_of`, by their keys in results.json.
        of: What was evaluated.
    """
    cost = f"{figures['forwards per item']:.2f} forward passes an item"
    if (whole := figures["full-pass equivalents per item"]) < figures["forwards per item"]:
        cost += f", the work of {whole:.2f} full ones"
    what, items = f"{of.decoder} at {of.task} with {of.model}", share(figures["n"], of.items)
    if figures["score"] is None:
        return f"{what}: {items} answers without a score, {cost}."
    ends = interval(figures["ci_low"], figures["ci_high"])
    said = f"{what}: score {points(figures['score'])} (95 % interval {ends}, {items} items), {cost}."
    return said + ("" if of.beats_empty is not False else " That is no better than empty answers score.")


def share(taken: int, of: int) -> str:
    """Return how many were taken, and of how many unless it is all.

    Args:
        taken: The number of items that were evaluated.
        of: The number that the task has in all.
    """
    return str(taken) if taken == of else f"{taken} of {of}"


def evaluation_tables(figures: Mapping[str, Cell], samples: Sequence[Sample], of: Evaluated) -> list[Table]:
    """Return tables of one decoder's score and cost, and of its details.

    Args:
        figures: Those of `score_of` and `cost_of`, by their keys in results.json.
        samples: The samples that the figures are of.
        of: What was evaluated.
    """
    shown = {"task": of.task, "model": of.model, "decoder": of.decoder, **named(figures)}
    shown["items"] = share(len(samples), of.items)
    note = "Scores in points of 100."
    if of.beats_empty is False:
        note += " Empty answers would score no less: this model can't do the task, or not in this setting."
    table = Table("Score and cost", ["", "value"], [[name, value] for name, value in shown.items()], note)
    return [table, *detail_tables({"": samples})]


def detail_tables(samples: Mapping[str, Sequence[Sample]]) -> list[Table]:
    """A task's scores by way of extracting the answer, and what went wrong; a column for each set of samples."""

    def columns(first: str, each: str) -> list[str]:
        return [first, *(f"{each}, {name}" if name else each for name in samples)]

    variants = {name: None for each in samples.values() for sample in each for name in sample.variants}
    reasons = {name: Counter(sample.reason for sample in each if sample.reason) for name, each in samples.items()}
    seen = sorted({reason for counts in reasons.values() for reason in counts})
    task = next(iter(samples.values()))[0].task
    tables = []
    if variants:
        rows: list[list[Cell]] = [
            [name, *(points(sum(s.variants.get(name, 0.0) for s in each) / len(each)) for each in samples.values())]
            for name in variants
        ]
        title = f"{task}: score by how the answer is extracted"
        tables.append(Table(title, columns("extraction", "score"), rows, "In points of 100."))
    if seen:
        rows_of: list[list[Cell]] = [[reason, *(reasons[name][reason] for name in samples)] for reason in seen]
        tables.append(Table(f"{task}: what went wrong", columns("reason", "items"), rows_of))
    return tables
