"""Where a cache goes wrong, before a score tells: a full pass beside every n-th cached one.

python run.py experiment=evaluate cache=dual cache_audit=8

The full pass sees the same tokens and changes nothing. Told are how often it proposes the same token at the block's
masked positions, how far apart the two distributions are, and how alike the kept keys and values are to new ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from dlmlab.denoiser import Query, Reuse
from dlmlab.record.report import Cell, Table

AGES = (1, 2, 4, 8, 16)
"""Passes since everything was computed, where a group of them begins."""


class Audit(NamedTuple):
    """One row's cached pass against a full one.

    Attributes:
        age: Passes since the row's last full pass.
        same: The share of positions at which both propose the same token.
        kl: KL(full ‖ cached), the mean of the positions, in nats.
        keys: By layer, the mean cosine of kept and new keys, over the positions that the cached pass did not compute.
        values: The same of the values.
    """

    age: int
    same: float
    kl: float
    keys: list[float]
    values: list[float]


class Watched(NamedTuple):
    """Holds what a row's passes tell of it.

    Attributes:
        tokens_L: Its tokens, as the last pass saw them.
        passes: Its passes after the first.
        age: Passes since a full one.
    """

    tokens_L: Tensor
    passes: int
    age: int


class Audited:
    """A model that audits every n-th cached pass of each row; `audits` is what it found."""

    works_ahead = False  # passes that begin ahead would go past `hidden`

    def __init__(self, model: Any, every: int) -> None:
        self._model, self._every = model, every
        self._rows: WeakKeyDictionary[Any, Watched] = WeakKeyDictionary()
        self.audits: list[Audit] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def hidden(self, query: Query) -> Tensor:
        """Return the model's own; rows with a cache are watched."""
        hidden_ND: Tensor = self._model.hidden(query)
        if query.reuse is not None and query.wanted_N is not None:
            row_N, asked_N = query.wanted_N // query.tokens_BL.shape[1], query.wanted_N % query.tokens_BL.shape[1]
            for row in range(len(query.tokens_BL)):
                self._watch(query, row, asked_N[row_N == row], hidden_ND[row_N == row])
        return hidden_ND

    def _watch(self, query: Query, row: int, asked_N: Tensor, hidden_ND: Tensor) -> None:
        """Follow one row's tokens. asked_N: indices into what is computed of it, where hidden states are wanted."""
        assert query.reuse is not None
        store = query.reuse.stores[row]
        real_L = slice(None) if query.real_BL is None else query.real_BL[row].bool()
        position_T, tokens_T = query.reuse.position_BL[row][real_L], query.tokens_BL[row][real_L]
        known = self._rows.get(store)
        tokens_L = tokens_T.clone() if known is None else known.tokens_L.index_copy(0, position_T, tokens_T)
        passes, age = (0, 0) if known is None else (known.passes + 1, known.age + 1)
        age = 0 if len(position_T) == len(tokens_L) else age
        self._rows[store] = Watched(tokens_L, passes, age)
        if age and passes % self._every == 0 and len(hidden_ND):
            wanted_N = query.reuse.position_BL[row][asked_N]
            self.audits.append(self._audit(age, tokens_L, position_T, wanted_N, store, hidden_ND))

    @torch.inference_mode()
    def _audit(
        self, age: int, tokens_L: Tensor, position_T: Tensor, wanted_N: Tensor, store: Any, hidden_ND: Tensor
    ) -> Audit:
        fresh = self._model.new_store(len(tokens_L), "keys and values")
        everything = Reuse(torch.arange(len(tokens_L))[None], [None], [fresh], [None])
        full_ND = self._model.hidden(Query(tokens_L[None], None, wanted_N, everything))
        full_NV, cached_NV = (self._model.head(each).float().log_softmax(-1) for each in (full_ND, hidden_ND))
        kept_L = torch.ones(len(tokens_L), dtype=torch.bool).index_fill(0, position_T, False)
        cosines = [
            torch.cosine_similarity(own[..., kept_L, :].float(), new[..., kept_L, :].float(), dim=-1).mean((1, 2))
            for own, new in zip(store.kept.unbind(1), fresh.kept.unbind(1), strict=True)
        ]
        return Audit(
            age,
            same=(full_NV.argmax(-1) == cached_NV.argmax(-1)).double().mean().item(),
            kl=(full_NV.exp() * (full_NV - cached_NV)).sum(-1).mean().item(),
            keys=cosines[0].tolist(),
            values=cosines[1].tolist(),
        )


def summary(audits: Sequence[Audit]) -> dict[str, Any]:
    """Return the audits' means: over all, by age, and by layer; empty where there are none."""
    if not audits:
        return {}
    ages = list(zip(AGES, [*AGES[1:], np.inf], strict=True))
    groups = {begin: [each for each in audits if begin <= each.age < end] for begin, end in ages}
    return {
        "audits": len(audits),
        "by_age": [
            {"from": begin, "audits": len(own), "same": mean(own, "same"), "kl": mean(own, "kl")}
            for begin, own in groups.items()
            if own
        ],
        "keys_by_layer": np.mean([each.keys for each in audits], axis=0).tolist(),
        "values_by_layer": np.mean([each.values for each in audits], axis=0).tolist(),
        "same": mean(audits, "same"),
        "kl": mean(audits, "kl"),
    }


def mean(audits: Sequence[Audit], name: str) -> float:
    """Return the mean of one figure.

    Args:
        audits: The audits, at least one.
        name: The figure, a field of `Audit` that is a number.
    """
    return float(np.mean([getattr(each, name) for each in audits]))


def tables(found: Mapping[str, Any]) -> list[Table]:
    """Return a summary as the tables of a report."""
    if not found:
        return []
    by_age: list[list[Cell]] = [
        [f"{each['from']} or more", each["audits"], f"{each['same']:.1%}", f"{each['kl']:.3g}"]
        for each in found["by_age"]
    ]
    by_layer: list[list[Cell]] = [
        [layer, f"{key:.4f}", f"{value:.4f}"]
        for layer, (key, value) in enumerate(zip(found["keys_by_layer"], found["values_by_layer"], strict=True))
    ]
    note = "Against a full pass over the same tokens, at the masked positions of the active block."
    cosines = "The mean cosine of what was kept and what a full pass has, at positions that were not computed."
    return [
        Table("Cache audit", ["passes since a full one", "audits", "same token", "KL, nats"], by_age, note),
        Table("Cache audit by layer", ["layer", "keys", "values"], by_layer, cosines),
    ]
