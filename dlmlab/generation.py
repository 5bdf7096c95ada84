"""Decode prompts into answers."""

from __future__ import annotations

import operator
import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from dlmlab.denoise import Options, StepTiming, check_request, denoise
from dlmlab.errors import UserError
from dlmlab.loop.auto_batch import choose
from dlmlab.loop.batch import AUTO, Batch
from dlmlab.loop.interrupt import asked
from dlmlab.model import chat
from dlmlab.policy import Policy
from dlmlab.rule import Rule
from dlmlab.settings import own_number
from dlmlab.types import Generation, Output, Request, check_seed

Prompt = str | Sequence[int] | Sequence[chat.Message]
"""A prompt: a user's message or the turns of a conversation, to which the checkpoint's chat template is
applied, or token ids, which are taken as they are.
"""


def generate(
    model: Any,
    prompts: Iterable[Prompt],
    rule: Rule,
    *,
    gen_length: int = 64,
    block_length: int | None = None,
    steps: int = 16,
    temperature: float = 0.0,
    seed: int = 0,
    batch_size: int | str = 8,
    confidence_dtype: Any = "float32",
    logits_eos_inf: bool = False,
    confidence_eos_eot_inf: bool = False,
    confidence_eos_eot_zero: bool = False,
    cfg_scale: float = 0.0,
    trace: bool = False,
    cache: Policy | None = None,
    on_step: Callable[[StepTiming], None] = lambda step: None,
    progress: bool = False,
) -> list[Output]:
    """Decode one answer for each prompt, in their order.

    Args:
        model: A model that `dlmlab.load` returned.
        prompts: Messages, conversations or token ids; see `Prompt`.
        rule: A decoder, such as `dlmlab.decoder.localleap.LocalLeap`.
        gen_length: Positions of each canvas.
        block_length: Positions of a block; `gen_length` unless given.
        steps: Scheduled forward passes over all blocks.
        temperature: 0 proposes the likeliest token; above 0 tokens are drawn with Gumbel noise.
        seed: With the prompt's index in the list it fixes the prompt's randomness, whatever shares its batch.
        batch_size: Canvases that go through the model at once, or `auto`; fewer where they don't fit the device.
        confidence_dtype: The precision of the softmax, `float32` or `float64`, or torch's own of these.
        logits_eos_inf: See `dlmlab.types.Generation`, as for the next two.
        confidence_eos_eot_inf: Whether end tokens are committed last and do not count in other confidences.
        confidence_eos_eot_zero: Whether end tokens are committed last and other confidences stay.
        cfg_scale: Strength of classifier-free guidance, which makes a pass twice as dear; 0 is none.
        trace: Whether outputs list every forward pass.
        cache: Decides which positions a pass computes, such as `dlmlab.cache.dual.Dual`; without one, all of them.
        on_step: Called after each step of the loop with a `dlmlab.denoise.StepTiming`; what it raises ends the
            decoding.
        progress: Whether a bar on stderr counts the answers.

    Returns:
        An output for each prompt: the canvas's tokens, the answer's text and what they cost.

    Raises:
        UserError: The model, the decoder or the prompts are none, a prompt doesn't fit the model's context, a string
            comes where the checkpoint has no tokenizer or chat template, a setting is out of range, or the cache
            doesn't go with the decoder or the model.
    """
    block_length = gen_length if block_length is None else block_length
    generation = Generation(
        gen_length,
        block_length,
        steps,
        temperature,
        str(confidence_dtype).removeprefix("torch."),
        logits_eos_inf,
        confidence_eos_eot_inf,
        confidence_eos_eot_zero,
        cfg_scale=own_number(cfg_scale),
    )
    seed, batch_size = own_number(seed), own_number(batch_size)
    check_model(model)
    encoded = [
        encode(model, prompt, generation.gen_length, f"prompt {index}") for index, prompt in enumerate(listed(prompts))
    ]
    check_rule(rule)
    if not callable(on_step):
        raise UserError(f"on_step={reprlib.repr(on_step)} is none: give a function of a step's timing")
    requests = [Request(index, ids, rule, trace, cache) for index, ids in enumerate(encoded)]
    outputs = decode(model, requests, generation, batch_size=batch_size, seed=seed, on_step=on_step)
    bar = track(outputs, "answers", len(requests), console=Console(stderr=True), disable=not progress)
    ready = sorted(bar, key=lambda output: output.index)
    if asked():
        raise KeyboardInterrupt
    return ready


