"""From a user's message to token ids, by the checkpoint's chat template.

A template comes with a checkpoint, so it is rendered in a process of its own that can be ended (`chat_guest`), one for
all templates and prompts. A message is text: whatever it says, it gives none of the tokens by which a model is steered.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import queue
import re
import reprlib
import secrets
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from dlmlab.errors import UserError

Message = Mapping[str, str]
"""A turn of a conversation: its `role` and `content`."""
GUEST = Path(__file__).with_name("chat_guest.py")
SECONDS = 10.0
"""Most seconds that a rendering may take, the process's start included."""
MEMORY = 2**30
"""Most bytes of address space that a rendering may take."""
MOST_BYTES = 2**24
"""Most bytes of a rendered conversation, as JSON; it is more than any model's context."""
MARK = secrets.token_hex(8)
"""With a number, what stands for a control token that a message spells, until the template is rendered."""
REMEDY = "give token ids, or mend the template"


class Renderer:
    """The process that renders. It starts when it is first asked, and again after one that had to be ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._parts = queue.SimpleQueue[bytes]()
        self._reader: threading.Thread
        self._owner = 0

    def render(self, template: str, context: Mapping[str, Any]) -> str:
        """Return the text of a template.

        Args:
            template: The checkpoint's chat template, in Jinja's language.
            context: The values of its variables, by name; they go to the process as JSON.

        Raises:
            UserError: It fails, or takes too much time, memory or room.
        """
        request = json.dumps({"template": template, "context": context}).encode() + b"\n"
        with self._lock:
            try:
                answer = json.loads(self._ask(request))
            except (OSError, ValueError) as error:
                self._end()
                raise UserError(f"the checkpoint's chat template takes more than it may ({error}): {REMEDY}") from error
            except BaseException:
                self._end()
                raise
        if "error" in answer:
            raise UserError(f"the checkpoint's chat template fails ({' '.join(answer['error'].split())}): {REMEDY}")
        return str(answer["text"])

    def _ask(self, request: bytes) -> bytes:
        """Raise OSError where no answer comes in time."""
        if self._process is None or self._owner != os.getpid():  # it is another process's where this one was forked
            self._process = subprocess.Popen(
                [sys.executable, "-I", str(GUEST), str(MEMORY)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,  # out of reach of the terminal's Ctrl-C
            )
            self._owner, self._parts = os.getpid(), queue.SimpleQueue()
            pipe = self._process.stdout.fileno()  # type: ignore[union-attr]
            self._reader = threading.Thread(target=hand_on, args=(pipe, self._parts), daemon=True)
            self._reader.start()
        stdin: IO[bytes] = self._process.stdin  # type: ignore[assignment]
        stdin.write(request)
        stdin.flush()
        answer = b""
        while not answer.endswith(b"\n"):
            try:
                part = self._parts.get(timeout=SECONDS)
            except queue.Empty:
                raise TimeoutError(f"{SECONDS:g} seconds") from None
            if not part:
                raise OSError("its process ended")
            answer += part
            if len(answer) > MOST_BYTES:
                raise OSError(f"{MOST_BYTES / 2**20:g} MiB of text")
        return answer

    def _end(self) -> None:
        if self._process is not None and self._owner == os.getpid():
            self._process.kill()
            self._process.wait()
            self._reader.join()  # before the pipe's number may be another file's
            for pipe in (self._process.stdin, self._process.stdout):
                with contextlib.suppress(OSError):  # a request that nobody has read
                    pipe.close()  # type: ignore[union-attr]
        self._process = None


def hand_on(pipe: int, parts: queue.SimpleQueue[bytes]) -> None:
    """Read a pipe to its end, and hand on what it gives: Windows can't wait for one but by reading it.

    Args:
        pipe: The file descriptor that is read.
        parts: The queue that takes each part as it comes; an empty one stands for the end.
    """
    part = b"more"
    while part:
        try:
            part = os.read(pipe, MOST_BYTES)
        except OSError:
            part = b""
        parts.put(part)


renderer = Renderer()
atexit.register(renderer._end)


def token_ids(model: Any, messages: str | Sequence[Message], name: str) -> list[int]:
    """Return the token ids of a conversation, up to where the model's answer begins.

    Args:
        model: It has a tokenizer with a chat template.
        messages: A user's message, or the turns of a conversation.
        name: What an error calls it.

    Raises:
        UserError: There is no template, it fails, or a text is none that can be encoded.
    """
    tokenizer, template = model.tokenizer, template_of(model.tokenizer, name)
    turns = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
    for turn in turns:
        check_turn(turn, name)
    control = control_ids(model)
    spelt: list[str] = []

    def marked(text: str) -> str:
        for begin, end in reversed(control_spans(tokenizer, text, control)):
            spelt.append(text[begin:end])
            text = f"{text[:begin]}{MARK}:{len(spelt) - 1}:{text[end:]}"
        return text

    context = {
        **tokenizer.special_tokens_map,
        "messages": [{**turn, "content": marked(turn["content"])} for turn in turns],
        "add_generation_prompt": True,
        "tools": None,
        "documents": None,
    }
    text = check_text(renderer.render(template, context), "what the chat template gives")
    parts = re.split(f"{MARK}:(\\d+):", text)
    ids: list[int] = tokenizer(parts[0], add_special_tokens=False)["input_ids"]
    for number, part in zip(parts[1::2], parts[2::2], strict=True):
        spelling = spelt[int(number)]
        plain = tokenizer(spelling, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        if control & set(plain):
            raise UserError(f"{name} has {spelling!r}, which is a control token of the model: write it in another way")
        ids += plain + tokenizer(part, add_special_tokens=False)["input_ids"]
    return ids


def template_of(tokenizer: Any, name: str) -> str:
    """Return the chat template of a tokenizer.

    Args:
        tokenizer: The checkpoint's; None where it has none.
        name: What an error calls the conversation.

    Raises:
        UserError: There is none that is a text and meant for a plain chat.
    """
    found = None if tokenizer is None else tokenizer.chat_template
    if isinstance(found, dict) and found:
        if "default" not in found:
            names = ", ".join(map(str, found))
            raise UserError(f"of the checkpoint's chat templates ({names}) none is named default: {REMEDY}")
        found = found["default"]
    if not found:
        raise UserError(f"{name} is a string, but the checkpoint has no tokenizer with a chat template: give token ids")
    if not isinstance(found, str):
        raise UserError(f"the checkpoint's chat template is {found!r}, which is no text: {REMEDY}")
    return found


def check_turn(turn: Any, name: str) -> None:
    """Raise UserError for what is no turn of a conversation.

    Args:
        turn: What a caller has given: a mapping of `role` and `content`, to texts, is a turn.
        name: What an error calls the conversation.
    """
    if not isinstance(turn, Mapping) or set(turn) != {"role", "content"}:
        raise UserError(f"{name} has a turn {reprlib.repr(turn)}: give each as {{'role': …, 'content': …}}")
    if not isinstance(turn["role"], str) or not re.fullmatch(r"[\w-]+", turn["role"]):
        raise UserError(f"{name} has role={turn['role']!r}: name one, such as user or assistant")
    check_text(turn["content"], name)


def check_text(text: Any, name: str) -> str:
    """Return a text as it is given.

    Args:
        text: What must be a text.
        name: What an error calls that in which the text stands.

    Raises:
        UserError: It is no text, or holds half a character (a lone surrogate).
    """
    if not isinstance(text, str):
        raise UserError(f"{name} has {reprlib.repr(text)} where a text is wanted")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = text[error.start]
        raise UserError(f"{name} has {half!r} at {error.start}, which is no character: remove it") from error
    return text


def control_ids(model: Any) -> frozenset[int]:
    """Return the tokens that steer a model and that no message may give. What stands for unknown text is none."""
    tokenizer, config = model.tokenizer, model.config
    special = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    own = {config.mask_token_id, config.eos_token_id, config.pad_token_id}
    return frozenset((special | own) - {tokenizer.unk_token_id})


def control_spans(tokenizer: Any, text: str, control: frozenset[int]) -> list[tuple[int, int]]:
    """Return where a text spells a control token, however the tokenizer lets that be spelt.

    Args:
        tokenizer: A fast one, which says what part of a text each token stands for.
        text: What is searched.
        control: The ids of the control tokens.

    Returns:
        Spans [begin, end) of characters, from left to right.
    """
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    return [span for token, span in zip(found["input_ids"], found["offset_mapping"], strict=True) if token in control]
