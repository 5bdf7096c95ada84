"""Hierarchical decoding: part a run of masks in two, so that what is committed together lies apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from dlmlab.decoder.topk import top_k
from dlmlab.rule import Decision, Rule, Step
from dlmlab.settings import Fraction


@dataclass(frozen=True)
class Hierarchy(Rule):
    """Commit all above `threshold`, of each run of masks the surest if above `low_threshold`, and the surest of all.

    A run is masked positions without a token between them; of equals in a run all are its surest. Steps play no part.

    Source: dInfer, arXiv:2510.08666 (`HierarchyDecoder`), whose low_threshold this is. Its softmax is in the logits'
    dtype.
    """

    threshold: Fraction
    low_threshold: Fraction
    scheduled: ClassVar[bool] = False

    def __call__(self, step: Step) -> Decision:
        masked_BK, confidence_BK = step.eligible_BK, step.confidence_BK
        begins_BK = masked_BK & ~torch.nn.functional.pad(masked_BK, (1, 0))[:, :-1]
        run_BK = begins_BK.long().cumsum(-1)
        best_BK = torch.full_like(confidence_BK, -torch.inf)
        best_BK = torch.nn.functional.pad(best_BK, (0, 1), value=-torch.inf)
        surest_BK = best_BK.scatter_reduce(-1, run_BK, confidence_BK, "amax").gather(-1, run_BK)
        apart_BK = (confidence_BK == surest_BK) & (confidence_BK > self.low_threshold)
        commit_BK = apart_BK | (confidence_BK > self.threshold) | top_k(confidence_BK, 1)
        return Decision(commit_BK & masked_BK)
