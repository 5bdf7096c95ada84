"""Where a checkpoint lies and where it goes, by name: a folder, a model of the hub, a device. No torch is imported."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dlmlab.errors import UserError

SHIPPED = Path(__file__).parent
CONFIG = "config.json"
SMALL_FILES = ("*.json", "*.jinja")
ALL_FILES = (*SMALL_FILES, "*.safetensors")
HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
HUB_TIMEOUT = 5.0
"""Seconds for the hub's first answer; without one, what was fetched earlier is used."""
DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")


def check_device_name(device: object) -> None:
    """Raise UserError for what is no device's name."""
    if not DEVICE.fullmatch(str(device)):
        raise UserError(f"device={device!r} is not one of auto, cpu, cuda, cuda:N")


def find(path: str, revision: str | None = None, patterns: Iterable[str] = ALL_FILES, offline: bool = False) -> Path:
    """Return a checkpoint's folder: `path` itself, one that ships with dlmlab, or the snapshot of a hub repository.

    Args:
        path: The folder or the hub name.
        revision: The revision of a hub name.
        patterns: The files that are needed.
        offline: Whether to take only what was fetched from the hub earlier.

    Raises:
        UserError: There is none.
    """
    check_path(path)
    folder = local(path)
    return folder if folder.is_dir() else _fetch(path, revision, patterns, offline)


def check_path(path: str) -> None:
    """Raise UserError for what is neither a folder nor a name that the hub could have."""
    folder = local(path)
    if folder.is_dir():
        return
    if folder.exists():
        raise UserError(f"model path {path!r} is a file: name the folder that holds {CONFIG} and the weights")
    if not HUB_NAME.fullmatch(path):
        raise UserError(
            f"model path {path!r} does not exist: name a checkpoint folder, or a hub name like GSAI-ML/LLaDA-1.5"
        )


def local(path: str) -> Path:
    """Return the path of a local folder: `path`, or the folder of that name (`tiny/v1`) which ships with dlmlab."""
    folder = Path(path).expanduser()
    return SHIPPED / path if not folder.exists() and (SHIPPED / path).is_dir() else folder


def _fetch(name: str, revision: str | None, patterns: Iterable[str], offline: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    options: dict[str, Any] = {"revision": revision, "allow_patterns": [*patterns], "etag_timeout": HUB_TIMEOUT}
    trouble = None if offline else _trouble(name)
    try:
        return Path(snapshot_download(name, **options, local_files_only=offline or trouble is not None))
    except RevisionNotFoundError as error:
        raise UserError(f"model {name!r} has no revision {revision!r} on the hub: name one that exists") from error
    except Exception as error:
        cause = trouble or error
        if isinstance(cause, RepositoryNotFoundError):
            raise UserError(
                f"model {name!r} is neither a local folder nor on the hub for you: correct model.path, or log in with "
                "`hf auth login` where the model asks for it"
            ) from error
        raise UserError(
            f"model {name!r} is neither a local folder nor reachable on the hub ({type(cause).__name__}): "
            f"fetch it where there is a network (hf download {name}) and set model.path to its folder"
        ) from error


def _trouble(name: str) -> Exception | None:
    """Return what keeps the hub from answering about a model, after seconds: a download tries for half a minute."""
    from huggingface_hub import HfApi

    try:
        HfApi().model_info(name, timeout=HUB_TIMEOUT)
    except Exception as error:  # of the network, or of the model: what was fetched earlier is used
        return error
    return None
