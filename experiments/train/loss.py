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
from dlmlab.model.attention import MASKED_SCORE, attention_bias
from dlmlab.model.llada import LLaDAModelLM
from experiments.train.data import Layout

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
    """The loss of a batch, summed, and the weight that it is summed over: their quotient is the loss."""

    def __init__(self, model: LLaDAModelLM, masks: Masks, weights: Weights, full: bool = False) -> None:
        """full: no row has padding, which makes attention faster."""
        super().__init__()
        self.model, self.masks, self.weights, self.full = model, masks, weights, full
        self.cuda_bfloat16 = model.device.type == "cuda"
        self.entropy: Callable[..., Tensor] = cross_entropy
        self.lengths = torch.tensor(masks.lengths or (1,), device=model.device)

    def compile(self) -> None:
        """Compile the network's blocks, which are alike, once for each layout, and the head with its loss."""
        for block in self.model.model.transformer["blocks"]:
            block.compile(dynamic=False)
        self.entropy = torch.compile(cross_entropy, dynamic=False)

    def forward(self, layout: Layout, batch: Batch) -> tuple[Tensor, Tensor]:
        model, config = self.model, self.model.config
        assert config.mask_token_id is not None
        position_L = torch.arange(layout.prompt + layout.canvas, device=model.device)
        begin_B = layout.prompt - batch.prompt_B
        real_BL = (position_L >= begin_B[:, None]) & (position_L < layout.prompt + batch.canvas_B[:, None])
        answer_BK = batch.ids_BL[:, layout.prompt :].long()
        block_B = self.block_lengths(batch)
        if config.block_size:
            p_BK = blocks_apart(batch, position_L[layout.prompt :] - begin_B[:, None], block_B)
        else:
            p_BK = self.probability(batch, position_L[: layout.canvas], block_B)
        real_BK = real_BL[:, layout.prompt :]
        masked_BK = (batch.uniform_BK < p_BK) & real_BK
        seen_BL = batch.ids_BL.long()
        noisy_BL = torch.cat((seen_BL[:, : layout.prompt], answer_BK.masked_fill(masked_BK, config.mask_token_id)), 1)

        inside_BK = position_L[: layout.canvas] < batch.answer_B[:, None]
        short_B1 = (self.weights.short_answer / batch.answer_B).clamp(min=1.0)[:, None]
        weight_BK = torch.where(inside_BK, short_B1, self.weights.padding) * real_BK
        with torch.autocast(model.device.type, torch.bfloat16, enabled=self.cuda_bfloat16):
            if config.block_size:
                hidden_BLD = two_streams(model, seen_BL, noisy_BL, real_BL, position_L - begin_B[:, None], block_B)
            else:
                hidden_BLD = one_stream(model, noisy_BL, None if self.full else real_BL)
            first = layout.prompt - config.logits_shift
            hidden_BKD = hidden_BLD[:, first : first + layout.canvas]
            entropy_BK = self.entropy(model.head, hidden_BKD, answer_BK)
        return (entropy_BK * masked_BK * weight_BK / p_BK.clamp(min=LEAST_T)).sum(), weight_BK.sum()

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


def one_stream(model: LLaDAModelLM, ids_BL: Tensor, real_BL: Tensor | None) -> Tensor:
    """Return the final norm's outputs, (B, L, D), of attention that sees both directions, but no padding.

    Args:
        model: The network.
        ids_BL: Token ids, masked.
        real_BL: Whether a position is no padding; None where none is.
    """
    position_L = torch.arange(ids_BL.shape[1], device=ids_BL.device)
    x_BLD = embedded(model, ids_BL)
    return through(model, x_BLD, position_L, attention_bias(real_BL, len(position_L), 0, x_BLD))


def two_streams(
    model: LLaDAModelLM, clean_BL: Tensor, noisy_BL: Tensor, real_BL: Tensor, place_BL: Tensor, block_B: Tensor
) -> Tensor:
    """Return the final norm's outputs of noisy rows, (B, L, D); each block sees itself and the clean ones before.

    So all blocks of a row are trained in one pass (block diffusion, arXiv:2503.09573, section 3.2).

    Args:
        model: The network.
        clean_BL: Token ids without masks.
        noisy_BL: The same, masked.
        real_BL: Whether a position is no padding.
        place_BL: Positions counted from a row's first, where the grid of blocks begins.
        block_B: The length of each row's blocks.
    """
    length = clean_BL.shape[1]
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
    seen = seen & torch.cat((real_BL, real_BL), dim=1)[:, None, :]
    x_BMD = embedded(model, torch.cat((clean_BL, noisy_BL), dim=1))
    bias = torch.zeros(seen.shape, dtype=x_BMD.dtype, device=x_BMD.device).masked_fill_(~seen, MASKED_SCORE)
    position_M = torch.arange(length, device=x_BMD.device).repeat(2)
    return through(model, x_BMD, position_M, bias[:, None])[:, length:]


