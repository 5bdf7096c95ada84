"""The GPUs of a Ray cluster: one of this machine for this process, and a helper on every other that is free."""

from __future__ import annotations

import logging
import os
import signal
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

log = logging.getLogger(__name__)

SECONDS = 30
"""How long a cluster, and the GPUs that it has, are waited for."""
REMEDY = "name one in RAY_ADDRESS that this machine is part of, as host:port, or start one with `ray start --head`"


class Holder:
    """Holds a GPU of the cluster, for a process that Ray did not start, or for a helper."""

    def number(self) -> str:
        """Return which of its machine's GPUs it is, as Ray calls it."""
        return str(ray.get_gpu_ids()[0])

    def work(self, *told: Any) -> None:
        """See `dlmlab.run.helpers.work`."""
        work(*told)


class Tasks(Helpers):
    """Helpers on a Ray cluster, with a GPU each; those that find one in time take part."""

    def memo_of(self, memo: Memo | None) -> Memo | bool | None:
        return {} if isinstance(memo, DiskMemo) else memo  # a file of this machine

    def end(self) -> None:
        for holder in self._holders:
            ray.kill(holder)
        for queue in (self._found, *self._inbox.values()):
            queue.shutdown(force=True)
        self._running.clear()
        self._inbox.clear()

    def _start(self) -> None:
        self._found = Queue()
        holders: dict[Any, Any] = {}
        for _ in self._names:
            holder: Any = ray.remote(num_gpus=1, num_cpus=0)(Holder).remote()
            holders[holder.number.remote()] = holder
        up = ray.wait(list(holders), num_returns=len(holders), timeout=SECONDS)[0] if holders else []
        for late in holders.keys() - set(up):
            ray.kill(holders[late])
        self._holders = [holders[each] for each in up]
        for name, holder in zip(self._names, self._holders, strict=False):
            self._inbox[name] = Queue()
            self._running[name] = holder.work.remote(self._config, name, self._inbox[name], self._found)
        log.info("gpus=ray decodes on %d GPUs of %d", len(up) + 1, len(holders) + 1)

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
    if ray.is_initialized():
        raise UserError("gpus=ray is for a run by itself, and this is a job of Ray's: leave gpus out")
    on_end = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR)
    except ConnectionError as error:
        raise UserError(f"gpus=ray finds no Ray cluster: {REMEDY}") from error
    signal.signal(signal.SIGTERM, on_end)  # Ray has put its own there
    try:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        own: Any = ray.remote(num_gpus=1, num_cpus=0)(Holder).options(scheduling_strategy=here).remote()
        try:
            use(ray.get(own.number.remote(), timeout=SECONDS))
        except (ray.exceptions.GetTimeoutError, ray.exceptions.ActorUnschedulableError) as error:
            raise UserError(
                "gpus=ray: the cluster has no free GPU on this machine, which decodes as well: start the run on one "
                "that has"
            ) from error
        gpus = int(ray.cluster_resources().get("GPU", 0))  # type: ignore[no-untyped-call]
        helpers = Tasks(config, [f"the cluster's GPU {number}" for number in range(1, gpus)])
        try:
            yield helpers
        finally:
            helpers.end()
    finally:
        ray.shutdown()


def check_address(address: str) -> None:
    """Raise UserError for an address at which no cluster answers: Ray itself would wait for minutes.

    Args:
        address: A cluster's, host:port; `auto` is of the one that this machine is part of.
    """
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), SECONDS).close()
    except (OSError, ValueError) as error:
        raise UserError(f"RAY_ADDRESS={address}: no Ray cluster answers there: {REMEDY}") from error


def use(number: str) -> None:
    """Let `cuda` mean one of this machine's GPUs in this process.

    Args:
        number: The GPU, as Ray calls it.

    Raises:
        UserError: This process doesn't see it.
    """
    if not torch.cuda.is_available():
        return
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    seen = visible.split(",") if visible else [str(index) for index in range(torch.cuda.device_count())]
    if number not in seen:
        raise UserError(
            f"gpus=ray was given GPU {number} of this machine, and CUDA_VISIBLE_DEVICES={visible} hides it: unset that"
        )
    torch.cuda.set_device(seen.index(number))
