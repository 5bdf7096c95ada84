"""The contract of a cache: a Policy sees a row's View and answers the Plan of its next pass.

A policy decides which positions a forward pass computes anew; the model keeps keys and values of the others for it.
Most policies decide from numbers that the host has. One that looks into the pass gives its plan a hook, which the model
calls: such a model says so in what it `keeps`.

Shape suffixes as in `dlmlab.types`; L is the positions of a row, prompt and canvas, T those of them that a pass
computes, H heads, E width of a head.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar, NamedTuple

import numpy as np
from torch import Tensor

from dlmlab.errors import UserError
from dlmlab.rule import Rule, check_composition
from dlmlab.settings import check_fields

KEYS_AND_VALUES = "keys and values"
CHOSEN_KEYS = "keys chosen in each layer"
ATTENTION = "attention"
FEATURES = "what each block's halves add"
KEPT = (KEYS_AND_VALUES, CHOSEN_KEYS, ATTENTION, FEATURES)
"""What a policy may need of a model, and a model may offer."""


class Frozen(Enum):
    """What a policy takes as final: it isn't computed again before a full pass."""

    NOTHING = "nothing"
    EARLIER_BLOCKS = "earlier blocks"
    COMMITS = "commits"


@dataclass(frozen=True)
class View:
    """What a policy sees of a row before a pass: numbers, on the host.

    prompt: positions of the prompt. start, end: the active block, [start, end) of the row's positions. step: passes
    since the block began. forwards: passes since the row began. committed_L: for each position the pass that committed
    its token; -1 for the prompt, `forwards` for what is still masked. last: the plan of the row's last pass, whose hook
    has seen it by now; None before the first.
    """

    prompt: int
    start: int
    end: int
    step: int
    forwards: int
    committed_L: np.ndarray
    last: Plan | None = None

    @property
    def everything(self) -> np.ndarray:
        """All positions of the row."""
        return np.ones(len(self.committed_L), dtype=bool)

    @property
    def block(self) -> np.ndarray:
        """The active block."""
        return self.between(self.start, self.end)

    @property
    def masked(self) -> np.ndarray:
        """The positions without a token."""
        masked: np.ndarray = self.committed_L == self.forwards
        return masked

    def between(self, begin: int, end: int) -> np.ndarray:
        """The row's positions from `begin` to before `end`, either of which may lie outside of it."""
        position_L = np.arange(len(self.committed_L))
        return (begin <= position_L) & (position_L < end)


class Plan(NamedTuple):
    """One pass of a row: the positions that it computes, and those that it attends to (None: all), as (L,) masks.

    hook: what the model calls on the way; a `KeyChoice`, an `AttentionProbe` or a `FeatureReuse`.
    """

    computed: np.ndarray
    visible: np.ndarray | None = None
    hook: Any = None


class KeyChoice:
    """A hook that chooses, in each layer of a pass that computes everything, the keys that later passes see.

    The next pass that computes everything sees all of them again.
    """

    def choose(self, q_HLE: Tensor, k_HLE: Tensor) -> Tensor:
        """Bool (L,), from rotated queries and keys of as many heads."""
        raise NotImplementedError


class AttentionProbe:
    """A hook that is shown a pass's attention, and the confidences at some positions. A pass may be begun again."""

    scored: np.ndarray | None = None
    """Where confidences are asked for, bool (L,), of computed positions; None where nowhere."""

    def attend(self, layer: int, position_T: Tensor, attention_TL: Tensor) -> None:
        """See a layer's attention, the mean of its heads, at these positions of the row."""
        raise NotImplementedError

    def score(self, confidence_N: Tensor) -> None:
        """See the largest probability at each of the positions that are `scored`, in float64."""
        raise NotImplementedError


class FeatureReuse:
    """A hook that decides in each layer where a block's two halves are computed; elsewhere they add what they did last.

    computed: positions where they always are, bool (L,). watched: positions where values are, bool (L,), None where
    nowhere; some of these are `stale`. The first layer computes everything.
    """

    computed: np.ndarray
    watched: np.ndarray | None

    def stale(self, new_ND: Tensor, old_ND: Tensor) -> Tensor:
        """Indices into the N watched positions that are computed too, from their values now and as they were."""
        raise NotImplementedError


class Policy:
    """A cache: a pure function from a row's View to a Plan. Subclasses are frozen dataclasses.

    A plan computes at least one masked position of the active block. What it lets be seen was computed in this pass or
    an earlier one; a row's first pass computes all that any pass sees.
    """

    keeps: ClassVar[bool] = True
    """Whether anything is kept from pass to pass; what keeps nothing computes everything, and is never asked."""
    needs: ClassVar[str] = KEYS_AND_VALUES
    """What the model must keep for it, one of KEPT."""
    frozen: ClassVar[Frozen] = Frozen.NOTHING
    steady: ClassVar[bool] = False
    """Whether from a block's second pass on until it is full all its passes are planned alike, and compute the
    block."""
    exact: ClassVar[str] = "never"
    """With which models answers are those without a cache."""

    def __post_init__(self) -> None:
        check_fields(self)

    def plan(self, view: View) -> Plan:
        """What the row's next pass computes."""
        raise NotImplementedError


def check_pair(rule: Rule, cache: Policy | None) -> None:
    """Raise UserError where a decoder and a cache don't go together, by what both declare."""
    if cache is not None:
        check_composition(rule, frozen_commits=cache.frozen is Frozen.COMMITS)


def check_served(keeps: Iterable[str], cache: Policy | None) -> None:
    """Raise UserError where a model doesn't keep what a cache needs. keeps: what it does."""
    if cache is not None and cache.keeps and cache.needs not in keeps:
        raise UserError(f"cache {type(cache).__name__} needs a model that keeps {cache.needs}: set cache=none")
