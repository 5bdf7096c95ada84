"""What a decoder sees and answers: a Step and a Decision.

Shape suffixes are those of `dlmlab.types`; C counts canvases that one pass computes for a row.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Candidates(NamedTuple):
    """Canvases that a pass computes for each row: first the row's own, then its drafts; C of them.

    Attributes:
        filled_BCK: int64: the tokens that a canvas holds where the row's own has masks; -1 elsewhere.
        token_BCK: int64: the proposed tokens.
        confidence_BCK: float: their probabilities; -inf where a canvas has no mask, and all over a draft that isn't
            there.
    """

    filled_BCK: Tensor
    token_BCK: Tensor
    confidence_BCK: Tensor


def chosen(part_BCK: Tensor, canvas_B1: Tensor) -> Tensor:
    """Return of each row what belongs to one of its canvases, (B, K).

    Args:
        part_BCK: Something of all canvases, such as a field of `Candidates`.
        canvas_B1: int64: the canvas's number.
    """
    return part_BCK.gather(1, canvas_B1[..., None].expand(-1, 1, part_BCK.shape[-1])).squeeze(1)


class Step(NamedTuple):
    """One step as a rule sees it: B rows, each at the K positions of its own active block.

    For rules with `sees_canvas` the K positions are the whole canvas's.
    """

    token_BK: Tensor
    """int64: the proposed token; has no meaning where a position is not eligible."""
    confidence_BK: Tensor
    """float: softmax probability of the proposed token; -inf where a position is not eligible."""
    eligible_BK: Tensor
    """bool: masked, so that a token can be committed; for rules with `sees_canvas` wherever it lies."""
    quota_B1: Tensor
    """int64: how many positions the schedule asks for, at least 1; may be more than are eligible."""
    measure_BK: Tensor | None = None
    """float, for rules with `measures`: the numbers that their `measure` returned, (B, K) or (B, K, M). -inf
    where a position is not eligible, except for rules with `revokes`, which get them at committed positions
    too.
    """
    logits_BKV: Tensor | None = None
    """float, for rules with `needs_logits`: the logits at eligible positions, zero elsewhere."""
    kept_BK: Tensor | None = None
    """float, for rules with `revokes`: the present probability of the committed tokens; -inf where none is."""
    noise_BK: Tensor | None = None
    """float, for rules with `needs_noise`: uniform on [0, 1), from the request's own seed."""
    state: tuple[Tensor, ...] = ()
    """For rules with `initial_state`: the state of the row's previous decision, each tensor (B, …)."""
    active_BK: Tensor | None = None
    """bool, for rules with `sees_canvas`: the active block."""
    progress_B1: Tensor | None = None
    """float64, for rules with `sees_canvas`: the row's passes, this one among them, as a fraction of the schedule's."""
    review_BK: Tensor | None = None
    """float, for rules with `edits`: the confidence of what is proposed now in place of a committed token, where that
    is another one; -inf elsewhere.
    """
    candidates: Candidates | None = None
    """For rules with `drafts`: what the pass proposes on the row's canvas and on its drafts."""
    attention_BKK: Tensor | None = None
    """float, for rules with `attends`: how much each position (second axis) attends to each (last axis), the mean of
    the heads of the network's last layers. What a position gives to those outside the K is left out.
    """
    quotas_BN: Tensor | None = None
    """int64, for rules with `drafts`: what the schedule asks for at this step and at those that follow, N = 2 C of
    them; 0 where the block is full by then.
    """


class Decision(NamedTuple):
    """A rule's answer to a step.

    After n passes over a block it leaves at least n positions of it filled, so that every block comes to an end; a rule
    that masks again fewer positions than it commits keeps to that.

    Attributes:
        commit_BK: bool: positions to commit.
        revoke_BK: bool: positions to mask again, of those committed before.
        state: The rule's new state, each tensor (B, …).
        end_B1: Where the active block ends: the canvas's first position that doesn't belong to it. Only rules with
            `sees_canvas` may say so.
        seen_B1: How many of the active block's positions the next pass sees; it sees nothing of what comes after. Only
            rules with `cuts` say so.
        edit_BK: Committed positions that take the token which is proposed there now.
        token_BK: The tokens to commit, where they are not those proposed on the row's own canvas. Only rules with
            `drafts` may say so, as for the next two.
        taken_B1: How many steps of the schedule that makes.
        draft_BCK: The drafts that the next pass computes besides, C of them: the tokens that each holds at positions
            which are still masked; -1 elsewhere. One without a token, or without a mask left, is none. The drafts that
            there are come first.
    """

    commit_BK: Tensor
    revoke_BK: Tensor | None = None
    state: tuple[Tensor, ...] = ()
    end_B1: Tensor | None = None
    seen_B1: Tensor | None = None
    edit_BK: Tensor | None = None
    token_BK: Tensor | None = None
    taken_B1: Tensor | None = None
    draft_BCK: Tensor | None = None
