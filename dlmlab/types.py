"""The records that the parts of dlmlab exchange.

Shape suffixes, used in every name of a tensor: B rows of a batch, L positions of a row (prompt and canvas), K
positions of the active block, N positions where logits are needed, V vocabulary, D model width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from dlmlab.errors import UserError
from dlmlab.policy import Policy
from dlmlab.rule import Rule
from dlmlab.settings import MOST, Limits, NonNegativeFloat, PositiveInt, Seed, check, check_fields, one_of

CONFIDENCE_DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class Generation:
    """How a canvas is laid out and scheduled (LLaDA, arXiv:2502.09992, section 2.4 and appendix A.3).

    gen_length: positions of the canvas. block_length: positions of a block; blocks are filled from left to right.
    steps: scheduled forward passes over all blocks. temperature: 0 is greedy, above it is Gumbel-max.
    confidence_dtype: the precision of the softmax, `float32` or `float64`.
    logits_eos_inf: the end token is never proposed. confidence_eos_eot_inf: end tokens are committed last, and every
    confidence is a softmax over the other tokens, as in LLaDA's published code (which at a temperature does so for the
    end of turn alone). confidence_eos_eot_zero: end tokens are committed last and no other confidence changes, as in
    the text of LLaDA's appendix B.4. stop_at_end: no pass follows a full block that holds an end token; the rest of the
    canvas is filled with the end token (LLaDA's own loop decodes to the end).

    Raises UserError for a value out of range.
    """

    gen_length: PositiveInt
    block_length: PositiveInt
    steps: PositiveInt
    temperature: NonNegativeFloat = 0.0
    confidence_dtype: Annotated[str, one_of(CONFIDENCE_DTYPES)] = "float32"
    logits_eos_inf: bool = False
    confidence_eos_eot_inf: bool = False
    confidence_eos_eot_zero: bool = False
    stop_at_end: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        if self.block_length > self.gen_length:
            raise UserError(
                f"block_length={self.block_length} is longer than the canvas of gen_length={self.gen_length}: "
                "choose a block_length that divides it"
            )
        if self.gen_length % self.block_length:
            raise UserError(
                f"gen_length={self.gen_length} is not divisible by block_length={self.block_length}: "
                "choose a block_length that divides it"
            )
        if self.steps % self.blocks:
            raise UserError(
                f"steps={self.steps} is not divisible by the {self.blocks} blocks of gen_length={self.gen_length}, "
                f"block_length={self.block_length}: choose a multiple of {self.blocks}"
            )
        if self.steps > self.gen_length:
            raise UserError(
                f"steps={self.steps} is more than gen_length={self.gen_length}: a step commits at least one token"
            )

    @property
    def blocks(self) -> int:
        return self.gen_length // self.block_length

    def quota(self, step: int) -> int:
        """How many positions the schedule commits at a block's step, counted from 0; 1 where the schedule has ended."""
        per_step, extra = divmod(self.block_length, self.steps // self.blocks)
        return max(1, per_step + (step < extra)) if step < self.steps // self.blocks else 1


@dataclass(frozen=True)
class Request:
    """One canvas to fill. `index` names it in results and, with the run's seed, seeds its randomness.

    traced: whether the output says what was proposed at each forward pass, not only what came of it.
    cache: decides which positions a pass computes; without one, or with one that keeps nothing, all of them.
    """

    index: int
    prompt: tuple[int, ...]
    rule: Rule
    traced: bool = False
    cache: Policy | None = None

    @property
    def cached(self) -> bool:
        """Whether keys and values are kept from pass to pass."""
        return self.needs is not None

    @property
    def needs(self) -> str | None:
        """What the model is to keep for the cache; None without one."""
        return self.cache.needs if self.cache is not None and self.cache.keeps else None


class TraceStep(NamedTuple):
    """One forward pass as a row's rule saw it and decided, on the host.

    begin: the active block's first position on the canvas. tokens, confidences: what is proposed at the block's K
    positions; a confidence of -inf where nothing is. commit, revoke: positions of the block. marks: such positions by
    name, see `Rule.marks`. computed: ranges [from, to) of positions that went through the model, counted from the
    canvas's first; negative ones are the prompt's.
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
    """A filled canvas.

    tokens: the generated canvas, without the prompt. forwards: forward passes that the request took part in.
    step_of: for each token, the forward pass (from 0) after which it was committed for good.
    text: tokens up to the first end token, decoded; None where the checkpoint has no tokenizer.
    trace: each forward pass, where the request asked for it; else empty.
    positions: positions that the forward passes computed for the request, the prompt's among them.
    full_passes: the same as passes over all of the row's positions.
    unasked: positions of the canvas that hold an end token because an earlier one ended the answer, not because a pass
    proposed it; see `Generation.stop_at_end`.
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


class Store(Protocol):
    """What a model keeps of one row's positions from pass to pass, such as keys and values; each has its own kind."""

    @property
    def nbytes(self) -> int:
        """The device memory that it takes."""


class Reuse(NamedTuple):
    """What a forward pass takes over from earlier ones, for each of its B rows."""

    position_BL: Tensor
    """int64: where in its row each computed token stands; means nothing at padding."""
    visible: Sequence[np.ndarray | None]
    """Whether each position of the row can be attended to, (positions of the row,); None where all can."""
    stores: Sequence[Any]
    """What is kept of the rows' other positions; the pass writes into them what it computes."""
    hooks: Sequence[Any]
    """What the policies want called on the way, all of one kind or None; see `dlmlab.policy.Plan`."""


class Query(NamedTuple):
    """One forward pass, as a model is asked for it: B rows, padded on the right to L. All may lie on the host."""

    tokens_BL: Tensor
    """int64: the tokens of the positions that are computed."""
    real_BL: Tensor | None = None
    """bool: True at positions that count; None, which is faster, where all do."""
    wanted_N: Tensor | None = None
    """int64: where the last hidden states are asked for, as indices into B × L; None where they are everywhere."""
    reuse: Reuse | None = None
    """Where only some positions are computed, what stands for the others."""
    block_length: int | None = None
    """Where attention is block-causal, how long its blocks are, from the row's first position on; None: as trained."""


class Denoiser(Protocol):
    """What the lab asks of a model."""

    config: Any
    """Holds mask_token_id, eos_token_id, pad_token_id, max_sequence_length, vocab_size, and padded_vocab_size, which
    is V; `to_dict()` tells all of it."""
    end_token_ids: tuple[int, ...]
    """The tokens that end an answer: the end of text and, where there is one, the end of turn."""
    tokenizer: Any
    """Of transformers' kind; None where the checkpoint has none."""
    fingerprint: str
    """Tells these weights from all others."""
    commit: str | None
    """The hub's, of weights that come from there."""
    keeps: frozenset[str]
    """What it can keep from pass to pass for a cache, of `dlmlab.policy.KEPT`; empty where it serves none."""

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def packs_rows(self) -> bool:
        """Whether its passes need no padding, so that rows of all lengths go through it together."""

    @property
    def greedy_kernel(self) -> bool:
        """Whether its logits may be read by one kernel of ours, which a GPU has."""

    @property
    def works_ahead(self) -> bool:
        """Whether it works while the host goes on, so that the next pass may begin before a step is written down."""

    def hidden(self, query: Query) -> Tensor:
        """The last hidden states, (N, D) where the query wants them; (B, L, D) where it wants all."""

    def head(self, hidden_ND: Tensor) -> Tensor:
        """(N, D) to (N, V) logits."""

    def new_store(self, positions: int, kept: str) -> Store:
        """An empty store for a row of so many positions. kept: one of those that it `keeps`."""


def check_positive_int(name: str, value: object) -> None:
    """Raise UserError unless the value is an integer above zero."""
    check(name, value, PositiveInt)


def check_seed(value: object) -> None:
    """Raise UserError unless the value can seed a generator."""
    check("seed", value, Seed)


def check_number(name: str, value: object, low: float, high: float = MOST) -> None:
    """Raise UserError unless the value is a number from low to high."""
    check(name, value, Annotated[float, Limits(low, high)])
