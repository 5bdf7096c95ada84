"""Chain: what is sure at once, and guesses behind it that are kept as far as each is what the model says by then."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch

from dlmlab.decision import chosen
from dlmlab.decoder.around import Around
from dlmlab.decoder.threshold import Threshold
from dlmlab.decoder.topk import descending, rank
from dlmlab.errors import UserError
from dlmlab.rule import Decision, Rule, Step
from dlmlab.settings import MOST, Fraction, Limits


@dataclass(frozen=True)
class Chain(Around):
    """Commit by another rule, and try the surest positions that it leaves, one after the other, in the next pass.

    A pass computes the row and a chain of drafts: the first has the surest position filled that the last step left,
    each further one the next surest as well. A draft comes true where the canvas before it proposes just the token
    that it adds, at a confidence of at least `least`; the last that comes true with all before it becomes the row,
    and the rule inside commits from its proposals. So every guess that is kept is the likeliest token given all
    that was filled before it, as if it had had a pass of its own. The price is `links` canvases more in a pass.
    Above temperature 0 a guess is kept where the same token is drawn again, which favours likely tokens a little.

    Source: dlmlab's own. The idea of a chain that one pass verifies is that of SSD (arXiv:2510.04147) and FreeDave
    (arXiv:2510.00294), which keep to a schedule of their own; what is new is only that it goes on where a rule that
    commits what is sure would spend a pass on one position. docs/results.md says where that pays.

    Attributes:
        links: The most drafts of a pass.
        least: The confidence that a guess must have once all before it is filled in, besides being the likeliest.
        threshold: The least confidence in Fast-dLLM's rule, which commits where `rule` is None.
        rule: The rule that commits. It sees the proposals' tokens and confidences alone, and keeps to no schedule.
    """

    links: Annotated[int, Limits(1, MOST)]
    least: Fraction = 0.0
    threshold: Fraction = 0.9
    rule: Rule | None = None
    alike: ClassVar[tuple[str, ...]] = ("links", "least", "threshold")

    def __post_init__(self) -> None:
        super().__post_init__()
        inner = self.inner
        if inner.scheduled or inner.needs_noise or not inner.memoisable or inner.initial_state(1, 1, torch.empty(0)):
            raise UserError(
                f"rule={type(inner).__name__} asks for more than tokens and confidences, which is all that Chain's "
                "drafts give: choose another rule, such as threshold"
            )

    @property
    def inner(self) -> Rule:
        return self.rule or Threshold(self.threshold)

    @property
    def drafts(self) -> int:  # type: ignore[override]
        return self.links

    def __call__(self, step: Step) -> Decision:
        assert step.candidates is not None
        filled_BCK, token_BCK, confidence_BCK = step.candidates
        adds_BCK = (filled_BCK[:, 1:] >= 0) & (filled_BCK[:, :-1] < 0)
        same_BCK = (filled_BCK[:, 1:] == token_BCK[:, :-1]) & (confidence_BCK[:, :-1] >= self.least)
        agrees_BC = (same_BCK | ~adds_BCK).all(-1)
        there_BC = (confidence_BCK[:, 1:] > -torch.inf).any(-1)
        last_B1 = (agrees_BC & there_BC).cumprod(-1).sum(-1, keepdim=True)
        filled_BK, token_BK, confidence_BK = (chosen(part_BCK, last_B1) for part_BCK in step.candidates)
        seen = step._replace(token_BK=token_BK, confidence_BK=confidence_BK, eligible_BK=confidence_BK > -torch.inf)
        commit_BK = self.inner(seen).commit_BK
        target_BK = token_BK.where(commit_BK, filled_BK)

        left_BK = confidence_BK.masked_fill(commit_BK, -torch.inf)
        place_BK = rank(descending(left_BK)).masked_fill(left_BK == -torch.inf, self.links)
        link_C1 = torch.arange(self.links, device=left_BK.device)[:, None]
        draft_BCK = torch.where(place_BK[:, None] <= link_C1, token_BK[:, None], -1)
        return Decision(target_BK >= 0, token_BK=target_BK, draft_BCK=draft_BCK)
