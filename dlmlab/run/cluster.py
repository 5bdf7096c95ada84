"""The GPUs of a Ray cluster: one of this machine for this process, and a helper on every other that is free."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
import torch
from ray.util.queue import Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from dlmlab.errors import UserError
from dlmlab.loop.shared_pass import Memo
from dlmlab.memo import DiskMemo
from dlmlab.run.helpers import Helpers, work

SECONDS = 30
"""How long a cluster, and a GPU that it has, are waited for."""
REMEDY = "name one in RAY_ADDRESS that this machine is part of, or start one with `ray start --head`"


class Holder:
    """Holds a GPU of the cluster for a process that Ray did not start."""

    def number(self) -> int:
        """Return which of its machine's GPUs it is."""
        return int(ray.get_gpu_ids()[0])


class Tasks(Helpers):
    """Helpers on a Ray cluster, with a GPU each."""

    def memo_of(self, memo: Memo | None) -> Memo | bool | None:
        return {} if isinstance(memo, DiskMemo) else memo  # a file of this machine

    def end(self) -> None:
        for task in self._running.values():
            ray.cancel(task, force=True)
        for queue in (self._found, *self._inbox.values()):
            queue.shutdown(force=True)
        self._running.clear()

    def _start(self) -> None:
        self._found = Queue()
        start = ray.remote(num_gpus=1, max_retries=0)(work)
        for name in self._names:
            self._inbox[name] = Queue()
            self._running[name] = start.remote(self._config, name, self._inbox[name], self._found)

    def _end_of(self, name: str) -> object:
        if not ray.wait([self._running[name]], timeout=0)[0]:
            return None
        try:
            return ray.get(self._running[name]) or "nothing to say"
        except ray.exceptions.RayError as error:
            return str(error).partition("\n")[0]


@contextmanager
def joined(config: Any) -> Iterator[Tasks]:
    """Join the cluster, and yield helpers on all GPUs of it that are free, but for one that this process takes.

    The cluster is the one that RAY_ADDRESS names, or that this machine is part of.

    Args:
        config: The run's config, resolved.

    Raises:
        UserError: There is no cluster, or no free GPU of it on this machine.
    """
    check_address(os.environ.get("RAY_ADDRESS") or "auto")
    try:
        ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR)
    except ConnectionError as error:
        raise UserError(f"gpus=ray finds no Ray cluster: {REMEDY}") from error
    try:
        free = int(ray.available_resources().get("GPU", 0))  # type: ignore[no-untyped-call]
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        holder: Any = ray.remote(num_gpus=1, num_cpus=0)(Holder).options(scheduling_strategy=here).remote()
        try:
            use(ray.get(holder.number.remote(), timeout=SECONDS))
        except (ray.exceptions.GetTimeoutError, ray.exceptions.ActorUnschedulableError) as error:
            raise UserError(
                "gpus=ray: the cluster has no free GPU on this machine, which decodes as well: start the run on one "
                "that has"
            ) from error
        helpers = Tasks(config, [f"the cluster's GPU {number}" for number in range(1, free)])
        try:
            yield helpers
        finally:
            helpers.end()
    finally:
        ray.shutdown()


def check_address(address: str) -> None:
    """Raise UserError for an address at which no cluster answers: Ray itself would wait for minutes.

    Args:
        address: A cluster's, as Ray writes them; `auto` is of the one that this machine is part of.
    """
    if "://" in address:
        raise UserError(f"RAY_ADDRESS={address} is no machine's of a cluster: gpus=ray decodes here as well, {REMEDY}")
    host, _, port = address.rpartition(":")
    if not host:
        return
    try:
        socket.create_connection((host, int(port)), SECONDS).close()
    except (OSError, ValueError) as error:
        raise UserError(f"RAY_ADDRESS={address}: no Ray cluster answers there: {REMEDY}") from error


def use(number: int) -> None:
    """Let `cuda` mean one of this machine's GPUs in this process.

    Args:
        number: The GPU, as Ray counts them.
    """
    if torch.cuda.is_available():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        torch.cuda.set_device(visible.split(",").index(str(number)) if visible else number)
