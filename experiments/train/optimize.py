"""The optimisation of a network on rows: by the clock or by steps, on one device or several, from where it was left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dlmlab.errors import UserError
from dlmlab.loop.interrupt import asked, finishing
from dlmlab.model.llada import LLaDAModelLM
from experiments.train.data import Layout, Rows
from experiments.train.distributed import agreed, rank, say, world
from experiments.train.loss import Batch, Masks, Objective, Weights, batches
from experiments.train.muon import Muon
from experiments.train.state import Progress, load, save
from experiments.train.step import Steps

LOG_EVERY = 200
ROOM = 128
"""Positions that a batch has room for are a multiple of this, since products are fastest so."""


@dataclass(frozen=True)
class Hooks:
    """What a training calls on its way.

    Attributes:
        measure: With the step, at the shares of the way that `training.measure_at` lists; its time doesn't count.
        checkpoint: Whenever the state has been kept.
        ready: Before the first step, when all is compiled; returns the seconds that stand in for
            `training.seconds`, or None.
    """

    measure: Callable[[int], None] = lambda step: None
    checkpoint: Callable[[], None] = lambda: None
    ready: Callable[[], float | None] = lambda: None


class Data(NamedTuple):
    """Rows of one round by layout."""

    layouts: Sequence[Layout]
    rows: Sequence[Rows]

    def sizes(self, batch_size: int) -> list[int]:
        """Return the rows of each layout in a batch of `batch_size`, about in proportion to how many there are."""
        counts = [len(each.ids_NL) for each in self.rows]
        return [max(1, round(batch_size * count / sum(counts))) if count else 0 for count in counts]

    def room(self, sizes: Sequence[int]) -> int:
        """Return for how many positions, without padding, each process's part of a batch has room.

        One batch in a thousand of this round has a row or two more, which are left out.

        Args:
            sizes: Rows of each layout in a batch.
        """
        mean, variance = 0.0, 0.0
        for rows, size in zip(self.rows, sizes, strict=True):
            if own := -(-size // world()):  # of the process that has one more
                lengths = rows.prompt_N.astype(float) + rows.canvas_N
                mean, variance = mean + own * lengths.mean(), variance + own * lengths.var()
        return -(-int(mean + 3 * variance**0.5 + 1) // ROOM) * ROOM

    @property
    def parts(self) -> list[slice]:
        """Return which rows of a batch are this process's, by layout; who has one more differs from one to the next."""
        return [slice((rank() + number) % world(), None, world()) for number in range(len(self.layouts))]

    def drawn(
        self, sizes: Sequence[int], generator: torch.Generator, passes: int | None = None
    ) -> Iterator[list[Batch]]:
        """Yield batches, this process's part of each, see `batches`.

        Args:
            sizes: Rows of each layout in a batch, of all processes together.
            generator: Draws the order and the masks; rows are put on its device.
            passes: How often all rows are gone through; None is without end.
        """
        columns = [[torch.from_numpy(column).to(generator.device) for column in each] for each in self.rows]
        canvases = [layout.canvas for layout in self.layouts]
        return batches(columns, canvases, sizes, generator, self.parts, passes)


class Source(NamedTuple):
    """Where batches come from.

    Attributes:
        layouts: The layouts of rows.
        rounds: Returns a round's rows by layout, given its number.
        passes: How often a round is gone through before the next; None is without end.
        seed: The seed of the rows' order and of the masks.
    """

    layouts: Sequence[Layout]
    rounds: Callable[[int], Sequence[Rows]]
    passes: int | None
    seed: int

    def round(self, number: int) -> Data:
        """Return a round, with a line that says how many rows it has."""
        data = Data(self.layouts, self.rounds(number))
        say(f"round {number}, rows by layout: {[len(each.ids_NL) for each in data.rows]}")
        return data

    def drawn(self, data: Data, generator: torch.Generator, so_far: Progress) -> Iterator[list[Batch]]:
        """Yield batches from where a training stands, and bring it up to date from round to round.

        Args:
            data: The round that it is in.
            generator: Draws the order and the masks; seeded anew for each round.
            so_far: Where the training stands.
        """
        behind = so_far.step - so_far.round_began
        while True:
            generator.manual_seed(self.seed + so_far.round)
            yield from islice(data.drawn(so_far.sizes, generator, self.passes), behind, None)
            so_far.round, so_far.round_began, behind = so_far.round + 1, so_far.step + 1, 0
            data = self.round(so_far.round)


