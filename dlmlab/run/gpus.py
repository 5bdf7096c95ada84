"""Decode on several GPUs, of one host or of a Ray cluster, as one run: a process for each, the first of which is this.

Outputs come back to this process, which scores and keeps them: the run has one folder, and resumes as any other.
"""

from __future__ import annotations

import importlib.util
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from dlmlab.denoise import StepTiming
from dlmlab.errors import UserError
from dlmlab.generation import decode
from dlmlab.loop.batch import Batch
from dlmlab.loop.shared_pass import Memo
from dlmlab.run.helpers import Helpers, Processes, Share
from dlmlab.types import Generation, Output, Request

RAY = "ray"


def devices(cfg: DictConfig) -> list[str]:
    """Return the devices of this host that the config's `gpus` asks for; none where it doesn't, or asks for a cluster.

    Raises:
        UserError: There aren't so many, or a device is named besides, or Ray is missing.
    """
    if cfg.get("gpus") is None:
        return []
    if cfg.device not in ("auto", "cuda"):
        raise UserError(f"device={cfg.device} and gpus={cfg.gpus} both name devices: leave one of them out")
    if cfg.gpus == RAY:
        if importlib.util.find_spec(RAY) is None:
            raise UserError("gpus=ray needs Ray: pip install 'dlmlab[ray]'")
        return []
    have = torch.cuda.device_count()
    wanted = max(have, 1) if cfg.gpus == "all" else cfg.gpus
    if wanted > have:
        raise UserError(f"gpus={cfg.gpus}, but this machine has {have}: ask for fewer, or leave gpus out")
    return [f"cuda:{number}" for number in range(wanted)]


@contextmanager
def spread(cfg: DictConfig) -> Iterator[Callable[..., Iterator[Output]]]:
    """Yield a `dlmlab.generation.decode` that decodes on all devices that the config's `gpus` asks for.

    This process's model belongs on the first of them, which `device=auto` means.

    Args:
        cfg: The run's config, from which every other process loads its model.

    Raises:
        UserError: There aren't so many devices, or one is named besides, or no cluster is found.
    """
    names = devices(cfg)
    if cfg.get("gpus") == RAY:
        from dlmlab.run.cluster import joined

        with joined(OmegaConf.to_container(cfg, resolve=True)) as helpers:
            yield partial(decode_on_all, helpers) if helpers.start() else decode
    elif len(names) > 1:
        processes = Processes(OmegaConf.to_container(cfg, resolve=True), names[1:])
        try:
            yield partial(decode_on_all, processes)
        finally:
            processes.end()
    else:
        yield decode


def decode_on_all(
    helpers: Helpers,
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
        helpers: The others.
        model: This process's model.
        requests: The canvases to fill.
        generation: How canvases are laid out and scheduled.
        batch_size: As the user asked for it; its log takes what the others say of theirs.
        memo: This process's; where it lies on the disk, every other on this host opens it for itself.
        on_step: Is told every step of all.
        **options: See `dlmlab.denoise.Options`.

    Yields:
        The outputs, as rows finish.
    """
    first, *others = shares(requests, helpers.start() + 1)
    kept = helpers.memo_of(memo)
    helpers.begin([Share(share, generation, batch_size.asked, kept, options) for share in others])

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
            yield from told(helpers.ready())
        yield from told(helpers.rest())
    finally:
        helpers.stop()


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
