"""The tiny models' tokenizer: byte-level BPE trained on the text that the project generates.

Lossless on any text. The numbers 0 to 100 are one token each, with and without a space before them, and so is a line
break with the indentation after it. Special tokens and chat template are LLaDA's, or those that Dream and SDAR have of
Qwen.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from random import Random

from tokenizers import Regex, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from dlmlab.task.tiny.exercise import draw_training
from dlmlab.task.tiny.kinds import V2_KINDS as KINDS

BOS, EOS, EOT, MASK = "<|startoftext|>", "<|endoftext|>", "<|eot_id|>", "<|mdm_mask|>"
ROLE_START, ROLE_END = "<|start_header_id|>", "<|end_header_id|>"
SPECIAL = [EOS, BOS, EOT, ROLE_START, ROLE_END, MASK]

PIECES = r"\n+ *| ?\p{L}+| ?\p{N}{1,3}| ?[^\s\p{L}\p{N}]+| +|\s"
"""Line breaks with their indentation, words, numbers and punctuation, each with one space before it; bare spaces."""

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ bos_token if loop.first }}"
    f"{ROLE_START}{{{{ message['role'] }}}}{ROLE_END}\n\n{{{{ message['content'] | trim }}}}{EOT}"
    "{% endfor %}"
    f"{{{{ '{ROLE_START}assistant{ROLE_END}\n\n' if add_generation_prompt else eos_token }}}}"
)
CHATML = {EOT: "<|im_end|>", ROLE_START: "<|im_start|>", MASK: "<|mask|>"}
"""What Qwen's relatives call special tokens of LLaDA's."""
CHATML_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] | trim }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CELLS = "cells"
TEMPLATES = ("llada", "chatml", CELLS)
"""Whose special tokens and chat template a tokenizer has; that of cells is Sudoku's."""


def train_tokenizer(vocab_size: int, samples: int, seed: int, kinds: Iterable[str]) -> PreTrainedTokenizerFast:
    """Train on generated prompts and answers; every number is shown often enough to become a token.

    Args:
        vocab_size: The most tokens, bytes and special ones among them.
        samples: How many exercises of each kind, and how often each number is shown.
        seed: The seed of the exercises.
        kinds: Names of the exercises whose text it is.
    """
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = Sequence([Split(Regex(PIECES), "isolated"), ByteLevel(False, use_regex=False)])
    tokenizer.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIAL,
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(samples, seed, kinds), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=EOS,
        mask_token=MASK,
        additional_special_tokens=[EOT, ROLE_START, ROLE_END],
        chat_template=CHAT_TEMPLATE,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )


def in_template(tokenizer: PreTrainedTokenizerFast, template: str) -> PreTrainedTokenizerFast:
    """Return a tokenizer with the special tokens and the chat template of `TEMPLATES`; ids stay.

    Args:
        tokenizer: A tokenizer with LLaDA's special tokens, or Sudoku's.
        template: One of `TEMPLATES`; all but `chatml` leave the tokenizer as it is.
    """
    if template != "chatml":
        return tokenizer
    text = str(tokenizer.backend_tokenizer.to_str())
    for ours, theirs in CHATML.items():
        text = text.replace(json.dumps(ours), json.dumps(theirs))
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(text),
        bos_token=BOS,
        eos_token=EOS,
        pad_token=EOS,
        mask_token=CHATML[MASK],
        additional_special_tokens=[CHATML[EOT], CHATML[ROLE_START], ROLE_END],
        chat_template=CHATML_TEMPLATE,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json, the chat template inside the latter.

    Args:
        tokenizer: The tokenizer.
        folder: The checkpoint's folder.
    """
    for key in ("is_local", "local_files_only"):  # how it was loaded
        tokenizer.init_kwargs.pop(key, None)
    tokenizer.save_pretrained(folder, save_jinja_files=False)


def _corpus(samples: int, seed: int, kinds: Iterable[str]) -> Iterable[str]:
    rng = Random(seed)
    chosen = [kind for name, kind in KINDS.items() if name in set(kinds)]
    yield from ["user\n\n", "assistant\n\n"] * samples
    for number in range(101):
        yield from [f"{number}", f"a {number}"] * samples
    for _ in range(samples):
        for kind in chosen:
            exercise = draw_training(kind, rng)
            yield exercise.prompt
            yield exercise.answer(rng)
