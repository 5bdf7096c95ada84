"""What rules share that are built around another one."""

from __future__ import annotations

import torch
from torch import Tensor

from dlmlab.errors import UserError
from dlmlab.rule import Rule, Step

ALONE = {
    "edits": "overwrites committed tokens",
    "shadows": "puts tokens beside the canvas",
    "drafts": "puts drafts beside the canvas",
    "cuts": "says how much of the canvas a pass sees",
}
"""What a rule that declares it does to more than the masks that another one leaves to it."""


class Around(Rule):
    """A rule that leaves to another one, `inner`, what it doesn't decide itself. It asks for what that one asks for."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if does := [what for key, what in ALONE.items() if getattr(self.inner, key)]:
            inner, outer = type(self.inner).__name__, type(self).__name__
            raise UserError(f"rule={inner} {does[0]}, which it can't inside {outer}: choose another rule")

    @property
    def inner(self) -> Rule:
        """Return the other rule."""
        raise NotImplementedError

    @property
    def measures(self) -> bool:  # type: ignore[override]
        return self.inner.measures

    @property
    def needs_logits(self) -> bool:  # type: ignore[override]
        return self.inner.needs_logits

    @property
    def needs_noise(self) -> bool:  # type: ignore[override]
        return self.inner.needs_noise

    @property
    def revokes(self) -> bool:  # type: ignore[override]
        return self.inner.revokes

    @property
    def attends(self) -> float:  # type: ignore[override]
        return self.inner.attends

    @property
    def scheduled(self) -> bool:  # type: ignore[override]
        return self.inner.scheduled

    @property
    def everywhere(self) -> bool:
        return self.inner.everywhere

    def initial_state(self, block_length: int, vocab_size: int, like: Tensor) -> tuple[Tensor, ...]:
        return self.inner.initial_state(block_length, vocab_size, like)

    def measure(self, probability_NV: Tensor) -> Tensor:
        return self.inner.measure(probability_NV)

    def transform(self, logits_BKV: Tensor, state: tuple[Tensor, ...]) -> Tensor:
        return self.inner.transform(logits_BKV, state)


def within(rule: Rule, step: Step, block_BK: Tensor) -> Step:
    """Return the step that a rule inside another one is to see: the active block alone is eligible to it.

    A rule with `sees_canvas` sees the same step, with this active block.

    Args:
        rule: The rule inside.
        step: The outer rule's step, whose K positions are the canvas's.
        block_BK: bool: the active block, which may be another one than the step's.
    """
    if rule.sees_canvas:
        return step._replace(active_BK=block_BK)
    measure_BK = step.measure_BK
    if measure_BK is not None:
        out_BK = ~block_BK.view(*block_BK.shape, *[1] * (measure_BK.ndim - 2))
        measure_BK = measure_BK.masked_fill(out_BK, -torch.inf)
    confidence_BK = step.confidence_BK.masked_fill(~block_BK, -torch.inf)
    return step._replace(confidence_BK=confidence_BK, eligible_BK=step.eligible_BK & block_BK, measure_BK=measure_BK)
