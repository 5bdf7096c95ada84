"""The layout of a canvas, and how many positions its schedule commits at each pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Annotated

import numpy as np
import torch

from dlmlab.errors import UserError
from dlmlab.settings import Fraction, NonNegativeFloat, PositiveInt, check_fields, one_of

CONFIDENCE_DTYPES = {"float32": torch.float32, "float64": torch.float64}
CANVASES = ("fixed", "growing")
SCHEDULES = ("even", "timesteps", "chance")
LAST_TIME = 1e-3
"""Dream's eps: when its schedule ends."""


@dataclass(frozen=True)
class Generation:
    """The layout and the schedule of a canvas (LLaDA, arXiv:2502.09992, section 2.4 and appendix A.3).

    Attributes:
        gen_length: Positions of the canvas.
        block_length: Positions of a block; blocks are filled from left to right.
        steps: Scheduled forward passes over all blocks.
        temperature: 0 proposes the likeliest token; above 0 tokens are drawn with Gumbel noise.
        confidence_dtype: The precision of the softmax, `float32` or `float64`.
        logits_eos_inf: Whether the end token is never proposed.
        confidence_eos_eot_inf: Whether end tokens are committed last and count in no confidence, as in published code.
        confidence_eos_eot_zero: Whether end tokens are committed last and no other confidence changes, as in appendix
            B.4.
        stop_at_end: Whether a full block with an end token ends the row; end tokens then fill the rest of the canvas.
        canvas: `fixed`, all masks from the beginning; `growing`, a block is appended when the one before it is full,
            until an answer ends; None, as the model's family has it.
        schedule: `even` (LLaDA), `timesteps` or `chance` (Dream, the latter its `origin`). With the last two a step may
            commit nothing, which costs no pass, and there may be more steps than positions.
        top_k: The number of likeliest tokens that confidences and draws are among; None counts all.
        top_p: The probability that these tokens make up; None counts all.
        cfg_scale: Strength of classifier-free guidance (LLaDA, appendix A.2). Above 0 each pass computes a second
            canvas for a row, whose prompt is masked, and logits are extrapolated from its to the row's own.
        tempered: Whether confidences are of the distribution at the temperature, which tokens are drawn from.
    """

    gen_length: PositiveInt
    block_length: PositiveInt
    steps: PositiveInt
    temperature: NonNegativeFloat = 0.0
    confidence_dtype: Annotated[str, one_of(CONFIDENCE_DTYPES)] = "float32"
    logits_eos_inf: bool = False
    confidence_eos_eot_inf: bool = False
    confidence_eos_eot_zero: bool = False
    stop_at_end: bool = False
    canvas: Annotated[str, one_of(CANVASES)] | None = None
    schedule: Annotated[str, one_of(SCHEDULES)] = "even"
    top_k: PositiveInt | None = None
    top_p: Fraction | None = None
    tempered: bool = False
    cfg_scale: NonNegativeFloat = 0.0

    def __post_init__(self) -> None:
        check_fields(self)
        if self.block_length > self.gen_length:
            raise UserError(
                f"block_length={self.block_length} is longer than the canvas of gen_length={self.gen_length}: "
                "choose a block_length that divides it"
            )
        if self.gen_length % self.block_length and self.canvas != "growing":
            raise UserError(
                f"gen_length={self.gen_length} is not divisible by block_length={self.block_length}: "
                "choose a block_length that divides it"
            )
        if self.steps % self.blocks:
            raise UserError(
                f"steps={self.steps} is not divisible by the {self.blocks} blocks of gen_length={self.gen_length}, "
                f"block_length={self.block_length}: choose a multiple of {self.blocks}"
            )
        if self.steps > self.blocks * self.block_length and self.schedule == "even":
            raise UserError(
                f"steps={self.steps} is more than gen_length={self.gen_length}: a step commits at least one token"
            )

    @cached_property
    def blocks(self) -> int:
        return -(-self.gen_length // self.block_length)

    @cached_property
    def _even(self) -> tuple[int, ...]:
        """As many at each of a block's steps, the first ones taking what is left over."""
        steps = self.steps // self.blocks
        per_step, extra = divmod(self.block_length, steps)
        return tuple(max(1, per_step + (step < extra)) for step in range(steps))

    def quota(self, step: int, left: int | None = None, seed: Sequence[int] = ()) -> int:
        """Return how many positions the schedule commits at a block's step, counted from 0; 1 where it has ended.

        Args:
            step: The step.
            left: Masked positions of the block, where not all are.
            seed: The row's seed, for a schedule that draws.
        """
        if self.schedule == "even":
            return self._even[step] if step < len(self._even) else 1
        steps, left = self.steps // self.blocks, self.block_length if left is None else left
        if self.schedule == "timesteps":
            return timesteps(left, steps, step)
        return chance(left, steps, step, seed)


def timesteps(left: int, steps: int, step: int) -> int:
    """Return Dream's number: of what is left, the share of the time left that a step takes, rounded down to 0 or more.

    The last step takes all that is left; 1 where the schedule has ended. Source: arXiv:2508.15487, published code.

    Args:
        left: Masks left in the block.
        steps: The block's steps.
        step: Which of them this is, counted from 0.
    """
    if step >= steps - 1:
        return left if step == steps - 1 else 1
    return int(torch.tensor(float(left)) * shares(steps)[step])  # in float32, as published


def chance(left: int, steps: int, step: int, seed: Sequence[int]) -> int:
    """The same share as the probability of each position by itself, drawn: how many that come to (Dream's `origin`).

    Args:
        left: Masks left in the block.
        steps: The block's steps.
        step: Which of them this is, counted from 0.
        seed: The block's own.
    """
    if step >= steps - 1:
        return timesteps(left, steps, step)
    generator = np.random.default_rng([*seed, left, step])
    return int(generator.binomial(left, float(shares(steps)[step])))


@cache
def shares(steps: int) -> torch.Tensor:
    """Return for each step the share of the time left that it takes: (steps,) of float32."""
    times = torch.linspace(1, LAST_TIME, steps + 1)
    return 1 - times[1:] / times[:-1]
