"""The tiny model's tokenizer: byte-level BPE trained on the text that the project generates.

Lossless on any text. The numbers 0 to 100 are one token each, with and without a space before them, and so is a line
break with the indentation after it. Special tokens and chat template are LLaDA's.
"""

from __future__ import annotations

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
from experiments.train_tiny.data import KINDS

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


def train_tokenizer(vocab_size: int, samples: int, seed: int) -> PreTrainedTokenizerFast:
    """Train on generated prompts and answers; every number is shown often enough to become a token."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = Sequence([Split(Regex(PIECES), "isolated"), ByteLevel(False, use_regex=False)])
    tokenizer.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIAL,
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(samples, seed), trainer)
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


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """tokenizer.json and tokenizer_config.json, the chat template inside the latter."""
    for key in ("is_local", "local_files_only"):  # how it was loaded
        tokenizer.init_kwargs.pop(key, None)
    tokenizer.save_pretrained(folder, save_jinja_files=False)


def _corpus(samples: int, seed: int) -> Iterable[str]:
    rng = Random(seed)
    yield from ["user\n\n", "assistant\n\n"] * samples
    for number in range(101):
        yield from [f"{number}", f"a {number}"] * samples
    for _ in range(samples):
        for kind in KINDS.values():
            exercise = draw_training(kind, rng)
            yield exercise.prompt
            yield exercise.answer(rng)
