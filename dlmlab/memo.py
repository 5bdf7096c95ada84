"""Remember forward passes on disk: a canvas that was ever computed is never computed again.

python -m dlmlab.memo            # where it is, how many entries, how large
python -m dlmlab.memo clear      # empty it

One SQLite file for all models and settings. Processes of one machine may share it; on a cluster give each node its own
(memo_path=/local/…), since SQLite's log of changes does not work over a network file system. LMDB reads faster (3 µs
against 16 µs, beside milliseconds for a forward pass), but ends the process with a bus error where its file is cut off.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import sqlite3
import sys
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dlmlab.errors import UserError
from dlmlab.loop.shared_pass import Proposed
from dlmlab.policy import Policy
from dlmlab.record.files import plain, visible
from dlmlab.record.memo_file import connect, default_path, is_memo, remedy, used_bytes
from dlmlab.rule import Rule
from dlmlab.types import Generation, check_number

log = logging.getLogger(__name__)

GIGABYTE = 10**9
CHECKSUM_BYTES = 16
NUMERICS = ("loop/canvases.py", "loop/propose.py", "model/*.py", "kernel/*.py")
"""Patterns, below this folder, of the source files whose change may change a proposal."""
PACKAGES = ("torch", "transformers", "bitsandbytes")
RULE_FREE = ("gen_length", "steps", "temperature", "stop_at_end", "canvas", "schedule")
"""Settings of a `Generation` that a greedy proposal does not depend on, other than through the canvas."""


class DiskMemo:
    """A `dlmlab.loop.shared_pass.Memo` for one model and way of scoring, in a file that others share.

    A damaged entry counts as missing. Where the file cannot be used, one line on stderr says so and nothing is
    remembered.

    Args:
        path: The file.
        model: The model whose proposals are kept.
        generation: How tokens are chosen and scored.
        max_gb: The most GB of 10^9 bytes that the file may take; beyond it the oldest entries go, of whatever model.

    Raises:
        UserError: max_gb is no positive number.
    """

    def __init__(self, path: Path, model: Any, generation: Generation, max_gb: float):
        check_number("memo_gb", max_gb, low=0.001)
        self.path = path
        self._places = generation.block_length
        self._dtype = np.dtype(generation.confidence_dtype)
        self._namespace = namespace(model, generation)
        self._max_bytes = int(max_gb * GIGABYTE)
        self._file: sqlite3.Connection | None = None
        try:
            self._file = connect(path)
        except (sqlite3.Error, OSError) as error:
            self._give_up(error)

    def get(self, key: bytes) -> Proposed | None:
        """Return the tokens and confidences kept under a key, each (K,); None where there are none, or damaged ones."""
        if self._file is None:
            return None
        name = self._name(key)
        try:
            row = self._file.execute("SELECT value FROM memo WHERE key = ?", (name,)).fetchone()
        except sqlite3.Error as error:
            self._give_up(error)
            return None
        return None if row is None else self._unpack(name, row[0])

    def update(self, found: Mapping[bytes, Proposed]) -> None:
        """Keep proposals; they outlast the process once this returns."""
        if self._file is None:
            return
        names = {self._name(key): value for key, value in found.items()}
        entries = [(name, _pack(name, value)) for name, value in names.items()]
        try:
            self._file.execute("BEGIN IMMEDIATE")
            with self._file:
                self._file.executemany("INSERT OR REPLACE INTO memo (key, value) VALUES (?, ?)", entries)
                if used_bytes(self._file) > self._max_bytes:
                    self._file.execute(
                        "DELETE FROM memo WHERE rowid IN (SELECT rowid FROM memo ORDER BY rowid LIMIT ?)",
                        (2 * len(entries),),
                    )
        except sqlite3.Error as error:
            self._give_up(error)

    def _name(self, key: bytes) -> bytes:
        return hashlib.blake2b(self._namespace + key, digest_size=32).digest()

    def _unpack(self, name: bytes, value: object) -> Proposed | None:
        if not isinstance(value, bytes):
            return None
        checksum, content = value[:CHECKSUM_BYTES], value[CHECKSUM_BYTES:]
        right_size = len(content) == self._places * (np.dtype(np.int32).itemsize + self._dtype.itemsize)
        if not right_size or checksum != _checksum(name, content):
            return None
        token_K = np.frombuffer(content, np.int32, self._places)
        return token_K.astype(np.int64), np.frombuffer(content, self._dtype, self._places, token_K.nbytes)

    def _give_up(self, error: Exception) -> None:
        self._file = None
        log.warning(visible(f"the memo {self.path} is not used: {error}; {remedy(error, self.path)}"))


def _pack(name: bytes, proposed: Proposed) -> bytes:
    token_K, confidence_K = proposed
    content = token_K.astype(np.int32).tobytes() + confidence_K.tobytes()
    return _checksum(name, content) + content


def _checksum(name: bytes, content: bytes) -> bytes:
    return hashlib.blake2b(name + content, digest_size=CHECKSUM_BYTES).digest()


def namespace(model: Any, generation: Generation) -> bytes:
    """Return a hash of everything but the canvas and block that a greedy proposal can depend on.

    Args:
        model: Its weights, config and dtype count.
        generation: How canvases are laid out, scheduled and scored.
    """
    root = Path(__file__).parent
    sources = [path for pattern in NUMERICS for path in _matching(root, pattern)]
    modules = model.modules() if isinstance(model, torch.nn.Module) else ()
    parts = {
        "weights": model.fingerprint,
        "tensors": sorted({f"{type(part).__name__} {p.dtype}" for part in modules for p in part.parameters()}),
        "config": model.config.to_dict(),
        "end_token_ids": model.end_token_ids,
        "device": model.device.type,
        "kernels": [model.packs_rows, model.greedy_kernel],
        "cpu": torch.backends.cpu.get_cpu_capability() if model.device.type == "cpu" else None,
        "gpu": torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else None,
        "generation": {key: value for key, value in asdict(generation).items() if key not in RULE_FREE},
        "matmul": torch.get_float32_matmul_precision(),
        "packages": {name: version(name) for name in PACKAGES},
        "code": [hashlib.sha256(path.read_bytes()).hexdigest() for path in sources],
    }
    return hashlib.sha256(json.dumps(plain(parts), sort_keys=True).encode()).digest()


def _matching(root: Path, pattern: str) -> list[Path]:
    """Return the files that match a pattern in NUMERICS, sorted.

    Raises:
        ValueError: No file matches, so the pattern names code that has moved.
    """
    if not (found := sorted(root.glob(pattern))):
        raise ValueError(f"NUMERICS has {pattern!r}, which matches no file below {root}")
    return found


def use(on: bool, rule: Rule, generation: Generation, cache: Policy | None = None) -> str:
    """Say, for a report, whether a rule's forward passes are looked up in the memo.

    Args:
        on: Whether the memo is asked for.
        rule: The decoder.
        generation: How canvases are laid out, scheduled and scored.
        cache: The cache of keys and values, if there is one.
    """
    if not on:
        return "off"
    if cache is not None and cache.keeps:
        return "bypassed: with a cache a pass depends on those before it"
    if generation.temperature:
        return "bypassed: answers are drawn at random"
    return "on" if rule.memoisable else f"bypassed: {type(rule).__name__} sees more than tokens and confidences"


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m dlmlab.memo", description="Forward passes remembered on disk.")
    parser.add_argument("action", nargs="?", choices=["show", "clear"], default="show")
    parser.add_argument("--path", type=Path, default=default_path(), help="the file (%(default)s)")
    args = parser.parse_args()
    try:
        print(visible(f"{args.path}: {clear(args.path) if args.action == 'clear' else describe(args.path)}"))
    except (sqlite3.Error, OSError) as error:
        print(visible(f"{args.path}: {error}; {remedy(error, args.path)}"), file=sys.stderr)
        return 1
    except UserError as error:
        print(visible(str(error)), file=sys.stderr)
        return 1
    return 0


def describe(path: Path) -> str:
    """Say how much a memo holds.

    Raises:
        sqlite3.Error: The memo can't be read.
        OSError: Likewise.
    """
    if not path.exists():
        return "none yet"
    with closing(connect(path)) as file:
        [count] = file.execute("SELECT count(*) FROM memo").fetchone()
        return f"{count} entries, {used_bytes(file) / GIGABYTE:.3f} GB"


def clear(path: Path) -> str:
    """Remove a memo.

    Raises:
        UserError: The file is no memo.
        OSError: It can't be removed.
    """
    if not path.exists():
        return "none yet"
    if not is_memo(path):
        raise UserError(f"{path} is no memo of dlmlab: it is left as it is")
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    return "cleared"


if __name__ == "__main__":
    sys.exit(main())
