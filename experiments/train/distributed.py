"""Several GPUs of one host train together, a process for each."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException, spawn

from dlmlab.errors import UserError
from dlmlab.record.files import parse_json, read_bytes, write_json
from experiments.train.data import Rows

RESULTS = "results.json"


def together(work: Callable[..., dict[str, Any]], device: str, processes: int | None = None, **settings: Any) -> Any:
    """Call `work` with settings and a device in a process for each GPU, or in this one where there are no several.

    Args:
        work: What each process does. Its result is something that JSON can hold.
        device: `cpu`, `cuda`, or one device; only with `cuda` are all GPUs taken.
        processes: How many on a CPU, which they share; None is a process for each GPU, or this one.
        **settings: What `work` is given beside the device; `out` among them, beside which the result is written.

    Returns:
        What the first has made.
    """
    count = processes or (torch.cuda.device_count() if device == "cuda" else 1)
    if count < 2:
        return work(**settings, device=device)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    results = _results(settings["out"])
    results.unlink(missing_ok=True)
    try:
        spawn(_join, (work, device, count, port, settings), nprocs=count)
    except (ProcessExitedException, ProcessRaisedException):
        if results.exists() and (lines := parse_json(read_bytes(results)).get("error")):
            raise UserError(*lines) from None
        raise
    return parse_json(read_bytes(results))


def _join(
    own: int, work: Callable[..., dict[str, Any]], device: str, count: int, port: int, settings: dict[str, Any]
) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    place = device if device == "cpu" else f"cuda:{own}"
    if place != "cpu":
        torch.cuda.set_device(own)
    dist.init_process_group("gloo" if place == "cpu" else "cpu:gloo,cuda:nccl", rank=own, world_size=count)
    try:
        made = work(**settings, device=place)
        if own == 0:
            write_json(_results(settings["out"]), made)
        dist.barrier()
    except UserError as error:
        write_json(_results(settings["out"]), {"error": error.args})
        raise
    finally:
        dist.destroy_process_group()


def _results(out: Path) -> Path:
    return out.with_name(f"{out.name}.{RESULTS}")


def shared(out: Path, draw: Callable[[], list[Rows]]) -> list[Rows]:
    """Return rows that the first process draws; where there are several, all read them from files that it writes.

    Args:
        out: The checkpoint's folder, beside which the files are.
        draw: Draws the rows, by layout.
    """
    if world() == 1:
        return draw()
    folder = out.with_name(f"{out.name}.rows")
    if rank() == 0:
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed, which may have had more layouts
        folder.mkdir(parents=True)
        for number, rows in enumerate(draw()):
            for name, column in rows._asdict().items():
                np.save(folder / f"{number}.{name}.npy", column)
    dist.barrier()
    numbers = range(len({path.name.partition(".")[0] for path in folder.glob("*.npy")}))
    found = [Rows(*(np.load(folder / f"{number}.{name}.npy") for name in Rows._fields)) for number in numbers]
    dist.barrier()
    if rank() == 0:
        shutil.rmtree(folder)
    return found


def say(line: str) -> None:
    """Print a line, in one of the processes."""
    if rank() == 0:
        print(line, flush=True)


def rank() -> int:
    """Return which of the processes this is."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """Return how many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def agreed(seconds: float) -> float:
    """Return the first process's clock, by which all end after the same step."""
    if world() == 1:
        return seconds
    clock = torch.tensor([seconds], dtype=torch.float64)  # on the host, so that no device is waited for
    dist.broadcast(clock, 0)
    return float(clock.item())


def add_up(numbers: torch.Tensor) -> None:
    """Put the sums over all processes into a tensor of each."""
    if world() > 1:
        dist.all_reduce(numbers)
