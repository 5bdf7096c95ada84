"""The loss of masked diffusion on answers (LLaDA, arXiv:2502.09992, equation 5), weighted for short answers.

A position of the canvas is masked with a probability p, and a masked one's cross-entropy weighs 1 / p. How p is laid
over the canvas, `Masks`, says for which ways of decoding a model is trained; how the network is run over the masked
canvas follows from its family: LLaDA's in both directions, Dream's shifted by one, SDAR's block by block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlmlab.errors import UserError
from dlmlab.model.attention import MASKED_SCORE
from dlmlab.model.llada import LLaDAModelLM
from experiments.train.data import Layout
from experiments.train.packed import Masked, Packed, pack, run_block, through_rows

LEAST_T = 0.02
"""Least share of masked positions; with fewer a row teaches next to nothing and weighs 1 / t."""
SPREAD = 0.618034
"""By which the shares of neighbouring blocks differ, modulo 1: the golden ratio's, whose multiples lie evenly."""


class Batch(NamedTuple):
    """B rows of one layout, of P + K positions, and the random numbers of their masks, all from 0 to 1."""

    ids_BL: Tensor
    prompt_B: Tensor
    answer_B: Tensor
    canvas_B: Tensor
    t_B: Tensor
    """The share of masked positions, stratified over the batch."""
    choice_B3: Tensor
    """Whether a row is masked by blocks, how long they are, and which one is active."""
    uniform_BK: Tensor


class Masks(NamedTuple):
    """Says how likely a position of the canvas is masked.

    Attributes:
        lengths: Lengths of blocks, of which a row draws one.
        block_share: The share of the rows that are as semi-autoregressive decoding sees them: nothing is masked before
            a block, that block with probability t, and all behind it; the others are masked with probability t
            everywhere.
    """

    lengths: tuple[int, ...] = ()
    block_share: float = 0.0


class Weights(NamedTuple):
    """What a position's loss weighs.

    Attributes:
        short_answer: Answers of fewer tokens weigh as much as one of this length.
        padding: The weight of the end tokens behind the first.
    """

    short_answer: int
    padding: float