def fit(
    model: LLaDAModelLM,
    source: Source,
    training: Mapping[str, Any],
    hooks: Hooks,
    so_far: Progress,
    state: Path,
) -> None:
    """Optimise until the steps or the seconds are used up, from where the file `state` says that it was left.

    Args:
        model: The network, on its device.
        source: Where batches come from.
        training: The recipe's part of that name, see conf/experiment/train/.
        hooks: What is called on the way.
        so_far: Is brought up to date; losses every LOG_EVERY steps.
        state: The file that keeps the state.

    Raises:
        KeyboardInterrupt: The user has asked for an end; the state is kept.
        UserError: The loss or the weights are not finite; the last state before is kept.
    """
    device, cuda = model.device, model.device.type == "cuda"
    optimizers = make_optimizers(model, training["muon"], training["adamw"])
    if kept := load(state, model, optimizers):
        vars(so_far).update(vars(kept))
        say(f"going on at step {so_far.step}")
    data = source.round(so_far.round)
    so_far.sizes = so_far.sizes or data.sizes(training["batch_size"])
    masks = Masks(tuple(training["block_lengths"]), training["block_share"])
    weights = Weights(training["short_answer"], training["padding_weight"])
    if so_far.processes != world():
        so_far.processes, so_far.room = world(), data.room(so_far.sizes)
    objective = Objective(model, source.layouts, masks, weights, so_far.room)
    first, behind = so_far.step, so_far.elapsed
    model.train(True)
    generator = torch.Generator(device)
    if cuda:
        torch.set_float32_matmul_precision("high")
        torch.backends.cuda.enable_cudnn_sdp(False)  # whose gradients of 64 positions with a bias were NaN at times
        objective.compile()
        warm_up(objective, next(data.drawn(so_far.sizes, generator)))
    seconds = hooks.ready() or training["seconds"]
    drawn, loss = source.drawn(data, generator, so_far), torch.zeros((), device=device)
    take_step = Steps(objective, optimizers, recorded=cuda)
    with finishing():
        for step, batch in enumerate(drawn, first):
            if step <= first + 1:
                began = time.perf_counter() - behind  # the first step fills the allocator
            elapsed = agreed(time.perf_counter() - began)
            so_far.step, so_far.elapsed = step, elapsed
            done = max(step / training["steps"], elapsed / seconds if seconds else 0.0)
            if done >= 1:
                check_finite(model, loss, step)
                break
            due = bool(so_far.ahead) and done >= so_far.ahead[0]
            if asked() or due or (step > first and step % training["checkpoint_every"] == 0):
                check_finite(model, loss, step)
                keep(state, model, optimizers, so_far, hooks)
            if asked():
                break
            if due:
                so_far.ahead.pop(0)
                hooks.measure(step)
                began = time.perf_counter() - elapsed
            set_rate(optimizers, step, done, training["warmup_steps"], training["constant_share"])
            loss = take_step(batch)
            if step % LOG_EVERY == 0:
                check_finite(model, loss, step)
                so_far.losses.append(loss.item())
                say(f"step {step}, {elapsed:.0f} s: loss {so_far.losses[-1]:.3f}")


def warm_up(objective: Objective, batch: Sequence[Batch]) -> None:
    """Run a batch forth and back, so that all is compiled before the clock begins.

    Args:
        objective: The loss of a batch.
        batch: The rows of each layout.
    """
    objective(batch)[0].backward()
    for parameter in objective.parameters():
        parameter.grad = None
    say("compiled")


def check_finite(model: LLaDAModelLM, loss: Tensor, step: int) -> None:
    """Raise UserError for a loss that is not finite, or weights that aren't, which a finite loss may have led to.

    Args:
        model: The network, after the last step.
        loss: The last step's.
        step: The step that is named.
    """
    if not torch.stack([each.isfinite().all() for each in (loss, *model.parameters())]).all():
        raise UserError(
            f"the loss or the weights are not finite by step {step}: what was kept before stays; lower "
            "training.muon.lr and training.adamw.lr"
        )


def keep(
    state: Path, model: LLaDAModelLM, optimizers: Sequence[torch.optim.Optimizer], so_far: Progress, hooks: Hooks
) -> None:
    """Write the state, in one of the processes.

    Args:
        state: The file that keeps it.
        model: The network.
        optimizers: Its optimisers.
        so_far: Where the training stands.
        hooks: Of these `checkpoint` is called afterwards.
    """
    if rank() == 0:
        save(state, model, optimizers, so_far)
        hooks.checkpoint()


def make_optimizers(
    model: LLaDAModelLM, muon: Mapping[str, Any], adamw: Mapping[str, Any]
) -> list[torch.optim.Optimizer]:
    """Return Muon for the matrices inside the blocks, AdamW for embedding, head, norms and biases.

    Args:
        model: The network.
        muon: Muon's settings: `lr`, `momentum` and `weight_decay`.
        adamw: AdamW's, by torch's names.
    """
    named = list(model.named_parameters())
    inside = [parameter for name, parameter in named if ".blocks." in name and parameter.ndim == 2]
    outside = [parameter for name, parameter in named if ".blocks." not in name or parameter.ndim != 2]
    cuda = model.device.type == "cuda"
    optimizers = [Muon(inside, **muon), torch.optim.AdamW(outside, **adamw, fused=cuda, capturable=cuda)]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["full_lr"] = group["lr"]
            group["lr"] = torch.tensor(group["lr"], device=model.device)  # where a recorded step finds it
    return optimizers


def set_rate(
    optimizers: Sequence[torch.optim.Optimizer], step: int, done: float, warmup_steps: int, constant_share: float
) -> None:
    """Set learning rates: a linear warm-up, the full rate for a share of the way, then linearly to zero.

    Args:
        optimizers: The optimisers; `full_lr` of each group is its full rate, and `lr` a tensor that takes the rate.
        step: The step, from 0.
        done: The share of the way that is behind, by steps or by the clock.
        warmup_steps: The steps of the warm-up.
        constant_share: The share of the way before the rate falls.
    """
    rate = min(1.0, (step + 1) / warmup_steps, (1 - done) / (1 - constant_share))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"].fill_(group["full_lr"] * rate)
