"""Record what a step proposed and committed, for the rows that ask for it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dlmlab.loop.row import Row
from dlmlab.rule import Decision, Rule, Step
from dlmlab.types import TraceStep


def record(rows: Sequence[Row], rule: Rule, step: Step, decision: Decision) -> None:
    """Note a step, before it is committed, for the rows that are traced; where none is, nothing is computed.

    Args:
        rows: The B rows.
        rule: Their rule, stacked.
        step: What it has seen.
        decision: What it has decided.
    """
    traced = [index for index, row in enumerate(rows) if row.request.traced]
    if not traced:
        return
    revoke_BK = torch.zeros_like(decision.commit_BK) if decision.revoke_BK is None else decision.revoke_BK
    tokens, confidences = step.token_BK[traced].tolist(), step.confidence_BK[traced].tolist()
    commits, revokes = positions(decision.commit_BK[traced]), positions(revoke_BK[traced])
    marks = {name: positions(mark_BK[traced]) for name, mark_BK in rule.marks(step).items()}
    for number, index in enumerate(traced):
        row, named = rows[index], {name: marked[number] for name, marked in marks.items()}
        found = (tokens[number], confidences[number], commits[number], revokes[number], named)
        row.trace.append(TraceStep(row.first - len(row.request.prompt), *found, ranges_of(row)))


def positions(mask_BK: Tensor) -> list[list[int]]:
    """Return the positions of each row at which a mask is True."""
    return [[position for position, marked in enumerate(row) if marked] for row in mask_BK.tolist()]


def ranges_of(row: Row) -> list[tuple[int, int]]:
    """Return the ranges of the row's positions that its pass computes; see `TraceStep`."""
    computed_L = np.ones(row.seen, dtype=bool) if row.plan is None else row.plan.computed
    edges = np.flatnonzero(np.diff(computed_L, prepend=False, append=False)) - len(row.request.prompt)
    return [(int(begin), int(end)) for begin, end in edges.reshape(-1, 2)]
