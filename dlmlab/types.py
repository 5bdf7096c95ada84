"""The records that the parts of dlmlab exchange.

Shape suffixes, used in every name of a tensor: B rows of a batch, L positions of a row (prompt and canvas), K
positions of the active block, N positions where logits are needed, V vocabulary, D model width.
"""

from __future__ import annotations

import reprlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, NamedTuple

from dlmlab.policy import Policy
from dlmlab.rule import Rule
from dlmlab.schedule import CONFIDENCE_DTYPES as CONFIDENCE_DTYPES
from dlmlab.schedule import Generation as Generation
from dlmlab.settings import MOST, Limits, PositiveInt, Seed, check


@dataclass(frozen=True)
class Request:
    """One canvas to fill.

    Attributes:
        index: Names the canvas in results.
        prompt: The prompt's token ids.
        rule: The decoder.
        traced: Whether the output lists every forward pass, and not only what came of them all.
        cache: Decides which positions a pass computes; without one, or with one that keeps nothing, all of them.
        item: With the run's seed it seeds the canvas's randomness, so that all rules draw alike for one item; the
            index, unless it is given.
    """

    index: int
    prompt: tuple[int, ...]
    rule: Rule
    traced: bool = False
    cache: Policy | None = None
    item: int | None = None

    @cached_property
    def cached(self) -> bool:
        """Return whether keys and values are kept from pass to pass."""
        return self.needs is not None

    @cached_property
    def needs(self) -> str | None:
        """Return what the model must keep for the cache, one of `dlmlab.policy.KEPT`; None without a cache."""
        return self.cache.needs if self.cache is not None and self.cache.keeps else None


class TraceStep(NamedTuple):
    """One forward pass as a row's rule saw it and decided, on the host.

    Attributes:
        begin: The active block's first position on the canvas.
        tokens: The proposed tokens at the block's K positions.
        confidences: Their probabilities; -inf where nothing is proposed.
        commit: The block's positions that are committed.
        revoke: The block's positions that are masked again.
        marks: Positions of the block by the name of a mark, see `Rule.marks`.
        computed: Ranges [from, to) of positions that were computed, from the canvas's first; the prompt's are negative.
    """

    begin: int
    tokens: list[int]
    confidences: list[float]
    commit: list[int]
    revoke: list[int]
    marks: dict[str, list[int]]
    computed: list[tuple[int, int]]


@dataclass(frozen=True)
class Output:
    """A filled canvas, and what it took.

    Attributes:
        index: The request's.
        tokens: The token ids of the whole canvas.
        forwards: The forward passes that the request took part in.
        step_of: For each token, the forward pass (counted from 0) after which it was committed for good.
        text: The tokens up to the first end token, as text; None where the checkpoint has no tokenizer.
        trace: The forward passes one by one; empty where the request isn't traced.
        positions: The positions that the forward passes computed for the request, the prompt's among them.
        full_passes: Full-pass equivalents: `positions` divided by the row's length. Where a cache spares a part of the
            layers at some of them, the layers' mean.
        unasked: Positions that hold an end token since `stop_at_end` ended the answer, not since a pass proposed it.
    """

    index: int
    tokens: list[int]
    forwards: int
    step_of: list[int]
    text: str | None = None
    trace: tuple[TraceStep, ...] = ()
    positions: int = field(default=0, compare=False)
    full_passes: float = field(default=0.0, compare=False)
    unasked: int = 0

    def __repr__(self) -> str:
        """Return a line with the answer's beginning and end; the fields say the rest."""
        short = reprlib.Repr()
        short.maxstring = 60
        answer = f"tokens={short.repr(self.tokens)}" if self.text is None else f"text={short.repr(self.text)}"
        return f"Output(index={self.index}, {answer}, {len(self.tokens)} tokens in {self.forwards} forward passes)"


def check_positive_int(name: str, value: object) -> None:
    """Raise UserError unless the value is an integer above zero.

    Args:
        name: What an error calls it.
        value: Any value.
    """
    check(name, value, PositiveInt)


def check_seed(value: object) -> None:
    """Raise UserError unless the value can seed a generator."""
    check("seed", value, Seed)


def check_number(name: str, value: object, low: float, high: float = MOST) -> None:
    """Raise UserError unless the value is a number from low to high.

    Args:
        name: What an error calls it.
        value: Any value.
        low: The least that it may be.
        high: The most that it may be.
    """
    check(name, value, Annotated[float, Limits(low, high)])
