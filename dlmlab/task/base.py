"""The contract of a task: items with prompts, and a score for the text that a model answers with."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

from dlmlab.errors import UserError
from dlmlab.sandbox import SandboxError
from dlmlab.settings import NonNegativeInt, PositiveInt


@dataclass(frozen=True)
class Item:
    """One problem.

    Attributes:
        id: The item's name, unique within the task.
        prompt: The user's message, before the chat template.
        answer: The reference that scoring compares with; empty where a task has none.
        meta: Whatever else scoring needs, as plain JSON values.
    """

    id: str
    prompt: str
    answer: str
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Score:
    """The quality of one answer.

    Attributes:
        value: From 0 to 1.
        reason: Why the answer isn't right, in a few words that can be counted (`wrong answer`, `timeout`); empty when
            it is.
        variants: The same answer scored in other ways, by name.
    """

    value: float
    reason: str = ""
    variants: Mapping[str, float] = field(default_factory=dict)


class Task(Protocol):
    """A dataset, its prompts and its scoring. Implementations are dataclasses, named by `_target_` in conf/task/."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str:
        """Return the version, which changes whenever prompts, filters or scoring do: scores of different versions
        are never compared.
        """

    @property
    def gen_length(self) -> int: ...

    @property
    def block_length(self) -> int: ...

    @property
    def steps(self) -> int:
        """Return the scheduled forward passes; with gen_length and block_length, the task's default decoding
        settings.
        """

    @property
    def fingerprint(self) -> str:
        """Return the sha256, in hex, of all the data, whatever part of it is selected. See `fingerprint_items`."""

    def items(self) -> list[Item]:
        """Return the selected items, in an order that does not change between runs. See `select`."""

    def score(self, item: Item, text: str) -> Score | None:
        """Score an answer. May block, and is called from several threads at once.

        Args:
            item: The item that was asked.
            text: The model's answer.

        Returns:
            The score; None where an answer has no score of its own, since it is only compared with another decoder's
            answer.
        """


@dataclass(frozen=True, kw_only=True)
class BaseTask(ABC):
    """The part that all tasks have in common: a canvas, a selection of items, and their fingerprint.

    Attributes:
        name: What samples and reports call the task.
        version: Changes with prompts, filters and scoring; see `Task.version`.
        gen_length: Positions of the canvas, unless the run says otherwise.
        block_length: Positions of a block, likewise.
        steps: Scheduled forward passes over all blocks, likewise.
        limit: How many items are taken, from the first on; None for all.
        shard: Which share of them is taken, counted from 0; see `select`.
        num_shards: How many shares there are.
        template: The prompt that is asked, in which `{prompt}` stands for the item's own.
    """

    name: str
    version: str
    gen_length: PositiveInt
    block_length: PositiveInt
    steps: PositiveInt
    limit: PositiveInt | None = None
    shard: NonNegativeInt = 0
    num_shards: PositiveInt = 1
    template: str = "{prompt}"

    @abstractmethod
    def load(self) -> Sequence[Item]:
        """Return all items, in an order that does not change between runs; called once."""

    @abstractmethod
    def score(self, item: Item, text: str) -> Score | None:
        """Score an answer; see `Task.score`."""

    def items(self) -> list[Item]:
        """Return the selected items, see `select`, their prompts in the template."""
        chosen = select(self.all_items, self.limit, self.shard, self.num_shards)
        if self.template == "{prompt}":
            return chosen
        return [replace(item, prompt=self.template.replace("{prompt}", item.prompt)) for item in chosen]

    @property
    def fingerprint(self) -> str:
        """See `fingerprint_items`."""
        return fingerprint_items(self.all_items)

    @cached_property
    def all_items(self) -> Sequence[Item]:
        """Return the items, loaded when they are first needed."""
        return self.load()


def score_answer(task: Task, item: Item, text: str) -> Score | None:
    """Return the task's score of an answer: 0, with the reason, where an extractor or a judge raises anything.

    Args:
        task: The task.
        item: One of its items.
        text: The answer's text.

    Raises:
        UserError: Nothing can be scored here.
        SandboxError: Likewise, since no code can be executed.
    """
    try:
        return task.score(item, text)
    except (UserError, SandboxError):
        raise
    except Exception as error:
        return Score(0.0, f"scoring raised {type(error).__name__}")


def select(items: Sequence[Item], limit: int | None = None, shard: int = 0, num_shards: int = 1) -> list[Item]:
    """Select the first `limit` items (all when None), of which shard s takes those at s, s + num_shards, …

    Shards of the same limit are disjoint and together are what one run without shards would take.

    Args:
        items: All items.
        limit: The most items to take.
        shard: The shard's number, from 0.
        num_shards: The number of shards.

    Raises:
        UserError: The limit is below 1, there are fewer items than asked for, or the shard is out of range.
    """
    _check_int("num_shards", num_shards, low=1)
    _check_int("shard", shard, low=0)
    if shard >= num_shards:
        raise UserError(f"shard={shard} is out of range: with num_shards={num_shards} it is from 0 to {num_shards - 1}")
    if limit is not None:
        _check_int("limit", limit, low=1)
        if limit > len(items):
            raise UserError(f"limit={limit} is more than the {len(items)} items there are: lower it, or null for all")
    chosen = list(items[:limit])[shard::num_shards]
    if not chosen:
        total = len(items) if limit is None else limit
        raise UserError(f"shard={shard} of num_shards={num_shards} is empty: {total} items, lower num_shards")
    return chosen


def until(text: str, stops: Iterable[str]) -> str:
    """Return the text before the first of the stops in it, all of it where there is none.

    Args:
        text: A text.
        stops: Strings that end it.
    """
    places = [place for stop in stops if stop and (place := text.find(stop)) >= 0]
    return text[: min(places, default=len(text))]


def fingerprint_items(items: Iterable[Item]) -> str:
    """Return the sha256, in hex, of the items' contents: the same whatever file format or mirror they were read
    from.
    """
    digest = hashlib.sha256()
    for item in items:
        digest.update(json.dumps(asdict(item), sort_keys=True, ensure_ascii=True).encode() + b"\n")
    return digest.hexdigest()


def _check_int(name: str, value: object, low: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise UserError(f"{name}={value!r} is not an integer of at least {low}")
