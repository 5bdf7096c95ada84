"""Top-k by entropy: commit where the whole distribution is sharpest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dlmlab.decoder.topk import top_k
from dlmlab.rule import Decision, Rule, Step


@dataclass(frozen=True)
class Entropy(Rule):
    """Commit the scheduled number of positions with the least entropy.

    Source: Dream, arXiv:2508.15487; its code's `alg=entropy`. Its default is `alg=origin`, which draws the positions at
    random, and its schedule another one: by timesteps over all masks that are left.
    """

    measures: ClassVar[bool] = True
    keeps_to_quota: ClassVar[bool] = True

    @staticmethod
    def measure(probability_NV: Tensor) -> Tensor:
        return negative_entropy(probability_NV)

    def __call__(self, step: Step) -> Decision:
        assert step.measure_BK is not None
        return Decision(top_k(step.measure_BK, step.quota_B1))


def negative_entropy(probability_NV: Tensor) -> Tensor:
    """Σ p ln p, in nats, (N,): 0 where one token is certain, below it elsewhere."""
    entropy_NV: Tensor = torch.special.entr(probability_NV)
    return -entropy_NV.sum(-1)
