"""How a canvas was filled, pass by pass: recorded for the requests that ask for it, and kept in traces.jsonl.

python run.py experiment=evaluate trace=true
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dlmlab.journal import Journal
from dlmlab.row import Row
from dlmlab.types import Decision, Moment, Output, Rule, Step

TRACES = "traces.jsonl"
DIGITS = 4
"""Of a confidence in a trace."""


def record(rows: Sequence[Row], rule: Rule, step: Step, decision: Decision) -> None:
    """Note a step, before it is committed, for the rows that are traced; where none is, nothing is computed."""
    traced = [place for place, row in enumerate(rows) if row.request.traced]
    if not traced:
        return
    revoke_BK = torch.zeros_like(decision.commit_BK) if decision.revoke_BK is None else decision.revoke_BK
    tokens, confidences = step.token_BK[traced].tolist(), step.confidence_BK[traced].tolist()
    commits, revokes = places(decision.commit_BK[traced]), places(revoke_BK[traced])
    marks = {name: places(mark_BK[traced]) for name, mark_BK in rule.marks(step).items()}
    for number, place in enumerate(traced):
        row, named = rows[place], {name: marked[number] for name, marked in marks.items()}
        row.trace.append(
            Moment(row.begin, tokens[number], confidences[number], commits[number], revokes[number], named)
        )


def places(mask_BK: Tensor) -> list[list[int]]:
    """The places of each row at which a mask is True."""
    return [[place for place, marked in enumerate(row) if marked] for row in mask_BK.tolist()]


@dataclass(frozen=True)
class Trace:
    """One canvas being filled, in words: a line of traces.jsonl.

    task, decoder, index, id, prompt: the sample's that it belongs to. end_tokens: the texts of tokens that end an
    answer. tokens: the finished canvas. steps: for each forward pass the number of its `block`, and of that block's
    places: the `tokens` proposed and their `confidence`, both null where nothing was; those that the pass went on to
    `commit` and to `revoke`; and those with `marks`, by name.
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


def trace_of(
    model: Any, output: Output, decoder: str, prompt: str, *, task: str = "", index: int = 0, id: str = ""
) -> Trace:
    """A traced output in words."""
    texts: dict[int, str] = {}

    def text(token: int) -> str:
        if token not in texts:
            texts[token] = str(token) if model.tokenizer is None else model.tokenizer.decode([token])
        return texts[token]

    width = len(output.trace[0].tokens)
    steps = []
    for moment in output.trace:
        proposed = list(map(math.isfinite, moment.confidences))
        step = {
            "block": moment.begin // width,
            "tokens": [text(token) if is_so else None for token, is_so in zip(moment.tokens, proposed, strict=True)],
            "confidence": [
                round(value, DIGITS) if is_so else None
                for value, is_so in zip(moment.confidences, proposed, strict=True)
            ],
            "commit": moment.commit,
            "revoke": moment.revoke,
            "marks": moment.marks,
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


class TraceFile:
    """`traces.jsonl` of a run: a line as soon as a canvas is full, sorted when the run is finished.

    limit: how many items of a task are traced.
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
    """The traces of a file by task, index and decoder, the last one of each. Damaged lines are left out."""
    traces = (Trace(**entry) for entry in Journal(path).entries)
    return {(trace.task, trace.index, trace.decoder): trace for trace in traces}
