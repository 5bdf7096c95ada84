"""The contract of a cache: a Policy sees a row's View and answers the Plan of its next pass.

A policy decides which positions a forward pass computes anew; the model keeps keys and values of the others for it. One
that looks into the pass gives its plan a hook, which the model calls: such a model says so in what it `keeps`.

Shape suffixes as in `dlmlab.types`; L is the positions of a row, prompt and canvas, T those of them that a pass
computes, H heads, E width of a head.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
FINAL_BLOCKS = "keys and values that are final with their block"
KEPT = (KEYS_AND_VALUES, CHOSEN_KEYS, ATTENTION, FEATURES, FINAL_BLOCKS)
"""Everything that a policy may need a model to keep; the last is kept where attention is block-causal."""


class Frozen(Enum):
    """Names what a policy takes as final: it isn't computed again before a full pass."""

    NOTHING = "nothing"
    EARLIER_BLOCKS = "earlier blocks"
    COMMITS = "commits"


@dataclass(frozen=True)
class View:
    """A row as a policy sees it before a pass: numbers, on the host.

    Attributes:
        prompt: Positions of the prompt.
        start: The active block's first position, of the row's.
        end: The first position after the active block.
        step: Passes since the block began.
        forwards: Passes since the row began.
        committed_L: The pass that committed each position's token; -1 for the prompt, `forwards` for a mask.
        last: The plan of the row's last pass, whose hook that pass has called by now; None before the first.
        seed: The row's, for a policy that draws.
    """

    prompt: int
    start: int
    end: int
    step: int
    forwards: int
    committed_L: np.ndarray
    last: Plan | None = None
    seed: Sequence[int] = ()

    @property
    def everything(self) -> np.ndarray:
        """Return all positions of the row, as a bool (L,)."""
        return np.ones(len(self.committed_L), dtype=bool)

    @property
    def block(self) -> np.ndarray:
        """Return the active block, as a bool (L,)."""
        return self.between(self.start, self.end)

    @property
    def masked(self) -> np.ndarray:
        """Return the positions without a token, as a bool (L,)."""
        masked: np.ndarray = self.committed_L == self.forwards
        return masked

    def between(self, begin: int, end: int) -> np.ndarray:
        """Return positions of the row that follow each other, as a bool (L,).

        Args:
            begin: The first of them; it may lie outside the row.
            end: The one after the last; so may it.
        """
        position_L = np.arange(len(self.committed_L))
        return (begin <= position_L) & (position_L < end)


class Plan(NamedTuple):
    """The plan of one pass of a row.

    Attributes:
        computed: The positions that the pass computes, bool (L,).
        visible: The positions that it attends to, bool (L,); None where it attends to all.
        hook: A `KeyChoice`, an `AttentionProbe` or a `FeatureReuse`, which the model calls during the pass.
    """

    computed: np.ndarray
    visible: np.ndarray | None = None
    hook: Any = None


class KeyChoice:
    """A hook that chooses, in each layer of a pass that computes everything, the keys that later passes see.

    The next pass that computes everything sees all of them again.
    """

    def choose(self, q_HLE: Tensor, k_HLE: Tensor) -> Tensor:
        """Choose the keys of one layer.

        Args:
            q_HLE: Rotated queries, of all heads and positions.
            k_HLE: Rotated keys, of as many heads.

        Returns:
            The positions whose keys stay, bool (L,).
        """
        raise NotImplementedError


class AttentionProbe:
    """A hook that is shown a pass's attention, and the confidences at some positions. A pass may be begun again."""

    scored: np.ndarray | None = None
    """Positions whose confidences the hook needs, bool (L,), all of them computed; None where it needs none."""

    def attend(self, layer: int, position_T: Tensor, attention_TL: Tensor) -> None:
        """Take note of a layer's attention.

        Args:
            layer: The layer, counted from 0.
            position_T: The row's positions that are computed.
            attention_TL: Their attention to all positions, the mean of the heads.
        """
        raise NotImplementedError

    def score(self, confidence_N: Tensor) -> None:
        """Take note of the largest probability, in float64, at each of the positions that are `scored`."""
        raise NotImplementedError


