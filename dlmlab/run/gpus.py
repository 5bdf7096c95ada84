"""Decode on several GPUs of one host: a process for each, of which this one is the first, and one run.

The other processes load the model while this one does, and keep it until the run ends. Outputs come back to this
process, which scores and keeps them: the run has one folder, and resumes as any other.
"""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from queue import Empty
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from dlmlab.denoise import StepTiming
from dlmlab.errors import UserError
from dlmlab.generation import decode
from dlmlab.loop.batch import Batch
from dlmlab.loop.interrupt import asked
from dlmlab.loop.shared_pass import Memo
from dlmlab.memo import DiskMemo
from dlmlab.run import build
from dlmlab.types import Generation, Output, Request

POLL_SECONDS = 0.5


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


def devices(cfg: DictConfig) -> list[str]:
    """Return the devices that the config's `gpus` asks for; none where it doesn't ask.

    Raises:
        UserError: There aren't so many, or a device is named besides.
    """
    if cfg.get("gpus") is None:
        return []
    if cfg.device not in ("auto", "cuda"):
        raise UserError(f"device={cfg.device} and gpus={cfg.gpus} both name devices: leave one of them out")
    have = torch.cuda.device_count()
    wanted = max(have, 1) if cfg.gpus == "all" else cfg.gpus
    if wanted > have:
        raise UserError(f"gpus={cfg.gpus}, but this machine has {have}: ask for fewer, or leave gpus out")
    return [f"cuda:{number}" for number in range(wanted)]


@contextmanager
def spread(cfg: DictConfig) -> Iterator[Callable[..., Iterator[Output]]]:
    """Yield a `dlmlab.generation.decode` that decodes on all devices that the config's `gpus` asks for.

    Args:
        cfg: The run's config, from which every other process loads its model; this process's is on the first device.

    Raises:
        UserError: There aren't so many devices, or one is named besides.
    """
    names = devices(cfg)
    if len(names) < 2:
        yield decode
        return
    processes = Processes(OmegaConf.to_container(cfg, resolve=True), names[1:])
    try:
        yield partial(decode_on_all, processes)
    finally:
        processes.end()


def decode_on_all(
    processes: Processes,
    model: Any,
    requests: Sequence[Request],
    generation: Generation,
    *,
    batch_size: Batch,
    memo: Memo | None,
    on_step: Callable[[StepTiming], None],
    **options: Any,
) -> Iterator[Output]:
    """Fill canvases as `dlmlab.generation.decode` does, a share in this process and one in each of the others.

    Args:
        processes: The others.
        model: This process's model.
        requests: The canvases to fill.
        generation: How canvases are laid out and scheduled.
        batch_size: As the user asked for it; its log takes what the others say of theirs.
        memo: This process's; where it lies on the disk, every other opens it for itself.
        on_step: Is told every step of all.
        **options: See `dlmlab.denoise.Options`.

    Yields:
        The outputs, as rows finish.
    """
    first, *others = shares(requests, processes.number + 1)
    kept = isinstance(memo, DiskMemo) or memo
    processes.begin([Share(share, generation, batch_size.asked, kept, options) for share in others])

    def told(found: Iterator[Any]) -> Iterator[Output]:
        for each in found:
            if isinstance(each, Output):
                yield each
            elif isinstance(each, StepTiming):
                on_step(each)
            else:
                batch_size.log += each.log

    try:
        own = decode(model, first, generation, batch_size=batch_size, memo=memo, on_step=on_step, **options)
        for output in own:
            yield output
            yield from told(processes.ready())
        yield from told(processes.rest())
    finally:
        processes.stop()


