"""Processes that decode beside this one, each with the model on a device of its own: what they are given, and tell.

They load the model while this one does, and keep it until the run ends.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
import traceback
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from queue import Empty
from typing import Any

from omegaconf import OmegaConf

from dlmlab.denoise import StepTiming
from dlmlab.errors import UserError
from dlmlab.generation import decode
from dlmlab.loop.batch import Batch
from dlmlab.loop.interrupt import asked, end_with_parent
from dlmlab.loop.shared_pass import Memo
from dlmlab.memo import DiskMemo
from dlmlab.run import build
from dlmlab.types import Generation, Output, Request

POLL_SECONDS = 0.5
TELL_SECONDS = 0.1
"""Seconds between two messages of a process, and between two looks for them: a small model's steps are many, and a
look into another machine's queue takes 2 ms.
"""


@dataclass(frozen=True)
class Share:
    """What one process decodes, and how; it travels to the process that does.

    Attributes:
        requests: The canvases that it fills.
        generation: How canvases are laid out and scheduled.
        batch_size: As the user asked for it.
        memo: Whether the process opens the run's memo for itself, or what it keeps proposals in.
        options: See `dlmlab.denoise.Options`.
    """

    requests: Sequence[Request]
    generation: Generation
    batch_size: int | str
    memo: Memo | bool | None
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Ended:
    """The last word of a process about a share.

    Attributes:
        log: How its batch size came about.
        error: What went wrong; empty where all went well.
        lines: What went wrong, for the user, where it is an error of the user's.
    """

    log: Sequence[Mapping[str, Any]]
    error: str = ""
    lines: tuple[str, ...] = ()


Found = Output | StepTiming | Ended


class Helpers(ABC):
    """Processes that decode share after share. What they find comes back as it is found.

    Args:
        config: The run's config, resolved, from which they load the model.
        names: What errors call them.
    """

    def __init__(self, config: Any, names: Sequence[str]) -> None:
        self._config, self._names = config, names
        self._inbox = dict[str, Any]()
        self._running = dict[str, Any]()
        self._busy = set[str]()
        self._told = deque[tuple[str, Found]]()
        self._found: Any = None
        self._looked = 0.0
        self.start()

    def start(self) -> int:
        """Start the processes if none runs; return how many there are."""
        if not self._running:
            self._start()
        return len(self._running)

    @abstractmethod
    def _start(self) -> None:
        """Start the processes: `_running` and `_inbox` by name, and `_found`, the queue of what they tell."""

    @abstractmethod
    def _end_of(self, name: str) -> object:
        """Return how a process has ended; None where it runs."""

    @abstractmethod
    def end(self) -> None:
        """End all processes."""

    @abstractmethod
    def memo_of(self, memo: Memo | None) -> Memo | bool | None:
        """Return what a share says of this process's memo, see `Share`."""

    def begin(self, shares: Sequence[Share]) -> None:
        """Give each process a share.

        Raises:
            UserError: A share can't be sent.
        """
        for name, share in zip(self._running, shares, strict=True):
            try:
                ForkingPickler.dumps(share)  # a queue would lose what it can't send, without a word
            except Exception as error:  # many kinds, of whatever is no data
                raise UserError(
                    f"gpus: what is decoded can't be sent to another process ({error}): define decoders and caches at "
                    "the top of a module, or leave gpus out"
                ) from error
            self._inbox[name].put(share)
            self._busy.add(name)

    def ready(self) -> Iterator[Found]:
        """Yield what has been found since the last look, without waiting; nothing where that was a moment ago."""
        if time.monotonic() < self._looked + TELL_SECONDS:
            return
        self._looked = time.monotonic()
        while self._busy and (found := self._next(0.0)) is not None:
            yield found

    def rest(self) -> Iterator[Found]:
        """Yield everything else that is found, until all are done or the user asks for an end."""
        while self._busy and not asked():
            if (found := self._next(POLL_SECONDS)) is not None:
                yield found

    def stop(self) -> None:
        """End the processes if some are not done with their shares, which nobody waits for any more."""
        if self._busy:
            self.end()
            self._busy.clear()
            self._told.clear()

    def _next(self, seconds: float) -> Found | None:
        if not self._told:
            try:
                name, more = self._found.get(timeout=seconds) if seconds else self._found.get_nowait()
            except Empty:
                for name in () if asked() else self._busy:
                    if (end := self._end_of(name)) is not None and self._found.empty():
                        raise UserError(f"the process on {name} ended with {end}: resume= goes on") from None
                return None
            self._told.extend((name, each) for each in more)
        name, found = self._told.popleft()
        if isinstance(found, Ended):
            self._busy.remove(name)
            if found.lines:
                raise UserError(*found.lines)
            if found.error:
                raise RuntimeError(f"the process on {name} failed:\n{found.error}")
        return found


class Processes(Helpers):
    """Helpers on this host, one for each of the devices that are their names, such as `cuda:1`."""

    def memo_of(self, memo: Memo | None) -> Memo | bool | None:
        return isinstance(memo, DiskMemo) or memo

    def end(self) -> None:
        for process in self._running.values():
            process.kill()
            process.join()
        self._running.clear()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._found = context.Queue()
        for name in self._names:
            inbox = self._inbox[name] = context.Queue()
            told = self._config | {"device": name}, name, inbox, self._found
            self._running[name] = context.Process(target=work, args=told, daemon=True)
            self._running[name].start()

    def _end_of(self, name: str) -> object:
        return self._running[name].exitcode


def work(config: Any, name: str, inbox: Any, found: Any) -> None:
    """Decode share after share in a process of its own, and tell what is found.

    Args:
        config: The run's config, resolved, from which the model is loaded.
        name: The process's.
        inbox: The queue of shares.
        found: The queue that takes the process's name with a list of steps and outputs, the last of which is, for
            each share, an `Ended`.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the first process is told as well, and ends this one
    end_with_parent()  # killed, it reads no more of what this one tells
    cfg, pending, told = OmegaConf.create(config), list[Found](), time.monotonic()

    def tell(what: Found) -> None:
        nonlocal told
        pending.append(what)
        if isinstance(what, Ended) or time.monotonic() > told + TELL_SECONDS:
            found.put((name, pending.copy()))
            pending.clear()
            told = time.monotonic()

    log: Sequence[Mapping[str, Any]] = ()
    try:
        model = build.model(cfg)
        while True:
            share: Share = inbox.get()
            batch = Batch(share.batch_size)
            log = batch.log
            memo = build.memo(cfg, model, share.generation) if share.memo is True else share.memo
            outputs = decode(
                model, share.requests, share.generation, batch_size=batch, memo=memo, on_step=tell, **share.options
            )
            for output in outputs:
                tell(output)
            tell(Ended(log))
    except UserError as error:
        tell(Ended(log, lines=error.args))
    except Exception:
        tell(Ended(log, traceback.format_exc()))