class Objective(nn.Module):
    """The loss of a batch, summed, and the weight that it is summed over: their quotient is the loss.

    Args:
        model: The network.
        layouts: The layouts of rows.
        masks: How positions are masked.
        weights: What they weigh.
        room: How many positions a batch may have without its padding; rows that don't fit are left out, the first
            layout's before others.
    """

    def __init__(
        self, model: LLaDAModelLM, layouts: Sequence[Layout], masks: Masks, weights: Weights, room: int
    ) -> None:
        super().__init__()
        self.model, self.layouts, self.masks, self.weights, self.room = model, layouts, masks, weights, room
        self.longest = max(layout.positions for layout in layouts)
        self.cuda_bfloat16 = model.device.type == "cuda"
        self.run: Callable[..., Tensor] = run_block
        self.entropy: Callable[..., Tensor] = cross_entropy
        self.lengths = torch.tensor(masks.lengths or (1,), device=model.device)

    def compile(self) -> None:
        """Compile what rows go through, or blocks where the network knows them, and the head with its loss."""
        self.run = torch.compile(run_block, dynamic=False)
        for block in self.model.model.transformer["blocks"]:
            block.compile(dynamic=False)
        self.entropy = torch.compile(cross_entropy, dynamic=False)

    def forward(self, batch: Sequence[Batch]) -> tuple[Tensor, Tensor]:
        """batch: the rows of each layout."""
        rows = [self.masked(layout, each) for layout, each in zip(self.layouts, batch, strict=True)]
        with torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.cuda_bfloat16):
            if self.model.config.block_size:
                found = [self._by_blocks(*each) for each in zip(self.layouts, batch, rows, strict=True)]
                return sum(loss for loss, _ in found), sum(weight for _, weight in found)  # type: ignore[return-value]
            return self._by_rows(pack(rows[::-1], self.room, self.longest))  # what doesn't fit is last, and short

    def masked(self, layout: Layout, batch: Batch) -> Masked:
        """Return rows of a layout with their masks, and what each position's loss counts.

        Args:
            layout: The layout.
            batch: The rows with their random numbers.
        """
        config = self.model.config
        assert config.mask_token_id is not None
        position_L = torch.arange(layout.positions, device=batch.ids_BL.device)
        begin_B1 = layout.prompt - batch.prompt_B[:, None]
        real_BL = (position_L >= begin_B1) & (position_L < layout.prompt + batch.canvas_B[:, None])
        block_B = self.block_lengths(batch)
        if config.block_size:
            p_BK = blocks_apart(batch, position_L[layout.prompt :] - begin_B1, block_B)
        else:
            p_BK = self.probability(batch, position_L[: layout.canvas], block_B)
        real_BK = real_BL[:, layout.prompt :]
        masked_BK = (batch.uniform_BK < p_BK) & real_BK
        inside_BK = position_L[: layout.canvas] < batch.answer_B[:, None]
        short_B1 = (self.weights.short_answer / batch.answer_B).clamp(min=1.0)[:, None]
        weight_BK = torch.where(inside_BK, short_B1, self.weights.padding) * real_BK
        before = (layout.prompt, 0)
        token_BL = batch.ids_BL.long()
        return Masked(
            token_BL.masked_fill(F.pad(masked_BK, before), config.mask_token_id),
            token_BL,
            real_BL,
            F.pad(weight_BK, before),
            F.pad(masked_BK * weight_BK / p_BK.clamp(min=LEAST_T), before),
        )

    def _by_rows(self, packed: Packed) -> tuple[Tensor, Tensor]:
        hidden_ND = through_rows(self.model, embedded(self.model, packed.ids_N), packed, self.longest, self.run)
        shift = self.model.config.logits_shift  # what is said of a row's first position is of no canvas
        token_N, weight_N, scale_N = (each.roll(-shift) for each in (packed.token_N, packed.weight_N, packed.scale_N))
        entropy_N = self.entropy(self.model.head, hidden_ND, token_N)
        return (entropy_N * scale_N).sum(), weight_N.sum()

    def _by_blocks(self, layout: Layout, batch: Batch, rows: Masked) -> tuple[Tensor, Tensor]:
        place_BL = (
            torch.arange(layout.positions, device=batch.ids_BL.device) - (layout.prompt - batch.prompt_B)[:, None]
        )
        hidden_BLD = two_streams(self.model, rows, place_BL, self.block_lengths(batch))
        token_BK, weight_BK, scale_BK = (
            each[:, layout.prompt :] for each in (rows.token_BL, rows.weight_BL, rows.scale_BL)
        )
        entropy_BK = self.entropy(self.model.head, hidden_BLD[:, layout.prompt :], token_BK)
        return (entropy_BK * scale_BK).sum(), weight_BK.sum()

    def block_lengths(self, batch: Batch) -> Tensor:
        """Return the length of each row's blocks, (B,)."""
        count = len(self.lengths)
        return self.lengths[(batch.choice_B3[:, 1] * count).long().clamp(max=count - 1)]

    def probability(self, batch: Batch, position_K: Tensor, block_B: Tensor) -> Tensor:
        """Return how likely each position of the canvases is masked, (B, K).

        Args:
            batch: The rows with their random numbers.
            position_K: Positions, counted from the canvas's first.
            block_B: The length of each row's blocks.
        """
        t_B1 = batch.t_B[:, None]
        if not self.masks.block_share:
            return t_B1.expand(-1, len(position_K))
        blocks_B = (batch.canvas_B + block_B - 1) // block_B
        active_B1 = (batch.choice_B3[:, 2] * blocks_B).long()[:, None]
        block_BK = position_K // block_B[:, None]
        by_block_BK = torch.where(block_BK == active_B1, t_B1, (block_BK > active_B1).to(t_B1.dtype))
        return torch.where(batch.choice_B3[:, :1] < self.masks.block_share, by_block_BK, t_B1)


