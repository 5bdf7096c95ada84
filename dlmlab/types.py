"""The records that the parts of dlmlab exchange.

Shape suffixes, used in every name of a tensor: B rows of a batch, L positions of a row (prompt and canvas), K
positions of the active block, N positions where logits are needed, V vocabulary, D model width.
"""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from dlmlab.policy import Policy
from dlmlab.rule import Rule
from dlmlab.schedule import CONFIDENCE_DTYPES as CONFIDENCE_DTYPES
from dlmlab.schedule import Generation as Generation
from dlmlab.settings import MOST, Limits, PositiveInt, Seed, check


@dataclass(frozen=True)
class Request:
    """One canvas to fill; `index` names it in results and, with the run's seed, seeds its randomness.

    Attributes:
        traced: Whether the output lists every forward pass, and not only what came of them all.
        cache: Decides which positions a pass computes; without one, or with one that keeps nothing, all of them.
    """

    index: int
    prompt: tuple[int, ...]
    rule: Rule
    traced: bool = False
    cache: Policy | None = None

    @property
    def cached(self) -> bool:
        """Return whether keys and values are kept from pass to pass."""
        return self.needs is not None

    @property
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
        forwards: The forward passes that the request took part in.
        step_of: For each token, the forward pass (counted from 0) after which it was committed for good.
        text: The tokens up to the first end token, as text; None where the checkpoint has no tokenizer.
        positions: The positions that the forward passes computed for the request, the prompt's among them.
        full_passes: Full-pass equivalents: `positions` divided by the row's length.
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


class Store(Protocol):
    """Holds what a model keeps of one row from pass to pass, such as keys and values; each model has its own."""

    @property
    def nbytes(self) -> int:
        """Return the device memory that the store takes, in bytes."""


class Reuse(NamedTuple):
    """Describes what a forward pass takes over from earlier ones, for each of its B rows."""

    position_BL: Tensor
    """int64: the position in its row of each computed token; has no meaning at padding."""
    visible: Sequence[np.ndarray | None]
    """For each row, whether each of its positions can be attended to; None where all can."""
    stores: Sequence[Any]
    """The rows' stores: they hold the other positions, and the pass writes what it computes into them."""
    hooks: Sequence[Any]
    """The policies' hooks, which the model calls on the way, all of one kind or None; see `dlmlab.policy.Plan`."""


class Query(NamedTuple):
    """One forward pass, as a model is asked for it: B rows, padded on the right to L. All may lie on the host."""

    tokens_BL: Tensor
    """int64: the tokens of the positions that are computed."""
    real_BL: Tensor | None = None
    """bool: True at positions that count; None, which is faster, where all do."""
    wanted_N: Tensor | None = None
    """int64: the positions whose last hidden states are asked for, as indices into B × L; None asks for all."""
    reuse: Reuse | None = None
    """What stands for the positions that are not computed; None where all are."""
    block_length: int | None = None
    """Length of the blocks where attention is block-causal, from the row's first position on; None: as trained."""


class Denoiser(Protocol):
    """The protocol of a model: all that the lab asks of one."""

    config: Any
    """mask_token_id, eos_token_id, pad_token_id, max_sequence_length, vocab_size, padded_vocab_size (V);
    `to_dict()`.
    """
    end_token_ids: tuple[int, ...]
    """The tokens that end an answer: the end of text and, where there is one, the end of turn."""
    tokenizer: Any
    """A tokenizer with the interface of transformers'; None where the checkpoint has none."""
    fingerprint: str
    """A hash that tells these weights from all others."""
    commit: str | None
    """The hub's commit, for weights that come from there."""
    keeps: frozenset[str]
    """What the model can keep from pass to pass, of `dlmlab.policy.KEPT`; empty where it serves no cache."""

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def packs_rows(self) -> bool:
        """Return whether passes need no padding, so that rows of all lengths go through the model together."""

    @property
    def greedy_kernel(self) -> bool:
        """Return whether one kernel of dlmlab's may read the logits, which needs a GPU."""

    @property
    def works_ahead(self) -> bool:
        """Return whether it works while the host goes on, so that the next pass begins before a step is noted."""

    def hidden(self, query: Query) -> Tensor:
        """Return the last hidden states: (N, D) at the positions that the query wants; (B, L, D) where it wants all."""

    def head(self, hidden_ND: Tensor) -> Tensor:
        """Return the logits, (N, V), of hidden states, (N, D)."""

    def new_store(self, positions: int, kept: str) -> Store:
        """Return an empty store for a row of so many positions. `kept` is one of those that the model `keeps`."""


def check_positive_int(name: str, value: object) -> None:
    """Raise UserError unless the value is an integer above zero."""
    check(name, value, PositiveInt)


def check_seed(value: object) -> None:
    """Raise UserError unless the value can seed a generator."""
    check("seed", value, Seed)


def check_number(name: str, value: object, low: float, high: float = MOST) -> None:
    """Raise UserError unless the value is a number from low to high."""
    check(name, value, Annotated[float, Limits(low, high)])
