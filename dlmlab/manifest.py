"""Record what made a result: config, code, packages, machine, weights, tokenizer, data and seed, in manifest.json.

python -m dlmlab.manifest diff outputs/A outputs/B      # what differs between two runs
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from importlib.metadata import distributions
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlmlab.errors import UserError
from dlmlab.record.files import plain, visible, write_json
from dlmlab.record.folder import MANIFEST, read_manifest
from dlmlab.record.machine import answer_of, machine, torch_settings

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from dlmlab.model.llada import LLaDAModelLM
    from dlmlab.task.base import Task

NAME = MANIFEST
TIMES = {"started", "ended"}
"""Keys in which any two runs differ."""


def manifest(cfg: DictConfig, model: LLaDAModelLM | None = None, tasks: Sequence[Task] = ()) -> dict[str, Any]:
    """Describe a run that starts now, in JSON's own types; `finish` adds its end.

    Args:
        cfg: The run's config.
        model: The model, for experiments that load one.
        tasks: The tasks whose items are decoded.
    """
    from omegaconf import OmegaConf

    return {
        "started": now(),
        "ended": None,
        "command": shlex.join([Path(sys.orig_argv[0]).name, *sys.orig_argv[1:]]),
        "seed": cfg.get("seed"),
        "config": plain(OmegaConf.to_container(cfg, resolve=True)),
        "git": git(),
        "code": code(),
        "model": None if model is None else describe_model(model),
        "data": describe_data(tasks),
        "machine": machine(),
        "torch": torch_settings(),
        "python": platform.python_version(),
        "packages": {each.name: each.version for each in sorted(distributions(), key=lambda each: each.name.lower())},
    }


def finish(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the manifest of a run that ends now."""
    return {**manifest, "ended": now()}


def save(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write a run's manifest into its folder.

    Args:
        folder: The run's.
        manifest: The manifest, as JSON can hold it.

    Raises:
        OSError: It can't be written.
    """
    write_json(folder / NAME, manifest)


def now() -> str:
    """Return the local time with its offset, to the second (ISO 8601)."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def git() -> dict[str, Any] | None:
    """Return the commit that holds this code, and whether anything but outputs/ differs from it; None outside a
    checkout.
    """
    root = Path(__file__).resolve().parents[1]
    found = answer_of("git", "-C", str(root), "rev-parse", "--show-toplevel", "HEAD")
    if found is None or Path(found.splitlines()[0]).resolve() != root:
        return None
    changes = answer_of(
        "git", "--no-optional-locks", "-C", str(root), "status", "--porcelain", "--", ".", ":(exclude)outputs"
    )
    return {"commit": found.splitlines()[1], "dirty": None if changes is None else bool(changes)}


def code() -> str:
    """Return the sha256, in hex, of all Python that a run's numbers can come from."""
    root = Path(__file__).resolve().parents[1]
    files = sorted(file for part in ("dlmlab", "experiments") for file in (root / part).rglob("*.py"))
    digests = (f"{file.relative_to(root)} {hashlib.sha256(file.read_bytes()).hexdigest()}\n" for file in files)
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def describe_model(model: LLaDAModelLM) -> dict[str, Any]:
    """Return what identifies the weights and the tokenizer, their precision and device, and the hub's commit if
    there is one.
    """
    return {
        "fingerprint": model.fingerprint,
        "commit": model.commit,
        "tokenizer": tokenizer_fingerprint(model.tokenizer),
        "end_token_ids": list(model.end_token_ids),
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": str(model.device),
    }


def describe_data(tasks: Sequence[Task]) -> dict[str, Any]:
    """Return, by the task's name, what identifies the items and their scoring."""
    return {task.name: {"version": task.version, "fingerprint": task.fingerprint} for task in tasks}


def tokenizer_fingerprint(tokenizer: Any) -> str | None:
    """Return the sha256, in hex, of all that a fast tokenizer does: its pipeline, vocabulary and chat template."""
    if tokenizer is None:
        return None
    content = tokenizer.backend_tokenizer.to_str() + str(tokenizer.chat_template)
    return hashlib.sha256(content.encode()).hexdigest()


def hardware(manifest: Mapping[str, Any]) -> str:
    """Name in one line what a run was measured on: the GPU where the model was on one, else the processor."""
    device = (manifest["model"] or {}).get("device", "cpu")
    if device.startswith("cuda"):
        gpu = manifest["machine"]["gpus"][int(device.partition(":")[2] or 0)]
        return f"{gpu['name']}, {gpu['memory_gb']:.0f} GB"
    return f"{manifest['machine']['cpu']}, {manifest['machine']['cores']} cores"


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yield the dotted keys in which two manifests differ, times aside, with both values; None where one lacks
    the key.

    Args:
        a: A manifest, or a part of one.
        b: The other.
    """
    left, right = dict(_flat(a)), dict(_flat(b))
    for key in dict.fromkeys([*left, *right]):
        if key not in TIMES and left.get(key) != right.get(key):
            yield key, left.get(key), right.get(key)


def read(run: Path) -> dict[str, Any]:
    """Return the manifest of a run's folder, of whatever version.

    Raises:
        UserError: There is none.
    """
    return read_manifest(run, needed=())


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for name, each in value.items():
            yield from _flat(each, f"{key}.{name}" if key else name)
    else:
        yield key, value


def main() -> int:
    """Run the command line. The exit status is like `diff`'s: 0 where nothing differs, 1 where something does,
    2 for trouble.
    """
    parser = argparse.ArgumentParser(prog="python -m dlmlab.manifest", description="Compare what made two runs.")
    commands = parser.add_subparsers(required=True, metavar="diff")
    diff = commands.add_parser("diff", help="say what differs between two runs")
    diff.add_argument("runs", nargs=2, type=Path, metavar="RUN", help="folder of a run")
    try:
        found = list(differences(*map(read, parser.parse_args().runs)))
    except (UserError, RecursionError) as error:
        print(visible(str(error)), file=sys.stderr)
        return 2
    for key, a, b in found:
        print(visible(f"{key}: {json.dumps(a, ensure_ascii=False)} → {json.dumps(b, ensure_ascii=False)}"))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
