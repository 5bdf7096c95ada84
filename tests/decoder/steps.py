"""Steps to show to rules, and what a rule answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import hydra.utils
import torch
from hypothesis import strategies as st
from omegaconf import OmegaConf

from dlmlab.rule import Candidates, Decision, Rule, Step

CONF = Path(__file__).resolve().parents[2] / "conf" / "decoder"
NAMES = sorted(path.stem for path in CONF.glob("*.yaml"))
VOCABULARY = 7

Row = list[float | None]
"""Confidences of one row's positions; None where a token is committed."""


def rule_of(name: str) -> Rule:
    """A decoder of conf/decoder/ at its defaults."""
    calibration = {"kappa": 0.9, "tau": 0.75, "radius": 4}
    config = OmegaConf.create({"decoder": OmegaConf.load(CONF / f"{name}.yaml"), "model": {"localleap": calibration}})
    config.decoder.pop("published", None)
    rule = hydra.utils.instantiate(config.decoder)
    assert isinstance(rule, Rule)
    return rule


def tensor(rows: Sequence[Row]) -> torch.Tensor:
    """Exact for the multiples of 1/32 that `rows` draws; -inf for None."""
    return torch.tensor([[-torch.inf if c is None else c for c in row] for row in rows], dtype=torch.float64)


def step_of(rows: Sequence[Row], quota: int = 1, **more: Any) -> Step:
    """A step that shows these confidences."""
    confidence_BK = tensor(rows)
    return Step(
        torch.zeros_like(confidence_BK, dtype=torch.int64),
        confidence_BK,
        eligible_BK=confidence_BK > -torch.inf,
        quota_B1=torch.full((len(rows), 1), quota),
        **more,
    )


def committed(decision: Decision) -> list[list[int]]:
    """The positions that each row commits."""
    return [row.nonzero()[:, 0].tolist() for row in decision.commit_BK]


def revoked(decision: Decision) -> list[list[int]]:
    """The positions that each row masks again."""
    assert decision.revoke_BK is not None
    return [row.nonzero()[:, 0].tolist() for row in decision.revoke_BK]


def ordered(row: Row) -> list[int]:
    """The masked positions from the most confident to the least; of equals the leftmost first."""
    return sorted(
        (position for position, c in enumerate(row) if c is not None), key=lambda position: -float(row[position] or 0)
    )


chances = st.integers(0, 32).map(lambda n: n / 32)
"""Probabilities that floats hold exactly, so few that ties are common."""

rows = st.one_of(
    st.lists(chances, min_size=1, max_size=10),  # every position left
    st.lists(st.none() | chances, min_size=1, max_size=10).filter(lambda row: any(c is not None for c in row)),
    st.builds(
        lambda left, c, right: [*[None] * left, c, *[None] * right], st.integers(0, 4), chances, st.integers(0, 4)
    ),
)
"""Rows with at least one position left, among them rows with all and with one."""

quotas = st.integers(1, 12)