def blocks_apart(batch: Batch, position_BK: Tensor, block_B: Tensor) -> Tensor:
    """Return how likely each position is masked, (B, K), where blocks are filled one by one: each has its own share.

    Args:
        batch: The rows with their random numbers.
        position_BK: Positions of the canvas, counted from the row's first.
        block_B: The length of each row's blocks.
    """
    share_BK = batch.t_B[:, None] + SPREAD * (position_BK // block_B[:, None])
    return LEAST_T + (1 - LEAST_T) * share_BK.frac()


def two_streams(model: LLaDAModelLM, rows: Masked, place_BL: Tensor, block_B: Tensor) -> Tensor:
    """Return the final norm's outputs of masked rows, (B, L, D); each block sees itself and the clean ones before.

    So all blocks of a row are trained in one pass (block diffusion, arXiv:2503.09573, section 3.2).

    Args:
        model: The network.
        rows: The rows.
        place_BL: Positions counted from a row's first, where the grid of blocks begins.
        block_B: The length of each row's blocks.
    """
    length = rows.ids_BL.shape[1]
    block_BL = torch.div(place_BL, block_B[:, None], rounding_mode="floor")
    query_BL1, key_B1L = block_BL[:, :, None], block_BL[:, None, :]
    none = torch.zeros_like(query_BL1 == key_B1L)
    seen = torch.cat(
        (
            torch.cat((key_B1L <= query_BL1, none), dim=2),
            torch.cat((key_B1L < query_BL1, key_B1L == query_BL1), dim=2),
        ),
        dim=1,
    )
    seen = seen & torch.cat((rows.real_BL, rows.real_BL), dim=1)[:, None, :]
    x_BMD = embedded(model, torch.cat((rows.token_BL, rows.ids_BL), dim=1))
    bias = torch.zeros(seen.shape, dtype=x_BMD.dtype, device=x_BMD.device).masked_fill_(~seen, MASKED_SCORE)
    cos, sin = model.model.angles(x_BMD, torch.arange(length, device=x_BMD.device).repeat(2))
    for block in model.model.transformer["blocks"]:
        x_BMD = block(x_BMD, cos, sin, bias[:, None])
    normed: Tensor = model.model.transformer["ln_f"](x_BMD[:, length:])
    return normed


def embedded(model: LLaDAModelLM, ids: Tensor) -> Tensor:
    """Return embedded tokens; what they gather through the network is kept at autocast's precision, half the traffic.

    Args:
        model: The network.
        ids: Token ids, of any shape.
    """
    x: Tensor = model.model.embed(ids)
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


def cross_entropy(head: Callable[[Tensor], Tensor], hidden: Tensor, token: Tensor) -> Tensor:
    """Return each position's cross-entropy, in nats, in the shape of `token`.

    Args:
        head: Turns hidden states into logits.
        hidden: The final norm's outputs, (…, D).
        token: The right tokens' ids.
    """
    logits = head(hidden).float().flatten(0, -2)
    return F.cross_entropy(logits, token.flatten(), reduction="none").view_as(token)


def batches(
    columns: Sequence[Sequence[Tensor]],
    canvases: Sequence[int],
    sizes: Sequence[int],
    generator: torch.Generator,
    parts: Sequence[slice],
    passes: int | None = None,
) -> Iterator[list[Batch]]:
    """Yield batches, each the rows of all layouts, in a random order, pass after pass.

    A pass is as many batches as all rows fill; where a layout's rows aren't so many times its size, some of them are
    left out, or come twice.

    Args:
        columns: The columns of each layout's `Rows`.
        canvases: Positions of each layout's canvas.
        sizes: Rows of each layout in a batch.
        generator: Draws the order and the masks, on the columns' device.
        parts: What is taken of each layout's rows, for one of several processes that draw the same.
        passes: How many passes; None is without end.

    Raises:
        UserError: A layout that has a share of each batch has no rows.
    """
    for number, (of, size) in enumerate(zip(columns, sizes, strict=True)):
        if size and not len(of[0]):
            raise UserError(f"layout {number} of data.layouts has no row among these: raise data.rows, or take it out")
    device = generator.device
    turns = max(1, sum(len(of[0]) for of in columns) // sum(sizes))
    for _ in count() if passes is None else range(passes):
        orders = []
        for of, size in zip(columns, sizes, strict=True):
            order = torch.randperm(len(of[0]), generator=generator, device=device)
            orders.append(order.repeat(-(-turns * size // max(1, len(order))))[: turns * size].view(turns, size))
        for turn in range(turns):
            batch = []
            for of, order, canvas, part in zip(columns, orders, canvases, parts, strict=True):
                size = order.shape[1]
                stratum_B = torch.arange(size, device=device)
                share_B = (stratum_B + torch.rand(size, generator=generator, device=device)) / size
                choice_B3 = torch.rand(size, 3, generator=generator, device=device)
                uniform_BK = torch.rand(size, canvas, generator=generator, device=device)
                drawn = LEAST_T + (1 - LEAST_T) * share_B, choice_B3, uniform_BK
                index_B = order[turn][part]
                batch.append(Batch(*(column[index_B] for column in of), *(each[part] for each in drawn)))
            yield batch