class FeatureReuse:
    """A hook that decides in each layer where a block's two halves are computed; elsewhere they add what they did last.

    The first layer computes everything.

    Attributes:
        computed: Positions where the halves are always computed, bool (L,).
        watched: Positions where values are computed, bool (L,), some of which are then `stale`; None where there are
            none.
    """

    computed: np.ndarray
    watched: np.ndarray | None

    @property
    def skipped(self) -> int:
        """Return how many positions of the pass each layer after the first takes no half of, for the ledger."""
        raise NotImplementedError

    def stale(self, new_ND: Tensor, old_ND: Tensor) -> Tensor:
        """Choose the watched positions that are computed too.

        Args:
            new_ND: The values of the N watched positions now.
            old_ND: Their values when they were last computed.

        Returns:
            Indices into the N watched positions.
        """
        raise NotImplementedError


class Policy:
    """A cache: a pure function from a row's View to a Plan. Subclasses are frozen dataclasses.

    A plan computes at least one masked position of the active block. What it lets a pass attend to was computed in this
    pass or an earlier one.
    """

    keeps: ClassVar[bool] = True
    """Whether anything is kept from pass to pass; a policy that keeps nothing computes everything, and is never
    asked.
    """
    needs: ClassVar[str] = KEYS_AND_VALUES
    """What the model must keep for the policy, one of KEPT."""
    frozen: ClassVar[Frozen] = Frozen.NOTHING
    """What the policy takes as final."""
    steady: ClassVar[bool] = False
    """Whether from a block's second pass on until it is full all its passes are planned alike, and compute the
    block.
    """
    exact: ClassVar[str] = "never"
    """The models with which answers equal those without a cache, in words."""

    def __post_init__(self) -> None:
        check_fields(self)

    def plan(self, view: View) -> Plan:
        """Return the plan of the row's next pass."""
        raise NotImplementedError


def check_pair(rule: Rule, cache: Policy | None) -> None:
    """Raise UserError where a decoder and a cache don't go together, by what both declare.

    Args:
        rule: The decoder.
        cache: The cache; None goes with all.
    """
    if cache is None or not cache.keeps:
        return
    name = type(rule).__name__
    check_composition(rule, frozen_commits=cache.frozen is Frozen.COMMITS)
    if rule.cuts:
        raise UserError(f"{name} cuts the canvas, which a pass with a cache doesn't: turn the cache off")
    if rule.drafts:
        raise UserError(f"{name} computes several canvases for a row, and a cache keeps one: turn the cache off")
    if rule.attends:
        raise UserError(f"{name} looks at attention, which a pass with a cache doesn't show: turn the cache off")
    if rule.shadows:
        raise UserError(f"{name} computes tokens beside the canvas, which a cache has no room for: turn the cache off")
    if rule.revokes and rule.sees_canvas and cache.frozen is Frozen.EARLIER_BLOCKS:
        raise UserError(
            f"{name} masks earlier blocks' tokens again, which the cache takes as fixed: turn the cache off"
        )


def check_served(keeps: Iterable[str], cache: Policy | None, grows: bool = False, guided: bool = False) -> None:
    """Raise UserError where a model doesn't keep what a cache needs.

    Args:
        keeps: What the model keeps.
        cache: The cache, if there is one.
        grows: Whether canvases grow block by block.
        guided: Whether each row has a second canvas, for classifier-free guidance.
    """
    if cache is None or not cache.keeps:
        return
    name = type(cache).__name__
    if cache.needs not in keeps:
        raise UserError(f"cache {name} needs a model that keeps {cache.needs}: set cache=none")
    if guided:
        raise UserError(f"cache {name} keeps one canvas for a row, and cfg_scale makes it two: set cache=none")
    if grows and cache.needs not in (KEYS_AND_VALUES, FINAL_BLOCKS):
        raise UserError(f"cache {name} looks at a whole canvas, and this one grows: set generation.canvas=fixed")