def shares(requests: Sequence[Request], number: int) -> list[list[Request]]:
    """Part requests among devices. Requests of one prompt stay together, since they may share passes.

    Args:
        requests: In any order.
        number: Devices.

    Returns:
        The requests of each device, of like lengths and numbers.
    """
    of_prompt = defaultdict[tuple[int, ...], list[Request]](list)
    for request in requests:
        of_prompt[tuple(request.prompt)].append(request)
    groups = sorted(of_prompt.values(), key=lambda group: len(group[0].prompt), reverse=True)
    return [[request for group in groups[first::number] for request in group] for first in range(number)]


class Processes:
    """Processes that load the model, then decode share after share. What they find comes back as it is found.

    Args:
        config: The run's config, resolved.
        names: The devices, such as `cuda:1`, of a process each.
    """

    def __init__(self, config: Any, names: Sequence[str]) -> None:
        self._config, self._names = config, names
        self._context = multiprocessing.get_context("spawn")
        self._busy = set[str]()
        self._start()

    @property
    def number(self) -> int:
        return len(self._names)

    def begin(self, shares: Sequence[Share]) -> None:
        """Give each process a share."""
        if not self._running:
            self._start()
        for name, share in zip(self._names, shares, strict=True):
            self._inbox[name].put(share)
            self._busy.add(name)

    def ready(self) -> Iterator[Any]:
        """Yield what has been found since the last time, without waiting."""
        while self._busy and (found := self._next(0.0)) is not None:
            yield found

    def rest(self) -> Iterator[Any]:
        """Yield everything else that is found, until all are done or the user asks for an end."""
        while self._busy and not asked():
            if (found := self._next(POLL_SECONDS)) is not None:
                yield found

    def stop(self) -> None:
        """End the processes if some are not done with their shares, which nobody waits for any more."""
        if self._busy:
            self.end()

    def end(self) -> None:
        """End all processes."""
        for process in self._running.values():
            process.terminate()
            process.join()
        self._running.clear()
        self._busy.clear()

    def _start(self) -> None:
        self._found = self._context.Queue()
        self._inbox = {name: self._context.Queue() for name in self._names}
        self._running = {
            name: self._context.Process(target=work, args=(self._config, name, inbox, self._found), daemon=True)
            for name, inbox in self._inbox.items()
        }
        for process in self._running.values():
            process.start()

    def _next(self, seconds: float) -> Output | StepTiming | Ended | None:
        try:
            name, found = self._found.get(timeout=seconds) if seconds else self._found.get_nowait()
        except Empty:
            for name in self._busy:
                if (status := self._running[name].exitcode) is not None and self._found.empty():
                    raise UserError(f"the process on {name} ended with {status}: resume= goes on") from None
            return None
        if isinstance(found, Ended):
            self._busy.remove(name)
            if found.lines:
                raise UserError(*found.lines)
            if found.error:
                raise RuntimeError(f"the process on {name} failed:\n{found.error}")
        return found  # type: ignore[no-any-return]


def work(config: Any, device: str, inbox: Any, found: Any) -> None:
    """Decode share after share in a process of its own, and tell what is found.

    Args:
        config: The run's config, resolved, from which the model is loaded.
        device: The process's own, such as `cuda:1`.
        inbox: The queue of shares.
        found: The queue that takes steps, outputs and, last for each share, an `Ended`, each with the device's name.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process is told as well, and ends this one
    cfg = OmegaConf.create(config | {"device": device})

    def tell(what: Output | StepTiming | Ended) -> None:
        found.put((device, what))

    log: Sequence[Mapping[str, Any]] = ()
    try:
        model = build.model(cfg)
        while True:
            share = inbox.get()
            batch = Batch(share.batch_size)
            log = batch.log
            memo = build.memo(cfg, model, share.generation) if share.memo is True else share.memo
            outputs = decode(
                model, share.requests, share.generation, batch_size=batch, memo=memo, on_step=tell, **share.options
            )
            for output in outputs:
                tell(output)
            tell(Ended(batch.log))
    except UserError as error:
        tell(Ended(log, lines=error.args))
    except Exception:
        tell(Ended(log, traceback.format_exc()))
