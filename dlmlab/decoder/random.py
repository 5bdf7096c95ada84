"""Random order: what the other decoders' choice of positions is worth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from dlmlab.decoder.topk import top_k
from dlmlab.rule import Decision, Rule, Step


@dataclass(frozen=True)
class Random(Rule):
    """Commit the scheduled number of positions, drawn evenly from the masked ones by the request's own seed.

    Source: LLaDA, arXiv:2502.09992, section 2.4 and algorithm 4 (random remasking).
    """

    needs_noise: ClassVar[bool] = True
    keeps_to_quota: ClassVar[bool] = True

    def __call__(self, step: Step) -> Decision:
        assert step.noise_BK is not None
        return Decision(top_k(step.noise_BK.masked_fill(~step.eligible_BK, -torch.inf), step.quota_B1))
