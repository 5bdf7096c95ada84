"""The tiny model's training data: exercises by weight, as token ids."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from random import Random
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from dlmlab.task.tiny.choice import QUESTIONS, Lookup
from dlmlab.task.tiny.code import FUNCTIONS
from dlmlab.task.tiny.exercise import Exercise, draw_training
from dlmlab.task.tiny.open_prompt import MANY_ANSWERS, ONE_ANSWER

HELD_OUT_KINDS: tuple[type[Exercise], ...] = (*QUESTIONS, *FUNCTIONS, *ONE_ANSWER, *MANY_ANSWERS)
TRAINED_KINDS: tuple[type[Exercise], ...] = (*HELD_OUT_KINDS, Lookup)
KINDS = {kind.__name__: kind for kind in TRAINED_KINDS}
SHORT_CANVASES = (16, 32, 48)
CHUNK = 2000


class Layout(NamedTuple):
    """A row: prompt positions, filled from the right, then canvas positions; some canvases are cut short."""

    prompt: int
    canvas: int
    short_share: float


class Rows(NamedTuple):
    """N training rows of L = prompt + canvas positions."""

    ids_NL: NDArray[np.int16]
    prompt_N: NDArray[np.int16]
    """Tokens of the prompt."""
    answer_N: NDArray[np.int16]
    """Tokens of the answer, with its first end token."""
    canvas_N: NDArray[np.int16]
    """Positions of the canvas."""


def make_rows(
    tokenizer: PreTrainedTokenizerBase,
    weight_of: Mapping[str, float],
    layout: Layout,
    rows: int,
    seed: int,
    workers: int,
) -> Rows:
    """Draw rows in several processes. A row depends on the seed and its position alone, not on how many draw."""
    chunks = -(-rows // CHUNK)
    draw = partial(_draw_chunk, tokenizer, dict(weight_of), layout, seed)
    if workers == 1:
        parts = [draw(chunk) for chunk in range(chunks)]
    else:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            parts = list(pool.map(draw, range(chunks), chunksize=8))
    return Rows(*(np.concatenate(column)[:rows] for column in zip(*parts, strict=True)))


def _draw_chunk(
    tokenizer: PreTrainedTokenizerBase, weight_of: dict[str, float], layout: Layout, seed: int, chunk: int
) -> Rows:
    rng = Random(f"{seed}/{chunk}")
    before, after = _chat_frame(tokenizer)
    end = tokenizer.eos_token_id
    found: list[tuple[list[int], list[int]]] = []
    while len(found) < CHUNK:
        kinds = rng.choices(list(weight_of), list(weight_of.values()), k=CHUNK)
        exercises = [draw_training(KINDS[kind], rng) for kind in kinds]
        prompts = tokenizer([exercise.prompt for exercise in exercises], add_special_tokens=False)["input_ids"]
        answers = tokenizer([exercise.answer(rng) for exercise in exercises], add_special_tokens=False)["input_ids"]
        for prompt, answer in zip(prompts, answers, strict=True):
            if len(before) + len(prompt) + len(after) <= layout.prompt and len(answer) < layout.canvas:
                found.append(([*before, *prompt, *after], [*answer, end]))
    found = found[:CHUNK]
    ids_NL = np.full((CHUNK, layout.prompt + layout.canvas), end, dtype=np.int16)
    for row, (prompt, answer) in enumerate(found):
        ids_NL[row, layout.prompt - len(prompt) : layout.prompt] = prompt
        ids_NL[row, layout.prompt : layout.prompt + len(answer)] = answer
    canvases = [_canvas(len(answer), layout, rng) for _, answer in found]
    lengths = np.array([[len(prompt), len(answer)] for prompt, answer in found], dtype=np.int16)
    return Rows(ids_NL, lengths[:, 0], lengths[:, 1], np.array(canvases, dtype=np.int16))


def _canvas(answer: int, layout: Layout, rng: Random) -> int:
    if rng.random() < layout.short_share:
        return next((short for short in SHORT_CANVASES if answer <= short <= layout.canvas), layout.canvas)
    return layout.canvas


def _chat_frame(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Return the token ids that the chat template puts before and after a user's message."""
    text = str(
        tokenizer.apply_chat_template([{"role": "user", "content": "?"}], add_generation_prompt=True, tokenize=False)
    )
    before, after = text.split("?")
    ids = tokenizer([before, after], add_special_tokens=False)["input_ids"]
    return ids[0], ids[1]
