"""Rows of Sudoku, and the tokenizer that has a token for every cell with its digit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from dlmlab.decoder.baseline import Baseline
from dlmlab.decoder.margin import Margin
from dlmlab.generation import generate
from dlmlab.settings import PositiveInt
from dlmlab.task.sudoku9.content import draw
from dlmlab.task.sudoku9.grid import CELLS, SIDE, solved_by, varied
from dlmlab.task.sudoku9.task import LETTERS, prompt
from experiments.train.data import CHUNK, Draw, Rows

BOS, EOS, EOT, MASK = "<|startoftext|>", "<|endoftext|>", "<|eot_id|>", "<|mdm_mask|>"
TEMPLATE = (
    "{% for message in messages %}{{ bos_token if loop.first }}{{ message['content'] | trim }}<|eot_id|>{% endfor %}"
)
FRAME = 2
"""Tokens of a prompt beside its cells."""


@dataclass(frozen=True)
class Puzzles:
    """Which puzzles are trained on: those of `fewest` to `most` clues, each in so many of its symmetric forms."""

    fewest: PositiveInt
    most: PositiveInt
    forms: PositiveInt


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of words: a digit, or a cell with its digit."""
    digits = [str(digit) for digit in range(1, SIDE + 1)]
    cells = [f"{letter}{column}={digit}" for letter in LETTERS for column in digits for digit in ("0", *digits)]
    words = {word: number for number, word in enumerate((EOS, BOS, EOT, MASK, *digits, *cells))}
    tokenizer = Tokenizer(WordLevel(words, unk_token=EOS))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=EOS,
        mask_token=MASK,
        additional_special_tokens=[EOT],
        chat_template=TEMPLATE,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )


def drawing(tokenizer: PreTrainedTokenizerBase, puzzles: Mapping[str, Any], seed: int) -> Draw:
    """Return what draws the rows of a chunk, given its number: puzzles of the training side, in their symmetric forms.

    Args:
        tokenizer: The tokenizer of `make_tokenizer`.
        puzzles: The fields of `Puzzles`, by name.
        seed: The seed of the draw.
    """
    return partial(_draw_chunk, tokenizer, dict(puzzles), seed)


def _draw_chunk(tokenizer: PreTrainedTokenizerBase, puzzles: dict[str, Any], seed: int, chunk: int) -> list[Rows]:
    forms = puzzles["forms"]
    found = draw(-(-CHUNK // forms), (puzzles["fewest"], puzzles["most"]), False, f"{seed}/{chunk}")
    rng = np.random.default_rng([seed, chunk])
    repeated = [np.repeat(each, forms, axis=0)[:CHUNK] for each in found]
    puzzle_NC, solution_NC = varied(repeated[0], repeated[1], rng)
    words = tokenizer.get_vocab()
    first_digit, first_cell = (words[word] for word in ("1", "A1=0"))
    bos, eot = (words[word] for word in (BOS, EOT))
    ids_NL = np.empty((CHUNK, FRAME + 2 * CELLS), dtype=np.int16)
    ids_NL[:, 0], ids_NL[:, CELLS + 1] = bos, eot
    ids_NL[:, 1 : CELLS + 1] = first_cell + (SIDE + 1) * np.arange(CELLS) + puzzle_NC
    ids_NL[:, CELLS + FRAME :] = first_digit + solution_NC - 1
    prompt_N, cells_N = (np.full(CHUNK, length, dtype=np.int16) for length in (CELLS + FRAME, CELLS))
    return [Rows(ids_NL, prompt_N, cells_N, cells_N)]


def held_out_accuracy(
    model: Any, puzzles: Mapping[str, Any], count: int, batch_size: int, seed: int
) -> dict[str, float]:
    """Return the share of held-out puzzles that are solved, by the decoder, one token a step.

    Args:
        model: The model, with its tokenizer.
        puzzles: The fields of `Puzzles`, by name; `forms` plays no part.
        count: How many puzzles.
        batch_size: Canvases that go through the model at once.
        seed: The seed of the draw.
    """
    found, _ = draw(count, (puzzles["fewest"], puzzles["most"]), True, f"progress/{seed}")
    texts = ["".join(map(str, each)) for each in found]
    right = {}
    for name, rule in (("baseline", Baseline()), ("margin", Margin())):
        asked = [prompt(text) for text in texts]
        outputs = generate(model, asked, rule, gen_length=CELLS, steps=CELLS, batch_size=batch_size)
        grids = [(output.text or "").replace(" ", "") for output in outputs]
        right[name] = sum(map(solved_by, texts, grids)) / count
    return right
