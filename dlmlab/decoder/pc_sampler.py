"""PC-Sampler: early positions first, and of their tokens those that say more than a common one would."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from dlmlab.decoder.topk import top_k
from dlmlab.errors import UserError
from dlmlab.paths import CONF
from dlmlab.rule import Decision, Rule, Step
from dlmlab.settings import NonNegativeFloat


@dataclass(frozen=True)
class PCSampler(Rule):
    """Commit the scheduled number of positions with the highest exp(−lambd · i) · min(−c ln(f + 1e-9), alpha).

    Here i is the position, counted from the block's first, and f how often the proposed token occurs in a background
    corpus, as a fraction of its tokens.

    Source: PC-Sampler, arXiv:2508.13021; lambd and alpha are its code's for most tasks. Its tool and its loader name
    the table's parts differently, and the loader knows LLaDA's vocabulary alone.

    Attributes:
        lambd: How much early positions are preferred; 0 for not at all.
        alpha: The most that a confidence times a token's rarity counts.
        frequencies: A table of `conf/frequency/`, or a path to one: JSON with `num_token`, the corpus's size in tokens,
            and `count`, by token id; a token that is not there counts as occurring once.
    """

    lambd: NonNegativeFloat
    alpha: NonNegativeFloat
    frequencies: str

    keeps_to_quota: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        surprise(self.frequencies, "cpu")

    def __call__(self, step: Step) -> Decision:
        rarity_V = surprise(self.frequencies, str(step.token_BK.device))
        rarity_BK = rarity_V[step.token_BK.clamp(max=len(rarity_V) - 1)]
        position_K = torch.arange(step.token_BK.shape[-1], device=step.token_BK.device)
        said_BK = (step.confidence_BK.clamp(min=0) * rarity_BK).clamp(max=self.alpha)
        score_BK = (-self.lambd * position_K).exp() * said_BK
        return Decision(top_k(score_BK.masked_fill(~step.eligible_BK, -torch.inf), step.quota_B1))


@cache
def surprise(name: str, device: str) -> Tensor:
    """Return −ln(f + 1e-9) of each token, in single precision as published.

    Args:
        name: A table of `conf/frequency/`, or a path to one.
        device: The device that the numbers go to; what is returned is kept for each name and device.

    Returns:
        A number for each token id; the last stands for all that are not counted.

    Raises:
        UserError: There is no such table.
    """
    path = CONF / "frequency" / f"{name}.json" if (CONF / "frequency" / f"{name}.json").exists() else Path(name)
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        count = {int(token): float(number) for token, number in table["count"].items()}
        frequency_V = torch.full((max(count) + 2,), 1 / table["num_token"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise UserError(
            f"frequencies={name!r} is no table of conf/frequency/, nor a JSON file with num_token and count: count the "
            "tokens of a corpus with the checkpoint's tokenizer"
        ) from error
    frequency_V[list(count)] = torch.tensor(list(count.values())) / table["num_token"]
    return -(frequency_V + 1e-9).log().to(device)
