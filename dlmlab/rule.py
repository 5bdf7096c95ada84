"""The contract of a decoder: a Rule sees a Step and answers a Decision.

Shape suffixes are those of `dlmlab.types`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cached_property
from typing import ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from dlmlab.errors import UserError
from dlmlab.settings import check_fields


class Step(NamedTuple):
    """What a rule sees of one step: B rows, each at the K positions of its own active block."""

    token_BK: Tensor
    """int64: the proposed token; means nothing where a position is not eligible."""
    confidence_BK: Tensor
    """float: softmax probability of the proposed token; -inf where a position is not eligible."""
    eligible_BK: Tensor
    """bool: masked, so that a token can be committed."""
    quota_B1: Tensor
    """int64: how many positions the schedule asks for, at least 1; may be more than are eligible."""
    measure_BK: Tensor | None = None
    """float, for rules with `measures`: what their `measure` answers, (B, K) or (B, K, M). -inf where a position is not
    eligible, but for rules with `revokes`, which get it at committed positions too.
    """
    logits_BKV: Tensor | None = None
    """float, for rules with `needs_logits`: the logits at eligible positions, zero elsewhere."""
    kept_BK: Tensor | None = None
    """float, for rules with `revokes`: the present probability of the committed tokens; -inf where none is."""
    noise_BK: Tensor | None = None
    """float, for rules with `needs_noise`: uniform on [0, 1), from the request's own seed."""
    state: tuple[Tensor, ...] = ()
    """For rules with `initial_state`: what they answered at the row's previous step, each (B, …)."""


class Decision(NamedTuple):
    """What a rule answers: positions to commit, positions to mask again (of those committed before), and its new state.

    It masks again fewer positions than it commits, so that every block comes to an end.
    """

    commit_BK: Tensor
    revoke_BK: Tensor | None = None
    state: tuple[Tensor, ...] = ()


class Rule:
    """A decoder: a pure function from a Step to a Decision, vectorised over rows. Subclasses are frozen dataclasses.

    Fields that are numbers may also arrive as (B, 1) tensors: rows with different parameters share a batch.
    A rule never commits a position that isn't eligible and, while one is left, commits at least one.
    """

    measures: ClassVar[bool] = False
    """Whether the rule wants more numbers per position, from `measure`; no full distribution is kept for it."""
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

    def measure(self, probability_NV: Tensor) -> Tensor:
        """For rules with `measures`: what N positions' probabilities say, one number each, (N,), or M, (N, M)."""
        raise NotImplementedError

    def transform(self, logits_BKV: Tensor, state: tuple[Tensor, ...]) -> Tensor:
        """For rules with `needs_logits`: the logits that tokens are proposed from."""
        return logits_BKV

    def marks(self, step: Step) -> Mapping[str, Tensor]:
        """What a trace says of positions beside their commit, by name: (B, K) masks. Asked for only by a trace."""
        return {}

    @property
    def memoisable(self) -> bool:
        """Whether the rule sees nothing of a proposal but its tokens and confidences at masked positions."""
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
