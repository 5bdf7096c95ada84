"""Training data: rows of a prompt and an answer as token ids, by the size of their layout."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from dlmlab.errors import UserError
from dlmlab.settings import Fraction, PositiveInt
from dlmlab.task.tiny.exercise import draw_training
from dlmlab.task.tiny.kinds import V2_KINDS as KINDS

CANVASES = (16, 32, 48, 64, 96, 128, 160, 192, 224, 256)
"""Lengths of canvases that are cut short."""
CHUNK = 2000


@dataclass(frozen=True)
class Layout:
    """A row: prompt positions, filled from the right, then canvas positions.

    Attributes:
        prompt: Positions for the prompt.
        canvas: Positions for the canvas.
        short_share: The share of the rows whose canvas is as long as the answer needs, in the steps of `CANVASES`.
        varied_share: The share of those whose canvas is any of these that holds the answer; that of the others is the
            layout's.
        passed_share: The share of the rows that fit but go to the next one with a longer canvas into which they fit, if
            there is one.
    """

    prompt: PositiveInt
    canvas: PositiveInt
    short_share: Fraction = 0.0
    varied_share: Fraction = 0.0
    passed_share: Fraction = 0.0

    @property
    def positions(self) -> int:
        return self.prompt + self.canvas


class Rows(NamedTuple):
    """N training rows of L = prompt + canvas positions."""

    ids_NL: NDArray[np.int16]
    prompt_N: NDArray[np.int16]
    """Tokens of the prompt."""
    answer_N: NDArray[np.int16]
    """Tokens of the answer, with its first end token."""
    canvas_N: NDArray[np.int16]
    """Positions of the canvas."""


Found = list[tuple[list[int], list[int]]]
"""Token ids of prompts with their frame, and of answers with an end token."""

Draw = Callable[[int], list[Rows]]
"""Returns the rows of a chunk by layout, `CHUNK` in all, given its number; can be sent to a process."""


def drawing(
    tokenizer: PreTrainedTokenizerBase, weight_of: Mapping[str, float], layouts: Sequence[Layout], seed: int
) -> Draw:
    """Return what draws the rows of a chunk, given its number, each in a layout that holds it, see `place`.

    Args:
        tokenizer: The tokenizer of the network that is trained.
        weight_of: How often each kind of exercise is drawn, by its name, relative to the others.
        layouts: The layouts, the smallest first.
        seed: The seed of the draw.
    """
    return partial(_draw_chunk, tokenizer, dict(weight_of), tuple(layouts), seed)


def _draw_chunk(
    tokenizer: PreTrainedTokenizerBase, weight_of: dict[str, float], layouts: Sequence[Layout], seed: int, chunk: int
) -> list[Rows]:
    rng = Random(f"{seed}/{chunk}")
    before, after = chat_frame(tokenizer)
    end = tokenizer.eos_token_id
    longest = max(layout.canvas for layout in layouts)
    found: list[tuple[list[int], list[int], int, int]] = []
    while len(found) < CHUNK:
        before_these = len(found)
        names = rng.choices(list(weight_of), list(weight_of.values()), k=CHUNK)
        exercises = [draw_training(KINDS[name], rng) for name in names]
        prompts = tokenizer([exercise.prompt for exercise in exercises], add_special_tokens=False)["input_ids"]
        answers = tokenizer([exercise.answer(rng) for exercise in exercises], add_special_tokens=False)["input_ids"]
        for text, reply in zip(prompts, answers, strict=True):
            prompt, answer = [*before, *text, *after], [*reply, end]
            if len(answer) > longest:
                continue
            if (fit := place(len(prompt), len(answer), layouts, rng)) is not None:
                found.append((prompt, answer, *fit))
        if len(found) == before_these:
            shortest = min(len(before) + len(text) + len(after) for text in prompts)
            raise UserError(
                f"data.layouts hold none of {CHUNK} exercises, whose prompts have {shortest} tokens and more: "
                "raise prompt"
            )
    found = found[:CHUNK]
    return [
        lay_out(
            [(prompt, answer) for prompt, answer, its, _ in found if its == number],
            [canvas for _, _, its, canvas in found if its == number],
            layout,
            end,
        )
        for number, layout in enumerate(layouts)
    ]


def emphasised(weight_of: Mapping[str, float], right: Mapping[str, float], emphasis: float) -> dict[str, float]:
    """Return weights of kinds, those raised that the network gets wrong.

    Args:
        weight_of: How often each kind is drawn, by its name.
        right: The share of a kind's exercises that are right; a kind that it doesn't name keeps its weight.
        emphasis: A kind of which nothing is right weighs 1 + this times as much.
    """
    return {name: weight * (1 + emphasis * (1 - right.get(name, 1.0))) for name, weight in weight_of.items()}


def place(prompt: int, answer: int, layouts: Sequence[Layout], rng: Random) -> tuple[int, int] | None:
    """Return the number of the layout that a row goes to, and the row's canvas; None where none holds it.

    Args:
        prompt: Tokens of the prompt with its frame.
        answer: Tokens of the answer with its end token.
        layouts: The layouts, the smallest first.
        rng: Decides whether the row is passed on, and how long its canvas is.
    """
    held = [each for each in enumerate(layouts) if prompt <= each[1].prompt and answer <= each[1].canvas]
    while held:
        number, layout = held[0]
        held = [each for each in held if each[1].canvas > layout.canvas]
        if not held or rng.random() >= layout.passed_share:
            return number, _canvas(answer, layout, rng)
    return None


def _canvas(answer: int, layout: Layout, rng: Random) -> int:
    share = rng.random()
    held = [canvas for canvas in CANVASES if answer <= canvas <= layout.canvas] or [layout.canvas]
    if share < layout.short_share:
        return held[0]
    return rng.choice(held) if share < layout.short_share + layout.varied_share else layout.canvas


def lay_out(found: Found, canvases: Sequence[int], layout: Layout, end: int) -> Rows:
    """Return rows of token ids; what is behind an answer holds the end token, as do places before a prompt.

    Args:
        found: The token ids of N prompts and answers, which fit the layout.
        canvases: The positions of each one's canvas.
        layout: The layout.
        end: The end token's id.
    """
    ids_NL = np.full((len(found), layout.positions), end, dtype=np.int16)
    for row, (prompt, answer) in enumerate(found):
        ids_NL[row, layout.prompt - len(prompt) : layout.prompt] = prompt
        ids_NL[row, layout.prompt : layout.prompt + len(answer)] = answer
    lengths = np.array([[len(prompt), len(answer)] for prompt, answer in found], dtype=np.int16).reshape(-1, 2)
    return Rows(ids_NL, lengths[:, 0], lengths[:, 1], np.array(canvases, dtype=np.int16))


def chat_frame(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Return the token ids that the chat template puts before and after a user's message."""
    text: Any = tokenizer.apply_chat_template(
        [{"role": "user", "content": "?"}], add_generation_prompt=True, tokenize=False
    )
    before, after = str(text).split("?")
    ids = tokenizer([before, after], add_special_tokens=False)["input_ids"]
    return ids[0], ids[1]