def embedded(model: LLaDAModelLM, ids_BL: Tensor) -> Tensor:
    """Return embedded tokens; what they gather through the network is kept at autocast's precision, half the traffic.

    Args:
        model: The network.
        ids_BL: Token ids.
    """
    x_BLD: Tensor = model.model.embed(ids_BL)
    kind = x_BLD.device.type
    return x_BLD.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x_BLD


def through(model: LLaDAModelLM, x_BLD: Tensor, position_L: Tensor, bias: Tensor | None) -> Tensor:
    """Return embedded tokens after the network's blocks and its final norm, (B, L, D).

    Args:
        model: The network.
        x_BLD: Embedded tokens.
        position_L: Positions, for the rotary embedding.
        bias: What is added to attention scores, (B, 1, L, L) or what broadcasts to it; None where all is seen.
    """
    cos, sin = model.model.angles(x_BLD, position_L)
    for block in model.model.transformer["blocks"]:
        x_BLD = block(x_BLD, cos, sin, bias)
    normed: Tensor = model.model.transformer["ln_f"](x_BLD)
    return normed


def cross_entropy(head: Callable[[Tensor], Tensor], hidden_BKD: Tensor, token_BK: Tensor) -> Tensor:
    """Return each position's cross-entropy, (B, K), in nats.

    Args:
        head: Turns hidden states into logits.
        hidden_BKD: The final norm's outputs.
        token_BK: The right tokens' ids.
    """
    return F.cross_entropy(head(hidden_BKD).float().transpose(1, 2), token_BK, reduction="none")


def batches(
    columns: Sequence[Sequence[Tensor]],
    canvases: Sequence[int],
    sizes: Sequence[int],
    generator: torch.Generator,
    part: slice = slice(None),
    passes: int | None = None,
) -> Iterator[tuple[int, Batch]]:
    """Yield rows of all layouts in a random order, pass after pass, as the number of a layout and a batch of it.

    A pass's last rows of a layout, too few for a batch, are left out.

    Args:
        columns: The columns of each layout's `Rows`.
        canvases: Positions of each layout's canvas.
        sizes: Rows of a batch of each layout.
        generator: Draws the order and the masks, on the columns' device.
        part: What is taken of each batch, for one of several processes that draw the same.
        passes: How many passes; None is without end.

    Raises:
        UserError: No layout has rows enough for a batch.
    """
    device, most = generator.device, max((len(of[0]) for of in columns), default=0)
    if all(len(of[0]) < size for of, size in zip(columns, sizes, strict=True)):
        raise UserError(
            f"data.rows are too few: a batch has {min(sizes)} rows and more of one canvas, and there are at most "
            f"{most} of one: raise data.rows, or lower training.batch_size"
        )
    for _ in count() if passes is None else range(passes):
        orders = [torch.randperm(len(of[0]), generator=generator, device=device) for of in columns]
        wholes = [len(order) // size for order, size in zip(orders, sizes, strict=True)]
        turns = [(number, turn) for number, whole in enumerate(wholes) for turn in range(whole)]
        for next_ in torch.randperm(len(turns), generator=generator, device=device).tolist():
            number, turn = turns[next_]
            size = sizes[number]
            index_B = orders[number][turn * size : (turn + 1) * size][part]
            stratum_B = torch.arange(size, device=device)
            share_B = (stratum_B + torch.rand(size, generator=generator, device=device)) / size
            choice_B3 = torch.rand(size, 3, generator=generator, device=device)
            uniform_BK = torch.rand(size, canvases[number], generator=generator, device=device)
            drawn = LEAST_T + (1 - LEAST_T) * share_B, choice_B3, uniform_BK
            yield number, Batch(*(column[index_B] for column in columns[number]), *(each[part] for each in drawn))
