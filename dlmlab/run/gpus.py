"""Decode on several GPUs of one host: a process for each, of which this one is the first, and one run.

Outputs come back to this process, which scores and keeps them: the run has one folder, and resumes as any other.
"""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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
        config: The run's config, resolved, from which the process loads its model.
        device: The process's own, such as `cuda:1`.
        requests: The canvases that it fills.
        generation: How canvases are laid out and scheduled.
        batch_size: As the user asked for it.
        memo: Whether the process opens the run's memo for itself, or what it keeps proposals in.
        options: See `dlmlab.denoise.Options`.
    """

    config: Any
    device: str
    requests: Sequence[Request]
    generation: Generation
    batch_size: int | str
    memo: Memo | bool | None
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Ended:
    """The last word of a process.

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


def spread(cfg: DictConfig, names: Sequence[str]) -> Callable[..., Iterator[Output]]:
    """Return a `dlmlab.generation.decode` that decodes on several devices, on the first of them in this process.

    Args:
        cfg: The run's config, from which every other process loads its model.
        names: The devices; this process's model is on the first already.
    """
    config = OmegaConf.to_container(cfg, resolve=True)

    def decode_on_all(
        model: Any,
        requests: Sequence[Request],
        generation: Generation,
        *,
        batch_size: Batch,
        memo: Memo | None,
        on_step: Callable[[StepTiming], None],
        **options: Any,
    ) -> Iterator[Output]:
        first, *others = shares(requests, len(names))
        kept = isinstance(memo, DiskMemo) or memo
        processes = Processes(
            Share(config, name, share, generation, batch_size.asked, kept, options)
            for name, share in zip(names[1:], others, strict=True)
        )

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
            processes.end()

    return decode_on_all


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
    """Processes that decode, a share each. What they find comes back as it is found."""

    def __init__(self, parts: Iterator[Share]) -> None:
        context = multiprocessing.get_context("spawn")
        self._found = context.Queue()
        self._running = {
            part.device: context.Process(target=work, args=(part, self._found), daemon=True) for part in parts
        }
        for process in self._running.values():
            process.start()

    def ready(self) -> Iterator[Any]:
        """Yield what has been found since the last time, without waiting."""
        while self._running and (found := self._next(0.0)) is not None:
            yield found

    def rest(self) -> Iterator[Any]:
        """Yield everything else that is found, until all have ended or the user asks for an end."""
        while self._running and not asked():
            if (found := self._next(POLL_SECONDS)) is not None:
                yield found

    def end(self) -> None:
        """End the processes that still run."""
        for process in self._running.values():
            process.terminate()
            process.join()

    def _next(self, seconds: float) -> Output | StepTiming | Ended | None:
        try:
            name, found = self._found.get(timeout=seconds) if seconds else self._found.get_nowait()
        except Empty:
            for name, process in self._running.items():
                if process.exitcode is not None and self._found.empty():
                    raise UserError(f"the process on {name} ended with {process.exitcode}: resume= goes on") from None
            return None
        if isinstance(found, Ended):
            self._running.pop(name).join()
            if found.lines:
                raise UserError(*found.lines)
            if found.error:
                raise RuntimeError(f"the process on {name} failed:\n{found.error}")
        return found  # type: ignore[no-any-return]


def work(share: Share, found: Any) -> None:
    """Decode a share in a process of its own, and tell what is found.

    Args:
        share: What is decoded, and how.
        found: The queue that takes steps, outputs and, last, an `Ended`, each with the device's name.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process is told as well, and ends this one
    batch = Batch(share.batch_size)

    def tell(what: Output | StepTiming | Ended) -> None:
        found.put((share.device, what))

    try:
        cfg = OmegaConf.create(share.config | {"device": share.device})
        model = build.model(cfg)
        memo = build.memo(cfg, model, share.generation) if share.memo is True else share.memo
        outputs = decode(
            model, share.requests, share.generation, batch_size=batch, memo=memo, on_step=tell, **share.options
        )
        for output in outputs:
            tell(output)
    except UserError as error:
        tell(Ended(batch.log, lines=error.args))
    except Exception:
        tell(Ended(batch.log, traceback.format_exc()))
    else:
        tell(Ended(batch.log))
