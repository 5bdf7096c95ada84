"""The contract of a model: it answers a Query with hidden states, and turns those into logits.

Shape suffixes are those of `dlmlab.types`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from dlmlab.errors import UserError


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


class Layout(NamedTuple):
    """Where the tokens of a pass stand and what each sees, where a row holds more than its own L positions in order."""

    position_BL: Tensor
    """int64: the position of each token, which another token may share."""
    seen_BLL: Tensor
    """bool: whether a token (second axis) attends to another one (last axis)."""


class Query(NamedTuple):
    """One forward pass, as a model is asked for it: B rows, padded on the right to L. All may lie on the host.

    A model may take two passes for passes over the same positions of the same rows where `real_BL`, and
    `reuse.position_BL` (without `reuse`: `tokens_BL`), are the same objects. Only token values and `wanted_N` may
    differ then.
    """

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
    layout: Layout | None = None
    """Where the tokens stand, for a model that `lays_out`; None: at 0, 1, 2 … of their row, seen by all of it."""


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
        """Return whether it works while the host goes on, and is an `AheadDenoiser`."""

    @property
    def lays_out(self) -> bool:
        """Return whether a query may have a `layout` of its own."""

    def hidden(self, query: Query) -> Tensor:
        """Return the last hidden states: (N, D) at the positions that the query wants; (B, L, D) where it wants all."""

    def head(self, hidden_ND: Tensor) -> Tensor:
        """Return the logits, (N, V), of hidden states, (N, D)."""

    def new_store(self, positions: int, kept: str) -> Store:
        """Return an empty store for a row.

        Args:
            positions: How many positions the row has.
            kept: What is kept of them, one of those that the model `keeps`.
        """


CONFIG = ("mask_token_id", "eos_token_id", "pad_token_id", "max_sequence_length", "vocab_size", "padded_vocab_size")
"""What a model's `config` has."""


def check_denoiser(model: Any) -> None:
    """Check that a model has all that the lab asks of one, but for `new_store`, which only caches need.

    Args:
        model: The model.

    Raises:
        UserError: It lacks something; the line names all of it.
    """
    asked = {*Denoiser.__annotations__, *(name for name in vars(Denoiser) if not name.startswith("_"))} - {"new_store"}
    asked |= {"ready"} if getattr(model, "works_ahead", False) else set()
    missing = [name for name in sorted(asked) if not hasattr(model, name)]
    missing += [f"config.{name}" for name in CONFIG if "config" not in missing and not hasattr(model.config, name)]
    if missing:
        raise UserError(
            f"{type(model).__name__} has no {', no '.join(missing)}: see dlmlab.denoiser.Denoiser for what each is"
        )


class Ready(Protocol):
    """The protocol of a pass that is ready, so that the device waits for as little as can be."""

    def begin(self) -> None:
        """Let the device begin, once."""

    def hidden(self, wanted_N: Tensor) -> Tensor:
        """Return what `Denoiser.hidden` does, (N, D), after the pass has begun.

        Args:
            wanted_N: The positions that are wanted, as in `Query`.
        """


class AheadDenoiser(Denoiser, Protocol):
    """The protocol of a model that `works_ahead`."""

    def ready(self, query: Query) -> Ready:
        """Make a pass ready before it is known whether it will come, and which positions will be wanted.

        Args:
            query: The pass, whose tokens lie on the device; which positions it wants is not read.
        """


class AttentionDenoiser(Denoiser, Protocol):
    """The protocol of a model that can show its attention, for rules with `attends`."""

    def hidden_and_attention(self, query: Query, position_BK: Tensor, layers: float) -> tuple[Tensor, Tensor]:
        """Return what `hidden` returns, and the attention between some positions of the first B rows.

        Args:
            query: The pass, without `reuse`.
            position_BK: K positions of each row, as indices into the query's rows × L.
            layers: How many of the last layers' attention is averaged, all where there are fewer; below 1 their share,
                rounded up.

        Returns:
            The hidden states, and how much each of a row's positions (second axis) attends to each (last axis), the
            mean of the layers' heads, float32, (B, K, K).
        """