def decode(
    model: Any,
    requests: Sequence[Request],
    generation: Generation,
    *,
    batch_size: int | str | Batch,
    **options: Any,
) -> Iterator[Output]:
    """Fill the canvases of requests as `denoise` does, and add their texts.

    Rows of like length go side by side, so that little is padded.

    Args:
        model: A model that `dlmlab.load` returned, or another `Denoiser`.
        requests: The canvases to fill.
        generation: How canvases are laid out and scheduled.
        batch_size: Canvases that go through the model at once, or `auto`.
        **options: See `dlmlab.denoise.Options`.

    Yields:
        The outputs, as rows finish.

    Raises:
        UserError: A cache doesn't go with its request's decoder or the model, or the seed or batch size is none.
    """
    how = Options(**options)
    check_seed(how.seed)
    for request in requests:
        check_request(model, request, generation)
    batch = Batch.of(batch_size)
    by_length = sorted(requests, key=lambda request: len(request.prompt), reverse=True)
    if batch.asked == AUTO and by_length:
        choose(batch, model, by_length, generation, how.seed)
    for output in denoise(model, by_length, generation, batch, **options):
        yield replace(output, text=answer_text(model, output.tokens))


def check_model(model: Any) -> None:
    """Raise UserError for anything that is not a model."""
    if isinstance(model, str | Path):
        raise UserError(f"model={str(model)!r} is a path: give what dlmlab.load makes of it")
    if not hasattr(model, "hidden") or not hasattr(model, "head"):
        raise UserError(f"model={reprlib.repr(model)} is none: give what dlmlab.load returns")


def check_rule(rule: Any) -> None:
    """Raise UserError for anything that is not a decoder."""
    if not isinstance(rule, Rule):
        said = rule.__name__ if isinstance(rule, type) else reprlib.repr(rule)
        raise UserError(f"rule={said} is no decoder: make one, such as LocalLeap(kappa=0.9, tau=0.75, radius=4)")


def listed(prompts: Any) -> list[Any]:
    """Return prompts as a list.

    Raises:
        UserError: There are none.
    """
    if isinstance(prompts, str | bytes | Mapping):
        kind = "a string" if isinstance(prompts, str) else reprlib.repr(prompts)
        raise UserError(f"prompts is {kind}: give a list of prompts")
    try:
        found = list(prompts)
    except TypeError as error:
        raise UserError(f"prompts is {reprlib.repr(prompts)}: give a list of prompts") from error
    if not found:
        raise UserError("prompts is empty: give at least one")
    return found


def encode(model: Any, prompt: Prompt, gen_length: int, name: str) -> tuple[int, ...]:
    """Return a prompt's token ids.

    Args:
        model: The model that is to read them.
        prompt: A message, a conversation or token ids.
        gen_length: Positions of the canvas that follows the prompt.
        name: The prompt's name in an error.

    Raises:
        UserError: The prompt is of no such kind, doesn't fit the model's context, or has a token id that doesn't exist.
    """
    conversation = isinstance(prompt, list | tuple) and any(isinstance(turn, Mapping) for turn in prompt)
    given: Any = prompt
    ids = _own_ids(chat.token_ids(model, given, name) if isinstance(given, str) or conversation else given, name)
    if model.config.mask_token_id is None:
        raise UserError("the checkpoint states no mask_token_id: add it to its config.json, or load it with one")
    context, vocabulary = model.config.max_sequence_length, model.config.vocab_size
    if len(ids) + gen_length > context:
        raise UserError(
            f"{name} has {len(ids)} tokens, with gen_length={gen_length} more than the model's context of {context}: "
            "shorten it or lower gen_length"
        )
    if not all(0 <= token < vocabulary for token in ids):
        raise UserError(f"{name} has a token id outside the vocabulary of {vocabulary}")
    return ids


def _own_ids(prompt: Any, name: str) -> tuple[int, ...]:
    """Return token ids as Python's own numbers. Raises UserError for a prompt that is no list of them."""
    if not isinstance(prompt, bytes | bytearray | Mapping | set) and getattr(prompt, "ndim", 1) == 1:
        try:
            found = list(prompt)
            if not any(isinstance(token, bool) for token in found):
                return tuple(map(operator.index, found))
        except TypeError:
            pass
    raise UserError(f"{name} is {reprlib.repr(prompt)}: give text, a list of token ids, or the turns of a conversation")


def answer_length(model: Any, tokens: Sequence[int]) -> int:
    """Return how many tokens come before the first end token.

    Args:
        model: Its end tokens count.
        tokens: A canvas's tokens, without the prompt.
    """
    return next((place for place, token in enumerate(tokens) if token in model.end_token_ids), len(tokens))


def answer_text(model: Any, tokens: Sequence[int]) -> str | None:
    """Return the text of an answer, without its end; None where the checkpoint has no tokenizer.

    Args:
        model: Its tokenizer decodes them, and its end tokens count.
        tokens: A canvas's tokens, without the prompt.
    """
    if model.tokenizer is None:
        return None
    return str(model.tokenizer.decode(tokens[: answer_length(model, tokens)], skip_special_tokens=True))


def token_texts(model: Any) -> Callable[[int], str]:
    """Return a function from a token id to the token's text; to its number where the checkpoint has no tokenizer."""
    return cache(lambda token: str(token) if model.tokenizer is None else str(model.tokenizer.decode([token])))
