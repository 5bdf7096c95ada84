"""The contract of a decoder: a Rule sees a Step and answers a Decision.

Shape suffixes are those of `dlmlab.types`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cached_property
from typing import ClassVar, Self

import torch
from torch import Tensor

from dlmlab.decision import Candidates as Candidates
from dlmlab.decision import Decision as Decision
from dlmlab.decision import Step as Step
from dlmlab.errors import UserError
from dlmlab.settings import check_fields


class Rule:
    """A decoder: a pure function from a Step to a Decision, vectorised over rows. Subclasses are frozen dataclasses.

    Fields that are numbers may also arrive as (B, 1) tensors: rows with different parameters share a batch.
    A rule never commits a position that isn't eligible and, while one is left, commits at least one.
    """

    measures: ClassVar[bool] = False
    """Whether the rule needs more numbers for each position, from `measure`; no full distribution is kept for it."""
    needs_logits: ClassVar[bool] = False
    """Whether the rule needs all logits, which take (B, K, V) of memory."""
    needs_noise: ClassVar[bool] = False
    """Whether the rule needs random numbers, from the request's own seed."""
    revokes: ClassVar[bool] = False
    """Whether the rule may mask committed tokens again."""
    edits: ClassVar[bool] = False
    """Whether the rule may overwrite committed tokens; a block then ends with a pass that changes nothing."""
    shadows: ClassVar[bool] = False
    """Whether `kept_BK` is read at shadows, for rules with `revokes`: mask tokens beside the canvas, one for each of
    the block's positions, which see each other and the canvas but for their own position. Nothing else sees them.
    """
    attends: ClassVar[float] = 0
    """How many of the network's last layers' attention the rule is shown, as `attention_BKK`; below 1 their share of
    all, 0 for none.
    """
    drafts: ClassVar[int] = 0
    """The most canvases that a pass computes for a row beside its own, each filled further in a way of its own."""
    post_steps: ClassVar[int] = 0
    """The most passes over a full block, for rules with `edits`."""
    scheduled: ClassVar[bool] = True
    """Whether `generation.steps` plays a part."""
    keeps_to_quota: ClassVar[bool] = False
    """Whether a step never commits more positions than the schedule asks for, so that the next pass can begin before
    the host knows which they are.
    """
    sees_canvas: ClassVar[bool] = False
    """Whether the rule sees the whole canvas and may commit beyond the active block; its state then lasts over
    blocks.
    """
    cuts: ClassVar[bool] = False
    """Whether the rule says how much of the canvas the next pass sees."""
    alike: ClassVar[tuple[str, ...]] = ()
    """Names of the number fields in which stacked rules may not differ, such as the size of a state."""

    def __post_init__(self) -> None:
        check_fields(self)

    def __call__(self, step: Step) -> Decision:
        """Decide which positions of each row to commit.

        Args:
            step: B rows at the K positions of their active blocks.

        Returns:
            The positions to commit, (B, K), and whatever else the rule declares.
        """
        raise NotImplementedError

    def initial_state(self, block_length: int, vocab_size: int, like: Tensor) -> tuple[Tensor, ...]:
        """Return one row's state, without the batch axis, at the first step of each block.

        Args:
            block_length: K, the positions that the rule sees.
            vocab_size: V, the width of the logits.
            like: A tensor with the device, and with the dtype of confidences and logits.
        """
        return ()

    def measure(self, probability_NV: Tensor) -> Tensor:
        """Compute what a rule with `measures` needs to know of each position.

        Args:
            probability_NV: The probabilities of V tokens at N positions.

        Returns:
            One number for each position, (N,), or M numbers, (N, M).
        """
        raise NotImplementedError

    def transform(self, logits_BKV: Tensor, state: tuple[Tensor, ...]) -> Tensor:
        """Return the logits that tokens are proposed from, for rules with `needs_logits`.

        Args:
            logits_BKV: The model's, zero where a position is not eligible.
            state: The rule's states, each (B, …).
        """
        return logits_BKV

    def marks(self, step: Step) -> Mapping[str, Tensor]:
        """What a trace says of positions beside their commit, by name: (B, K) masks. Asked for only by a trace."""
        return {}

    @property
    def everywhere(self) -> bool:
        """Return whether the rule wants to know what the model thinks of committed positions as well."""
        return self.revokes or self.edits

    @property
    def memoisable(self) -> bool:
        """Return whether the rule sees nothing of a proposal but its tokens and confidences at the block's masks."""
        more = self.measures or self.needs_logits or self.everywhere
        return not (more or self.sees_canvas or self.cuts or self.drafts or self.attends)

    @cached_property
    def kind(self) -> tuple[object, ...]:
        """Return what rules must have in common to be stacked: the class and every field that is no number."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        own = {key: value for key, value in values.items() if key in self.alike or not isinstance(value, int | float)}
        return (type(self), hashable(own))

    @classmethod
    def stack(cls, rules: Sequence[Self], like: Tensor) -> Self:
        """Return one rule for a batch of rows of one kind: a field in which they differ holds a (B, 1) tensor.

        Args:
            rules: A rule for each row, all of one `kind`.
            like: A tensor with the device, and with the dtype of numbers that are no integers: the confidences', in
                which a plain number is compared as well, so that a row decides in company as it does alone.
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


def hashable(value: object) -> object:
    """Return a hashable value that is equal for equal values of a field."""
    if isinstance(value, Rule):
        return (type(value), *(hashable(getattr(value, field.name)) for field in fields(value)))  # type: ignore[arg-type]
    if isinstance(value, Mapping):
        return tuple((key, hashable(value[key])) for key in sorted(value))
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(map(hashable, value))
    return value


def check_composition(
    rule: Rule,
    *,
    memo: bool = False,
    frozen_commits: bool = False,
    blockwise: bool = False,
    lays_out: bool = True,
    guided: bool = False,
    shows_attention: bool = True,
) -> None:
    """Raise UserError where something around the loop counts on what the rule doesn't promise.

    Args:
        rule: The decoder.
        memo: Whether proposals come from a memo alone, which keeps tokens and confidences.
        frozen_commits: Whether something is computed once from committed tokens and kept, such as their keys and
            values.
        blockwise: Whether the canvas grows block by block, or its blocks lie on a grid.
        lays_out: Whether the model takes tokens beside a canvas.
        guided: Whether each row has a second canvas, for classifier-free guidance.
        shows_attention: Whether the model is a `dlmlab.denoiser.AttentionDenoiser`.

    Raises:
        UserError: The rule needs more than the memo keeps, or changes tokens that the cache takes as
            fixed, or needs a whole canvas where it comes block by block.
    """
    name = type(rule).__name__
    if memo and not rule.memoisable:
        raise UserError(f"{name} sees more of the model than the memo keeps: turn the memo off")
    if frozen_commits and rule.edits:
        raise UserError(f"{name} overwrites committed tokens, which the cache takes as fixed: turn the cache off")
    if frozen_commits and rule.revokes:
        raise UserError(f"{name} masks committed tokens again, which the cache takes as fixed: turn the cache off")
    if blockwise and (rule.sees_canvas or rule.cuts):
        raise UserError(f"{name} needs a whole canvas, and the model's comes block by block: choose another decoder")
    if rule.attends and not shows_attention:
        raise UserError(f"{name} needs attention maps, which this model doesn't show: choose another decoder")
    if rule.shadows and not lays_out:
        raise UserError(
            f"{name} needs tokens beside the canvas, which this model takes none of: choose another decoder"
        )
    if rule.shadows and guided:
        raise UserError(
            f"{name} needs tokens beside the canvas, which guidance has none of: set generation.cfg_scale=0"
        )
