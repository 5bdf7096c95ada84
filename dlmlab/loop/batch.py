"""The number of canvases that go through the model at once, and what happens where the device has no room for them."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, TypeVar

import torch

from dlmlab.errors import UserError
from dlmlab.types import check_positive_int

log = logging.getLogger(__name__)

AUTO = "auto"
LIGHTER = "set model.quantization=nf4, free the device of other processes, or take one with more memory"
SMALLER = f"lower generation.gen_length, {LIGHTER}"
FEWER = "lower batch_size or batch_sizes"

Part = TypeVar("Part")
Done = TypeVar("Done")


class Batch:
    """The number of canvases that go through the model at once: halved, for good, whenever they don't fit the device.

    Attributes:
        asked: A positive integer, or `auto`, which `dlmlab.loop.auto_batch.choose` turns into one.
        halve: Whether it may be halved; where a speed is measured it may not.
        size: The number now.
        log: How the number came about, for the run's manifest.
        chosen_for: The kind of requests that `auto` has chosen the size for.

    Raises:
        UserError: Anything else is asked for.
    """

    def __init__(self, asked: int | str, halve: bool = True) -> None:
        check_batch_size("batch_size", asked)
        self.asked, self.halve = asked, halve
        self.size = 1 if isinstance(asked, str) else asked
        self.log: list[dict[str, Any]] = []
        self.chosen_for: Hashable = None

    @classmethod
    def of(cls, batch_size: int | str | Batch) -> Batch:
        """Return a batch as it is, or make one of a batch size."""
        return batch_size if isinstance(batch_size, Batch) else cls(batch_size)

    def __str__(self) -> str:
        return str(self.asked) if self.asked == self.size else f"{self.asked}: {self.size}"

    def each(
        self,
        items: Sequence[Part],
        work: Callable[[Sequence[Part]], Done],
        put_off: Callable[[Part], bool] = lambda item: False,
    ) -> Iterator[Done]:
        """Yield the results of `work` on the items, in parts of at most `size`. A part without room is done again in
        halves.

        Args:
            items: The items, in order.
            work: Works on one part.
            put_off: Returns whether an item that comes after such a half is left for another time.

        Raises:
            UserError: Not even one item fits.
        """
        begin = 0
        while begin < len(items):
            part = items[begin : begin + self.size]
            try:
                done = work(part)
            except torch.OutOfMemoryError as error:
                reason = str(error)  # the error itself would keep the failed step's tensors
            else:
                yield done
                begin += len(part)
                continue
            self._shrink(len(part), reason)
            last = begin + self.size
            items = [*items[:last], *(item for item in items[last:] if not put_off(item))]

    def _shrink(self, tried: int, reason: str) -> None:
        give_back()
        if tried == 1 or not self.halve:
            raise no_room(f"a batch of {tried}", reason, SMALLER if tried == 1 else FEWER)
        self.size = tried // 2
        self.log.append({"out of memory at": tried, "size": self.size, "reason": numbers(reason)})
        log.warning("out of memory with a batch of %d (%s): going on with %d", tried, numbers(reason), self.size)


def check_batch_size(name: str, value: object) -> None:
    """Raise UserError unless the value is a batch size.

    Args:
        name: What an error calls it.
        value: Any value: a positive integer or `auto` is one.
    """
    if isinstance(value, str) and value != AUTO:
        raise UserError(f"{name}={value!r} is neither a positive integer nor {AUTO}")
    if value != AUTO:
        check_positive_int(name, value)


def give_back() -> None:
    """Return the memory that the allocator keeps for later to the device."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def no_room(what: str, reason: str, remedy: str) -> UserError:
    """Return the error of a device that is too small.

    Args:
        what: What does not fit, in words.
        reason: The message of torch's error.
        remedy: What the user can do.
    """
    return UserError(f"out of memory: {what} does not fit the device ({numbers(reason)}): {remedy}")


def numbers(reason: str) -> str:
    """Extract from torch's message what was needed and what was free; return its first line where it doesn't say."""
    needed = re.search(r"Tried to allocate ([\d.]+ \w+)", reason)
    free = re.search(r"total capacity of ([\d.]+ \w+) of which ([\d.]+ \w+) is free", reason)
    if needed is None or free is None:
        return reason.partition("\n")[0]
    return f"{needed[1]} more were needed, {free[2]} of {free[1]} are free"
