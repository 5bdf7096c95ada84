"""A request under way: its canvas, how far its schedule is, its randomness."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlmlab.denoiser import Denoiser
from dlmlab.errors import UserError
from dlmlab.loop.canvases import Window
from dlmlab.policy import FeatureReuse, Plan, View
from dlmlab.types import CONFIDENCE_DTYPES, Generation, Output, Request, TraceStep


def grows(generation: Generation, config: Any) -> bool:
    """Return whether blocks are appended one by one: as the settings say, else as the model's family has it.

    Args:
        generation: How canvases are laid out, scheduled and scored.
        config: The model's, which names its family's own canvas.
    """
    return bool((generation.canvas or getattr(config, "canvas", "fixed")) == "growing")


def blockwise(generation: Generation, config: Any) -> bool:
    """Return whether blocks are appended one by one, or lie on a grid that the prompt shares.

    Args:
        generation: How canvases are laid out, scheduled and scored.
        config: The model's.
    """
    return grows(generation, config) or bool(getattr(config, "block_size", 0))


def laid_out(prompt: int, generation: Generation, config: Any) -> tuple[int, int]:
    """Return where a row's first block begins and its last one ends.

    Where attention is block-causal, blocks lie on a grid that begins with the row, so that the first one may be partly
    prompt.

    Args:
        prompt: Tokens of the prompt.
        generation: How canvases are laid out, scheduled and scored.
        config: The model's, which may have a grid of blocks.
    """
    length, end = generation.block_length, prompt + generation.gen_length
    start = prompt // length * length if getattr(config, "block_size", 0) else prompt
    return start, start - (start - end) // length * length


class Row:
    """One canvas being filled. It lives on the host; only what one step needs goes to the device."""

    def __init__(self, request: Request, generation: Generation, model: Denoiser, seed: int):
        self.request, self.generation = request, generation
        self.mask_token: int = model.config.mask_token_id
        self.start, total = laid_out(len(request.prompt), generation, model.config)
        masks = [self.mask_token] * (total - len(request.prompt))
        self.tokens = np.array([*request.prompt, *masks], dtype=np.int64)
        self.end = self.start + generation.block_length
        self.grows = grows(generation, model.config)
        self.seen = self.end if self.grows else total
        self.step_of = np.zeros(total, dtype=np.int64)
        self.forwards = self.step = self.positions = self.skipped = self.unasked = 0
        self.layers: int = getattr(model.config, "n_layers", 1)
        self.end_tokens = model.end_token_ids if generation.stop_at_end or self.grows else ()
        self.state: tuple[Tensor, ...] | None = None
        self.trace: list[TraceStep] = []
        self.like = torch.empty(0, dtype=CONFIDENCE_DTYPES[generation.confidence_dtype], device=model.device)
        self.seed = [seed, request.index if request.item is None else request.item]
        self.shifted: bool = getattr(model.config, "logits_shift", False)
        self.store: Any = None
        self.beside = self.width if request.rule.shadows else 0
        self.copies = 2 if generation.cfg_scale else 1
        self.scheduled = self.reviews = self.left = self.most_masks = 0
        self.drafts: list[np.ndarray] = []
        self._count()
        self._schedule()
        self.plan: Plan | None = None
        self.plan = self._plan_after(0)

    @cached_property
    def generator(self) -> torch.Generator:
        """Return the row's own source of randomness, which no other row's draws change."""
        [own_seed] = np.random.SeedSequence(self.seed).generate_state(1, np.uint64)
        return torch.Generator(self.like.device).manual_seed(int(own_seed >> 1))

    @property
    def block(self) -> np.ndarray:
        """Return the active block's tokens, a view."""
        return self.tokens[self.start : self.end]

    @property
    def first(self) -> int:
        """Return the first of the K positions that the rule sees: the active block's, or the canvas's."""
        return len(self.request.prompt) if self.request.rule.sees_canvas else self.start

    @cached_property
    def width(self) -> int:
        """Return K, the number of positions that the rule sees."""
        return self.generation.gen_length if self.request.rule.sees_canvas else self.generation.block_length

    @property
    def active(self) -> np.ndarray:
        """Return whether each of the K positions that the rule sees belongs to the active block, (K,)."""
        position_K = self.first + np.arange(self.width)
        active_K: np.ndarray = (self.start <= position_K) & (position_K < self.end)
        return active_K

    @property
    def progress(self) -> float:
        """Return the row's passes, with the one that comes now, as a fraction of those that are scheduled."""
        return (self.forwards + 1) / self.generation.steps

    @property
    def windows(self) -> list[Window]:
        """Return the row as the next pass sees it, and its drafts."""
        own = self.window
        drafts = []
        for draft_K in self.drafts:
            tokens = own.tokens.copy()
            np.copyto(tokens[self.first : self.first + len(draft_K)], draft_K, where=draft_K >= 0)
            drafts.append(own._replace(tokens=tokens))
        return [own, *drafts]

    @property
    def window(self) -> Window:
        """Return the row as the next pass sees it, without drafts."""
        tokens = self.tokens[: self.seen] if self.plan is None else self.tokens
        generator = self.generator if self.draws else None
        return Window(tokens, self.first, generator, self.plan, self.store, len(self.request.prompt))

    @property
    def following(self) -> Window:
        """Return the row as the pass after the one under way sees it, but for what that commits; see `foreseen`."""
        return self.window._replace(plan=self._plan_after(1))

    def view(self, passes: int = 0) -> View:
        """Return the row as a cache's policy sees it.

        Args:
            passes: So many passes later, if they were to commit nothing.
        """
        prompt, forwards = len(self.request.prompt), self.forwards + passes
        tokens = self.tokens[: self.seen] if self.grows else self.tokens
        committed_L = np.where(tokens == self.mask_token, forwards, self.step_of[: len(tokens)])
        committed_L[:prompt] = -1
        return View(prompt, self.start, self.end, self.step + passes, forwards, committed_L, self.plan, self.seed)

    @property
    def length(self) -> int:
        """Return how many positions the next pass computes of each of the row's canvases."""
        return self.seen + self.beside if self.plan is None else int(self.plan.computed.sum())

    @property
    def computed(self) -> int:
        """Return how many positions the next pass computes for the row."""
        return self.length * (1 + len(self.drafts)) * self.copies

    @property
    def foreseen(self) -> bool:
        """Return whether it is known what the pass after the one under way computes, unless the block is full then."""
        rule, cache = self.request.rule, self.request.cache
        unsteady = rule.cuts or rule.edits or rule.shadows or rule.drafts or rule.attends
        if unsteady or cache is None or not self.request.cached:
            return not unsteady
        return not rule.sees_canvas and cache.steady

    @property
    def plan_changes(self) -> bool:
        """Return whether the pass after the one under way computes other positions, where that is foreseen."""
        return self.plan is not None and self.step == 0

    @property
    def computed_block(self) -> np.ndarray:
        """Return which of the K positions that the rule sees the next pass computes, (K,)."""
        if self.plan is None:
            return np.ones(self.width, dtype=bool)
        part = self.plan.computed[self.first : self.first + self.width]
        return np.pad(part, (0, self.width - len(part)))

    @property
    def begun(self) -> bool:
        """Return whether the row has been through a pass."""
        return self.forwards > 0

    @property
    def finished(self) -> bool:
        """Return whether the canvas is full."""
        return self.start == len(self.tokens)

    @cached_property
    def draws(self) -> bool:
        """Return whether the row's randomness plays a part."""
        return self.generation.temperature > 0 or self.request.rule.needs_noise

    @cached_property
    def shareable(self) -> bool:
        """Return whether the row's proposals depend on its canvas and block alone."""
        rule = self.request.rule
        more = rule.needs_logits or rule.everywhere or rule.drafts
        return not (self.generation.temperature or more or self.request.cached)

    @property
    def memoisable(self) -> bool:
        """Return whether the tokens and confidences of a proposal are all that the row's rule sees of it."""
        return self.shareable and self.request.rule.memoisable

    @property
    def key(self) -> bytes:
        """Return bytes that are equal for shareable rows whose proposals are equal."""
        return self.first.to_bytes(8, "little") + self.tokens[: self.seen].tobytes()

    def noise(self) -> Tensor:
        """Draw K uniform numbers, (K,), from the request's own source."""
        return torch.rand(self.width, generator=self.generator, device=self.generator.device)

    def state_for(self, model: Denoiser) -> tuple[Tensor, ...]:
        """Return the rule's state after the last step; its initial state where a block begins."""
        if self.state is None:
            rule = self.request.rule
            return rule.initial_state(self.width, model.config.padded_vocab_size, self.like)
        return self.state

    def commit(
        self, change_K: np.ndarray, state: tuple[Tensor, ...], taken: int = 1, drafts: Iterable[np.ndarray] = ()
    ) -> None:
        """Write new tokens; when the active block is full, go to the next that isn't.

        Args:
            change_K: The new tokens at the positions that the rule sees; -1 where nothing changes.
            state: The rule's new state.
            taken: The steps of the schedule that this makes.
            drafts: The drafts of the next pass, as `dlmlab.rule.Decision` tells of them, each (K,).
        """
        changed_K, full, rule = change_K >= 0, not self.left, self.request.rule
        first = self.first
        last = first + len(change_K)
        self.scheduled = self.quotas(taken)[1] if rule.drafts else self.scheduled + 1
        self.positions += self.computed
        np.copyto(self.tokens[first:last], change_K, where=changed_K)
        np.copyto(self.step_of[first:last], self.forwards, where=changed_K)
        self.left = self._masks(self.start, self.end)
        if full:
            self.reviews += 1
        else:
            self.most_masks -= 1
        if (masks := self._masks(first, last) if rule.sees_canvas else self.left) > self.most_masks:
            raise UserError(
                f"{rule} left {masks} masks at step {self.step} of a block, where there may be {self.most_masks}: each "
                "step has to commit at least one position more than it masks again"
            )
        self.forwards += 1
        self.step += 1
        self.state = state
        if not self.left:
            settled = full and (not changed_K.any() or self.reviews == rule.post_steps)
            while (settled or not rule.edits) and not (self.left or self.finished):
                self._next_block()
        if rule.drafts:
            in_block = np.flatnonzero(self.block == self.mask_token) + self.start - self.first
            self.drafts = [draft_K for draft_K in drafts if 0 < (draft_K[in_block] >= 0).sum() < len(in_block)]
        if not self.finished:
            self._schedule()
        if self.plan is not None:
            self.skipped += self.plan.hook.skipped if isinstance(self.plan.hook, FeatureReuse) else 0
            self.plan = self._plan_after(0)

    def _schedule(self) -> None:
        """Go to the schedule's next step that commits something; those before it would leave the canvas as it is."""
        seed = (*self.seed, self.start)
        while not (quota := self.generation.quota(self.scheduled, self.left, seed)):
            self.scheduled += 1
        self.quota = quota

    def _count(self) -> None:
        """Count the masks of a block that begins; every pass has to leave fewer than it may have had."""
        self.left = self._masks(self.start, self.end)
        sees_canvas = self.request.rule.sees_canvas
        self.most_masks = self._masks(self.first, self.first + self.width) if sees_canvas else self.left

    def _masks(self, start: int, end: int) -> int:
        return int(np.count_nonzero(self.tokens[start:end] == self.mask_token))

    def quotas(self, count: int) -> tuple[list[int], int]:
        """Return what the schedule asks for at the next steps that commit something, and the step that follows them.

        Where the block is full by then a step asks for nothing.
        """
        left, step, found = self.left, self.scheduled, list[int]()
        for _ in range(count):
            quota = 0
            while left and not quota:
                quota = min(left, self.generation.quota(step, left, (*self.seed, self.start)))
                step += 1
            found.append(quota)
            left -= quota
        return found, step

    def _next_block(self) -> None:
        ended = self.end_tokens and self._ended()
        self.start, self.step, self.scheduled, self.reviews = self.end, 0, 0, 0
        self.end = min(self.start + self.generation.block_length, len(self.tokens))
        self.seen = self.end if self.grows else len(self.tokens)
        if not self.request.rule.sees_canvas:
            self.state = None
        if ended and self.grows:
            self.tokens, self.step_of = self.tokens[: self.start], self.step_of[: self.start]
        elif ended:
            left_L = self.tokens[self.start :] == self.mask_token
            self.unasked = int(left_L.sum())
            self.tokens[self.start :][left_L] = self.end_tokens[0]
            self.step_of[self.start :][left_L] = self.forwards - 1
            self.start = len(self.tokens)
        self._count()

    def _ended(self) -> bool:
        """Return whether the block holds an end token of the answer."""
        answer = self.tokens[max(self.start, len(self.request.prompt)) : self.end]
        return bool(np.isin(answer, self.end_tokens).any())

    def output(self) -> Output:
        """Return the canvas as it is, and what it took."""
        answer = slice(len(self.request.prompt), len(self.request.prompt) + self.generation.gen_length)
        return Output(
            self.request.index,
            self.tokens[answer].tolist(),
            self.forwards,
            self.step_of[answer].tolist(),
            trace=tuple(self.trace),
            positions=self.positions,
            full_passes=(self.positions - self.skipped * (1 - 1 / self.layers)) / len(self.tokens),
            unasked=self.unasked,
        )

    def _plan_after(self, passes: int) -> Plan | None:
        if self.request.cache is None or not self.request.cached or self.finished:
            return None
        view = self.view(passes)
        plan = self.request.cache.plan(view)
        if self.shifted:
            plan = with_left(plan, view)
        if self.grows:  # nothing is kept yet of what lies behind
            seen_L = np.ones(self.seen, dtype=bool) if plan.visible is None else plan.visible
            plan = plan._replace(visible=np.pad(seen_L, (0, len(self.tokens) - len(seen_L))))
        return plan


def with_left(plan: Plan, view: View) -> Plan:
    """Return a plan for a model whose prediction for a position comes from the one to the left of it.

    Args:
        plan: What a policy has planned.
        view: What it has seen.
    """
    left_L = np.append(plan.computed[1:] & view.block[1:], False)
    return plan._replace(computed=plan.computed | left_L)
