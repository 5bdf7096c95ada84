"""Which weights these are, by their bytes: a large file is read once, and again whenever it may have changed."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from dlmlab.paths import home
from dlmlab.record.files import parse_json, read_bytes, write_text

LARGE = 2**26
"""Bytes of a file from which on its hash is kept; a smaller one is read faster than it is looked up."""
SETTLED_SECONDS = 2.0
"""Least seconds that a file must have been left alone before its hash is kept: clocks of file systems are coarse."""


def combined(files: Iterable[Path]) -> str:
    """Return sha256, in hex, over the names and digests of files."""
    files = list(files)
    with ThreadPoolExecutor() as pool:
        digests = pool.map(sha256, files)
    lines = "".join(f"{digest}  {file.name}\n" for digest, file in zip(digests, files, strict=True))
    return hashlib.sha256(lines.encode()).hexdigest()


def of_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Return sha256, in hex, over the names, kinds, shapes and values of tensors, such as a model's `state_dict()`."""
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def sha256(file: Path) -> str:
    """Return a file's sha256, in hex: of its bytes, whatever it is called or linked to."""
    state = file.stat()
    key = " ".join(map(str, (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)))
    if state.st_size >= LARGE and (kept := known().get(key)):
        return kept
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if state.st_size >= LARGE and time.time() - state.st_ctime > SETTLED_SECONDS:
        with suppress(OSError):  # then it is read again next time
            write_text(cache(), json.dumps({**known(), key: digest}, indent=0))
    return digest


def known() -> dict[str, str]:
    """Return the hashes that are kept, by a file's device, inode, size and times."""
    try:
        found = parse_json(read_bytes(cache()))
    except (OSError, ValueError, RecursionError):
        return {}
    return {key: each for key, each in found.items() if isinstance(each, str)} if isinstance(found, dict) else {}


def cache() -> Path:
    """Return where hashes are kept."""
    return home() / "outputs" / ".fingerprints.json"
