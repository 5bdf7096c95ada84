"""Where a training stands: weights, optimisers and progress in one safetensors file, so that a kill costs little."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from dlmlab.record.files import replacing

log = logging.getLogger(__name__)


@dataclass
class Progress:
    """How far a training is.

    Attributes:
        ahead: The shares of the way yet to be measured at.
        step: The next step.
        elapsed: Seconds of optimisation.
        losses: The losses so far, one for each log line.
        accuracy: The measurements so far, each with the `round` that it was made in.
        round: The round of rows that the next step's batch is of.
        round_began: That round's first step.
        sizes: Rows of each layout in a batch, from the first step on; `training.batch_size` says nothing afterwards.
        processes: How many share a batch, since `room` was found.
        room: The positions that each one's part of a batch has room for, which no later round changes.
    """

    ahead: list[float]
    step: int = 0
    elapsed: float = 0.0
    losses: list[float] = field(default_factory=list)
    accuracy: list[dict[str, Any]] = field(default_factory=list)
    round: int = 0
    round_began: int = 0
    sizes: list[int] = field(default_factory=list)
    processes: int = 0
    room: int = 0


def save(path: Path, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer], progress: Progress) -> None:
    """Replace the file at once.

    Args:
        path: The file; its folder is made where it is missing.
        model: The network.
        optimizers: Its optimisers; `load` is given them in the same order.
        progress: Where the training stands.

    Raises:
        OSError: The file can't be written.
    """
    tensors = {f"model/{name}": tensor.contiguous() for name, tensor in model.state_dict().items()}
    for number, optimizer in enumerate(optimizers):
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer {number}/{index}/{name}": tensor.contiguous() for name, tensor in state.items()}
    told = json.dumps(asdict(progress))
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as draft:
        save_file(tensors, draft, metadata={"progress": told, "digest": digest(tensors, told)})


def load(path: Path, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> Progress | None:
    """Put model and optimisers where they were.

    Args:
        path: The file that `save` wrote, if any.
        model: The network, which gets its weights.
        optimizers: Its optimisers, which get their states.

    Returns:
        Where the training stands; None without a file, and for a damaged one, with a line on stderr.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            told = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (an open file is no dict)
    except SafetensorError:
        told, tensors = {}, {}
    if told.get("digest") != digest(tensors, told.get("progress", "")):
        log.warning("%s is damaged: training begins anew", path)
        return None
    model.load_state_dict({name.removeprefix("model/"): each for name, each in tensors.items() if name[:6] == "model/"})
    for number, optimizer in enumerate(optimizers):
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            owner, _, rest = name.partition("/")
            if owner == f"optimizer {number}":
                index, _, key = rest.partition("/")
                state.setdefault(int(index), {})[key] = tensor
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return Progress(**json.loads(told["progress"]))


def digest(tensors: Mapping[str, Tensor], told: str) -> str:
    """Return what safetensors itself doesn't keep: a checksum of the content.

    Args:
        tensors: The tensors by name; their order plays no part.
        told: The progress, as JSON.
    """
    found = hashlib.blake2b(told.encode(), digest_size=16)
    for name in sorted(tensors):
        found.update(name.encode())
        found.update(tensors[name].cpu().numpy().tobytes())
    return found.hexdigest()
