"""Keep how a canvas was filled, pass by pass, in words: a run's traces.jsonl.

python run.py experiment=evaluate trace=true
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from dlmlab.record.folder import TRACE_SHAPE, TRACES, fits
from dlmlab.record.journal import Journal
from dlmlab.types import Output

DIGITS = 4
"""Decimals of a confidence in a trace."""


@dataclass(frozen=True)
class Trace:
    """One canvas being filled, in words: a line of traces.jsonl.

    Attributes:
        task: The sample's.
        decoder: The sample's.
        index: The sample's.
        id: The sample's.
        prompt: The sample's.
        gen_length: Positions of the canvas.
        block_length: Positions of a block.
        end_tokens: The texts of tokens that end an answer.
        tokens: The texts of the finished canvas.
        steps: For each forward pass the number of its `block`, the canvas's position `begin` at which it begins, and of
            the block's positions: the `tokens` proposed and their `confidence`, both null where nothing was; those that
            the pass went on to `commit` and to `revoke`; and those with `marks`, by name. `computed` are ranges
            [from, to) of all positions that the pass computed, counted from the canvas's first; negative ones are the
            prompt's.
    """

    task: str
    decoder: str
    index: int
    id: str
    prompt: str
    gen_length: int
    block_length: int
    end_tokens: list[str]
    tokens: list[str]
    steps: list[dict[str, Any]]

    def block_of(self, position: int) -> int:
        """Return the number of the block in which a position of the canvas lies.

        The first block and the last are shorter where blocks are counted from the prompt's first position.
        """
        return (position - len(self.steps[0]["tokens"])) // self.block_length + 1


def trace_of(
    model: Any, output: Output, decoder: str, prompt: str, *, task: str = "", index: int = 0, id: str = ""
) -> Trace:
    """Return a traced output in words.

    Args:
        model: The model, whose tokenizer turns tokens into texts; without one they are numbers.
        output: The filled canvas, with its trace.
        decoder: What the rule is called in the samples.
        prompt: The prompt's text.
        task: The task's name.
        index: The item's index in the task.
        id: The item's own name.
    """
    texts: dict[int, str] = {}

    def text(token: int) -> str:
        if token not in texts:
            texts[token] = str(token) if model.tokenizer is None else model.tokenizer.decode([token])
        return texts[token]

    width, first = len(output.trace[0].tokens), output.trace[0].begin
    steps = []
    for moment in output.trace:
        # The grid of blocks may begin in the prompt, and end behind the canvas.
        own = range(max(0, -moment.begin), min(width, len(output.tokens) - moment.begin))
        proposed = [(moment.tokens[each], moment.confidences[each]) for each in own]
        step = {
            "block": (moment.begin - first) // width,
            "begin": moment.begin + own.start,
            "tokens": [text(token) if math.isfinite(value) else None for token, value in proposed],
            "confidence": [round(value, DIGITS) if math.isfinite(value) else None for _, value in proposed],
            "commit": within(moment.commit, own),
            "revoke": within(moment.revoke, own),
            "marks": {name: within(positions, own) for name, positions in moment.marks.items()},
            "computed": [list(each) for each in moment.computed],
        }
        steps.append(step)
    return Trace(
        task, decoder, index, id, prompt,
        gen_length=len(output.tokens),
        block_length=width,
        end_tokens=[text(token) for token in model.end_token_ids],
        tokens=[text(token) for token in output.tokens],
        steps=steps,
    )  # fmt: skip


def within(positions: Iterable[int], own: range) -> list[int]:
    """Return those of a block's positions that lie in a part of it, counted from the part's first.

    Args:
        positions: Positions of the block.
        own: The part.
    """
    return [position - own.start for position in positions if position in own]


class TraceFile:
    """`traces.jsonl` of a run: gets a line as soon as a canvas is full, and is sorted when the run is finished.

    Attributes:
        path: The file.
        limit: How many items of a task are traced.
    """

    def __init__(self, folder: Path, limit: int):
        self.path, self.limit = folder / TRACES, limit
        self._journal = Journal(self.path)

    def add(self, trace: Trace) -> None:
        """Append a line; no kill loses it once this returns."""
        self._journal.append(asdict(trace))

    def finish(self) -> None:
        """Sort by task, index and decoder, so that the decoders of an item stand side by side."""
        if not self.path.exists():
            return
        traces = read(self.path)
        self._journal.rewrite(asdict(traces[key]) for key in sorted(traces))


def read(path: Path) -> dict[tuple[str, int, str], Trace]:
    """Return the traces of a file by task, index and decoder, the last one of each. Damaged lines are left out."""
    traces = [Trace(**entry) for entry in Journal(path).entries if _is_whole(entry)]
    for trace in traces:
        for step in trace.steps:
            step.setdefault("begin", step["block"] * trace.block_length)  # an earlier version's has none
    return {(trace.task, trace.index, trace.decoder): trace for trace in traces}


def _is_whole(entry: Mapping[str, Any]) -> bool:
    """Return whether an entry is that of a trace."""
    shape = {**TRACE_SHAPE, "index": int, "end_tokens": list}
    return (
        entry.keys() == {each.name for each in fields(Trace)}
        and all(fits(entry[key], kind) for key, kind in shape.items())
        and all(isinstance(step, dict) and isinstance(step.get("block"), int) for step in entry["steps"])
    )
