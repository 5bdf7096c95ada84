"""The records that the parts of dlmlab exchange.

Shape suffixes, used in every name of a tensor: B rows of a batch, L places of a row (prompt and canvas), K places of
the active block, N places where logits are needed, V vocabulary, D model width.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Annotated, Any, ClassVar, NamedTuple, Protocol, Self

import torch
from torch import Tensor

from dlmlab.errors import UserError
from dlmlab.kinds import MOST, Amount, Count, Limits, Seed, check, check_fields, one_of

CONFIDENCE_DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class Generation:
    """How a canvas is laid out and scheduled (LLaDA, arXiv:2502.09992, section 2.4 and appendix A.3).

    gen_length: places of the canvas. block_length: places of a block; blocks are filled from left to right.
    steps: scheduled forward passes over all blocks. temperature: 0 is greedy, above it is Gumbel-max.
    confidence_dtype: the precision of the softmax, `float32` or `float64`.
    logits_eos_inf: the end token is never proposed. confidence_eos_eot_inf: end tokens are committed last
    (both from LLaDA's appendix B.4).

    Raises UserError for a value out of range.
    """

    gen_length: Count
    block_length: Count
    steps: Count
    temperature: Amount = 0.0
    confidence_dtype: Annotated[str, one_of(CONFIDENCE_DTYPES)] = "float32"
    logits_eos_inf: bool = False
    confidence_eos_eot_inf: bool = False

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
        """How many places the schedule commits at a block's step, counted from 0; 1 where the schedule has ended."""
        per_step, extra = divmod(self.block_length, self.steps // self.blocks)
        return max(1, per_step + (step < extra)) if step < self.steps // self.blocks else 1


class Step(NamedTuple):
    """What a rule sees of one step: B rows, each at the K places of its own active block."""

    token_BK: Tensor
    """int64: the proposed token; means nothing where a place is not eligible."""
    confidence_BK: Tensor
    """float: softmax probability of the proposed token; -inf where a place is not eligible."""
    eligible_BK: Tensor
    """bool: masked, so that a token can be committed."""
    quota_B1: Tensor
    """int64: how many places the schedule asks for, at least 1; may be more than are eligible."""
    measure_BK: Tensor | None = None
    """float, for rules with `measures`: what their `measure` answers; -inf where a place is not eligible."""
    logits_BKV: Tensor | None = None
    """float, for rules with `needs_logits`: the logits at eligible places, zero elsewhere."""
    kept_BK: Tensor | None = None
    """float, for rules with `revokes`: the present probability of the committed tokens; -inf where none is."""
    noise_BK: Tensor | None = None
    """float, for rules with `needs_noise`: uniform on [0, 1), from the request's own seed."""
    state: tuple[Tensor, ...] = ()
    """For rules with `initial_state`: what they answered at the row's previous step, each (B, …)."""


class Decision(NamedTuple):
    """What a rule answers: places to commit, places to mask again (of those committed before), and its new state.

    It masks again fewer places than it commits, so that every block comes to an end.
    """

    commit_BK: Tensor
    revoke_BK: Tensor | None = None
    state: tuple[Tensor, ...] = ()


class Rule:
    """A decoder: a pure function from a Step to a Decision, vectorised over rows. Subclasses are frozen dataclasses.

    Fields that are numbers may also arrive as (B, 1) tensors: rows with different parameters share a batch.
    A rule never commits a place that isn't eligible and, while one is left, commits at least one.
    """

    measures: ClassVar[bool] = False
    """Whether the rule wants one more number per place, from `measure`; no full distribution is kept for it."""
    needs_logits: ClassVar[bool] = False
    """Whether the rule wants all logits: (B, K, V) of memory."""
    needs_noise: ClassVar[bool] = False
    revokes: ClassVar[bool] = False
    """Whether it may mask committed tokens again."""
    scheduled: ClassVar[bool] = True
    """Whether `generation.steps` plays a part."""

    def __post_init__(self) -> None:
        check_fields(self)

    def __call__(self, step: Step) -> Decision:
        raise NotImplementedError

    def initial_state(self, block_length: int, vocab_size: int, like: Tensor) -> tuple[Tensor, ...]:
        """One row's state, without the batch axis, at the first step of each block.

        like: gives the device, and the dtype of confidences and logits.
        """
        return ()

    @staticmethod
    def measure(probability_NV: Tensor) -> Tensor:
        """For rules with `measures`: one number for each of N places, (N,), from all probabilities."""
        raise NotImplementedError

    def transform(self, logits_BKV: Tensor, state: tuple[Tensor, ...]) -> Tensor:
        """For rules with `needs_logits`: the logits that tokens are proposed from."""
        return logits_BKV

    def marks(self, step: Step) -> Mapping[str, Tensor]:
        """What a trace says of places beside their commit, by name: (B, K) masks. Asked for only by a trace."""
        return {}

    @property
    def memoisable(self) -> bool:
        """Whether the rule sees nothing of a proposal but its tokens and confidences at masked places."""
        return not (self.measures or self.needs_logits or self.revokes)

    @cached_property
    def kind(self) -> tuple[object, ...]:
        """What rules must have in common to be stacked: the class and every field that is no number."""
        values = (getattr(self, field.name) for field in fields(self))  # type: ignore[arg-type]
        return (type(self), *(value for value in values if not isinstance(value, int | float)))

    @classmethod
    def stack(cls, rules: Sequence[Self], like: Tensor) -> Self:
        """One rule for a batch of rows of one kind: a field in which they differ holds a (B, 1) tensor.

        like: gives the device, and the dtype of what is no integer: the confidences', in which a plain number is
        compared as well, so that a row decides in company as it does alone.
        """
        if all(rule is rules[0] for rule in rules):
            return rules[0]
        stacked = copy.copy(rules[0])
        for field in fields(stacked):  # type: ignore[arg-type]
            values = [getattr(rule, field.name) for rule in rules]
            if any(value != values[0] for value in values):
                dtype = torch.int64 if all(isinstance(value, int) for value in values) else like.dtype
                values_B1 = torch.tensor(values, dtype=dtype).to(like.device, non_blocking=True)[:, None]
                object.__setattr__(stacked, field.name, values_B1)
        return stacked


@dataclass(frozen=True)
class Request:
    """One canvas to fill. `index` names it in results and, with the run's seed, seeds its randomness.

    traced: whether the output says what was proposed at each forward pass, not only what came of it.
    """

    index: int
    prompt: tuple[int, ...]
    rule: Rule
    traced: bool = False


class Moment(NamedTuple):
    """One forward pass as a row's rule saw it and decided, on the host.

    begin: the active block's first place on the canvas. tokens, confidences: what is proposed at the block's K places;
    a confidence of -inf where nothing is. commit, revoke: places of the block. marks: such places by name, see
    `Rule.marks`.
    """

    begin: int
    tokens: list[int]
    confidences: list[float]
    commit: list[int]
    revoke: list[int]
    marks: dict[str, list[int]]


@dataclass(frozen=True)
class Output:
    """A filled canvas.

    tokens: the generated canvas, without the prompt. forwards: forward passes that the request took part in.
    step_of: for each token, the forward pass (from 0) after which it was committed for good.
    text: tokens up to the first end token, decoded; None where the checkpoint has no tokenizer.
    trace: each forward pass, where the request asked for it; else empty.
    """

    index: int
    tokens: list[int]
    forwards: int
    step_of: list[int]
    text: str | None = None
    trace: tuple[Moment, ...] = ()


class Denoiser(Protocol):
    """What the loop asks of a model."""

    config: Any
    """Holds mask_token_id, eos_token_id, pad_token_id, max_sequence_length, vocab_size, and embeddings, which is V."""
    end_token_ids: tuple[int, ...]
    """The tokens that end an answer: the end of text and, where there is one, the end of turn."""

    @property
    def device(self) -> torch.device: ...

    @property
    def fused(self) -> bool:
        """Whether it computes on a GPU by kernels of our own.

        Then its passes have no padding, its logits may go through more of them, and it works while the host goes on.
        """

    def hidden(self, input_ids_BL: Tensor, attention_mask_BL: Tensor | None, where_N: Tensor) -> Tensor:
        """(B, L) token ids, and True at places that count, to (N, D) at these indices into the B × L places.

        All three may lie on the host.
        """

    def head(self, hidden_ND: Tensor) -> Tensor:
        """(N, D) to (N, V) logits."""


def check_composition(rule: Rule, *, memo: bool = False, frozen_commits: bool = False) -> None:
    """Raise UserError where something around the loop counts on what the rule doesn't promise.

    memo: proposals come from a memo alone, which keeps tokens and confidences. frozen_commits: something is computed
    once from committed tokens and kept, such as a cache of their keys and values.
    """
    name = type(rule).__name__
    if memo and not rule.memoisable:
        raise UserError(f"{name} sees more of the model than the memo keeps: turn the memo off")
    if frozen_commits and rule.revokes:
        raise UserError(f"{name} masks committed tokens again, which the cache takes as fixed: turn the cache off")


def check_positive_int(name: str, value: object) -> None:
    """Raise UserError unless the value is an integer above zero."""
    check(name, value, Count)


def check_seed(value: object) -> None:
    """Raise UserError unless the value can seed a generator."""
    check("seed", value, Seed)


def check_number(name: str, value: object, low: float, high: float = MOST) -> None:
    """Raise UserError unless the value is a number from low to high."""
    check(name, value, Annotated[float, Limits(low, high)])