def random_steps(rules: Sequence[Rule], seed: int, positions: int = 9) -> Iterator[tuple[Step, Decision]]:
    """Show a row for each of the rules, stacked, a block's steps with random proposals until no position is left."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randint(0, 33, shape, generator=generator).double() / 32

    def masked(values_BK: torch.Tensor, keep_BK: torch.Tensor) -> torch.Tensor:
        return values_BK.masked_fill(~keep_BK, -torch.inf)

    def active() -> dict[str, torch.Tensor]:
        """The third of the canvas in which the first mask is, and a progress."""
        block_BK = torch.arange(positions) // 3 == eligible_BK.long().argmax(-1, keepdim=True) // 3
        return {"active_BK": block_BK, "progress_B1": random(len(rules), 1)}

    def candidates() -> dict[str, Any]:
        """Proposals on the row's canvas and on its drafts, and quotas of one to three until the block is full."""
        filled_BCK = torch.cat((torch.full((len(rules), 1, positions), -1), draft_BCK), 1)
        left_B1 = eligible_BK.sum(-1, keepdim=True)
        asked_BN = torch.randint(1, 4, (len(rules), 2 * filled_BCK.shape[1]), generator=generator).cumsum(-1)
        there_BC1 = (filled_BCK >= 0).any(-1, keepdim=True)
        there_BC1[:, 0] = True
        token_BCK = torch.randint(0, 2, filled_BCK.shape, generator=generator)  # so few that a draft often comes true
        confidence_BCK = masked(random(*filled_BCK.shape), eligible_BK[:, None] & (filled_BCK < 0) & there_BC1)
        return {
            "candidates": Candidates(filled_BCK, token_BCK, confidence_BCK),
            "quotas_BN": asked_BN.minimum(left_B1).diff(dim=-1, prepend=torch.zeros_like(left_B1)),
        }

    shape, like = (len(rules), positions), torch.empty(0, dtype=torch.float64)
    rule = type(rules[0]).stack(rules, like)
    eligible_BK = torch.ones(shape, dtype=torch.bool)
    first = rule.initial_state(positions, VOCABULARY, like)
    state = tuple(part.expand(len(rules), *part.shape) for part in first)
    draft_BCK = torch.full((len(rules), rule.drafts, positions), -1)
    while eligible_BK.any():
        step = Step(
            torch.randint(0, VOCABULARY, shape, generator=generator),
            masked(random(*shape), eligible_BK),
            eligible_BK,
            quota_B1=torch.randint(1, positions + 2, (len(rules), 1), generator=generator),
            measure_BK=measured(rule, random(*shape, VOCABULARY), eligible_BK | rule.everywhere)
            if rule.measures
            else None,
            logits_BKV=random(*shape, VOCABULARY) * 4 * eligible_BK[..., None] if rule.needs_logits else None,
            kept_BK=masked(random(*shape), ~eligible_BK) if rule.revokes else None,
            review_BK=masked(random(*shape), ~eligible_BK) if rule.edits else None,
            noise_BK=random(*shape) if rule.needs_noise else None,
            state=state,
            attention_BKK=random(*shape, positions).add(0.125).softmax(-1) if rule.attends else None,
            **(active() if rule.sees_canvas else {}),
            **(candidates() if rule.drafts else {}),
        )
        decision = rule(step)
        yield step, decision
        state = decision.state
        eligible_BK = eligible_BK & ~decision.commit_BK
        if decision.revoke_BK is not None:
            eligible_BK = eligible_BK | decision.revoke_BK
        if decision.draft_BCK is not None:
            masks_B1 = eligible_BK.sum(-1, keepdim=True)
            drawn_BC = ((decision.draft_BCK >= 0) & eligible_BK[:, None]).sum(-1)
            draft_BCK = decision.draft_BCK.masked_fill(((drawn_BC == 0) | (drawn_BC == masks_B1))[..., None], -1)


def measured(rule: Rule, weight_BKV: torch.Tensor, keep_BK: torch.Tensor) -> torch.Tensor:
    """What the rule's measure says of random probabilities."""
    probability_NV = (weight_BKV + 0.125).div((weight_BKV + 0.125).sum(-1, keepdim=True)).flatten(0, 1)
    found = rule.measure(probability_NV)
    found = found.view(*keep_BK.shape, *found.shape[1:])
    return found.masked_fill(~keep_BK.view(*keep_BK.shape, *[1] * (found.ndim - 2)), -torch.inf)


def row_of(part: Any, position: int) -> Any:
    """One row of a step's or decision's parts, as a batch of one."""
    if isinstance(part, torch.Tensor):
        return part[position : position + 1]
    if isinstance(part, Candidates):
        return Candidates(*(one[position : position + 1] for one in part))
    return part if part is None else tuple(one[position : position + 1] for one in part)
