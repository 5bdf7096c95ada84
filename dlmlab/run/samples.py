"""What scored samples amount to: a score with its interval, what it cost, and what went wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from dlmlab.generation import answer_length
from dlmlab.measure.stats import proportion_interval
from dlmlab.record.samples import Sample
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
    """Generated tokens, pooled over the samples."""
    canvas = sum(len(sample.tokens) for sample in samples)
    answer = sum(answer_length(model, sample.tokens) for sample in samples)
    non_eos = sum(token not in model.end_token_ids for sample in samples for token in sample.tokens)
    counts = dict(zip(TOKENS, (canvas, answer, non_eos), strict=True))
    again = [sample.answer_tokens for sample in samples if sample.answer_tokens is not None]
    return counts | ({AGAIN: sum(again)} if len(again) == len(samples) else {})


def cost_of(samples: Sequence[Sample], tokens: Mapping[str, int]) -> dict[str, float]:
    """Return the tokens of `count_tokens` and the forward passes that they took."""
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


def verdict(figures: Mapping[str, Any]) -> str:
    """Return the score and its cost in a sentence."""
    cost = f"{figures['forwards per item']:.2f} forward passes an item"
    if (whole := figures["full-pass equivalents per item"]) < figures["forwards per item"]:
        cost += f", the work of {whole:.2f} full ones"
    if figures["score"] is None:
        return f"{figures['n']} answers without a score, {cost}."
    interval = f"{figures['ci_low']:.3f} … {figures['ci_high']:.3f}"
    return f"Score {figures['score']:.3f} (95 % interval {interval}, {figures['n']} items), {cost}."


def evaluation_tables(results: Mapping[str, Cell], samples: Sequence[Sample]) -> list[Table]:
    """Return tables of one decoder's score and cost, and of its details."""
    figures = Table("Score and cost", ["metric", "value"], [[key, value] for key, value in results.items()])
    return [figures, *detail_tables({"score": samples})]


def detail_tables(samples: Mapping[str, Sequence[Sample]]) -> list[Table]:
    """Scores by way of extracting the answer, and what went wrong; a column for each set of samples."""
    variants = {name: None for each in samples.values() for sample in each for name in sample.variants}
    reasons = {name: Counter(sample.reason for sample in each if sample.reason) for name, each in samples.items()}
    seen = sorted({reason for counts in reasons.values() for reason in counts})
    tables = []
    if variants:
        rows: list[list[Cell]] = [
            [name, *(sum(s.variants.get(name, 0.0) for s in each) / len(each) for each in samples.values())]
            for name in variants
        ]
        tables.append(Table("Score by how the answer is extracted", ["extraction", *samples], rows))
    if seen:
        rows_of: list[list[Cell]] = [[reason, *(reasons[name][reason] for name in samples)] for reason in seen]
        tables.append(Table("What went wrong", ["reason", *samples], rows_of))
    return tables
