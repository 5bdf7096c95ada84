"""What of a recorded config may be built: classes that conf/ names, from plain values, and nothing else.

A run's folder may come from elsewhere. So its config is never resolved, and whatever is built of it is looked at first,
at every level.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from math import prod
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from dlmlab.errors import UserError
from dlmlab.paths import CONF
from dlmlab.run import conf
from dlmlab.settings import faults, kinds_of

TEMPLATES = ("prompt", "answer", "template")
"""Parameters of tasks that fields of an item are put into."""
FIELD = re.compile(r"\{\{\s*\w+\s*\}\}|\{\w+\}")
"""How a template names a field, and nothing else."""
SUBJECT = re.compile(r"mmlu_[a-z_]+_generative|minerva_math_[a-z_]+")
"""lm-eval's names of one subject of a benchmark that conf/task has whole."""
MOST_BYTES = 2**30
"""Most bytes of a data file that a recorded config names."""
MOST: Mapping[str, float] = {
    "cpu_seconds": 60, "wall_seconds": 600, "memory_mb": 16_384, "processes": 64, "file_mb": 1024, "output_kb": 65_536,
    "per_kind": 10_000,
}  # fmt: skip
"""The most that a recorded config may give to a program, or have made."""


def plain_config(recorded: Any) -> DictConfig:
    """Return a recorded config, which is resolved and so has nothing left to look up.

    Raises:
        UserError: It has an interpolation, or is no config.
    """
    if not isinstance(recorded, Mapping):
        raise UserError("the run's config is no group of settings")
    for key, value in leaves(recorded):
        if "${" in key or (isinstance(value, str) and "${" in value):
            raise UserError(f"the run's config looks up {key}={value!r}: a recorded config has plain values alone")
    config: DictConfig = OmegaConf.create(dict(recorded))
    return config


def check_part(group: str, part: Any) -> None:
    """Raise UserError unless a part of a config builds a class that conf/GROUP names, from plain values.

    Args:
        group: The part's group: decoder, task or sandbox.
        part: What the config has there.
    """
    values: Any = OmegaConf.to_container(part) if OmegaConf.is_config(part) else part
    target = values.get("_target_") if isinstance(values, dict) else None
    if not isinstance(target, str) or target not in targets(group):
        raise UserError(f"the run's config names {target}, which is no {group} of dlmlab")
    kinds = kinds_of(resolve_name(target))
    for key, value in values.items():
        if key == "_target_" or value == "???":
            continue
        if key in conf.LAB_KEYS.get(group, ()):
            check_plain(key, value, Any)  # not a parameter, and built nowhere
            continue
        if key not in kinds:
            raise UserError(f"the run's config gives {key} to {target}, which has {', '.join(kinds)}")
        if key == "sandbox":
            check_part("sandbox", value)
        elif isinstance(value, dict) and "_target_" in value:
            check_filter(value)
        else:
            check_plain(key, value, kinds[key])


def check_overrides(part: DictConfig, keys: Sequence[str]) -> None:
    """Raise UserError for what a config gives to tasks of conf/task and is no plain value.

    Args:
        part: The config's task.
        keys: What it may give.
    """
    for key in keys:
        if key in part and not OmegaConf.is_missing(part, key):
            check_plain(key, conf.plain(part[key]), Any)


def check_filter(value: Mapping[str, Any]) -> None:
    """Raise UserError unless this is an answer filter as conf/task names them."""
    if value not in filters():
        raise UserError(f"the run's config names {value.get('_target_')}, which is no answer filter of dlmlab")


def check_plain(key: str, value: Any, kind: Any) -> None:
    """Raise UserError for a value that would be built, is not of its kind, or asks for too much.

    Args:
        key: The setting's name without its group, such as `path`, for which there may be rules of its own.
        value: What the recorded config has under it.
        kind: What it may be, as an annotation; `Any` for anything plain.
    """
    if hydra := [name for name, _ in leaves({key: value}) if "._" in name]:
        raise UserError(f"the run's config has {hydra[0]}, which is no plain value")
    if wrong := faults(key, value, kind):
        raise UserError(*wrong)
    if key in MOST and value > MOST[key]:
        raise UserError(f"{key}={value} is more than the {MOST[key]:g} that a recorded run may ask for")
    if key == "path" and value is not None:
        check_path(Path(value))
    if key in TEMPLATES and isinstance(value, str) and re.search(r"[{}]", FIELD.sub("", value)):
        raise UserError(f"{key}={value!r} does more than to name fields: a recorded template may do no more")
    if key == "task" and value not in harness_tasks() and not SUBJECT.fullmatch(value):
        raise UserError(f"the run's config names lm-eval's {value}, which no file of conf/task does")


def check_grid(config: DictConfig, most: int) -> None:
    """Raise UserError for a grid of more settings than there are.

    Args:
        config: The recorded config; without a `grid` there is nothing to check.
        most: The number of decoders that left samples.
    """
    grid = config.get("grid")
    sizes = [len(each) for each in grid.values() if OmegaConf.is_list(each)] if OmegaConf.is_dict(grid) else []
    if prod(sizes) > most:
        raise UserError(f"the run's config has a grid of {prod(sizes)} settings, of which {most} left samples")


def check_path(path: Path) -> None:
    """Raise UserError for data that can't be read to their end: a pipe, a device, a file beyond all bounds."""
    place = path.expanduser()
    if place.exists() and not place.is_dir() and not (place.is_file() and place.stat().st_size <= MOST_BYTES):
        raise UserError(f"path={path} is no data file of {MOST_BYTES / 2**30:g} GiB at most")


@cache
def targets(group: str) -> frozenset[str]:
    """Return the classes that conf/GROUP names."""
    return frozenset(part["_target_"] for part in configs(group) if "_target_" in part)


@cache
def harness_tasks() -> frozenset[str]:
    """Return the tasks of lm-eval's that conf/task names. Of others it is not known what they would run or fetch."""
    return frozenset(part["task"] for part in configs("task") if isinstance(part.get("task"), str))


@cache
def filters() -> tuple[Mapping[str, Any], ...]:
    """Return the answer filters that conf/task names."""
    return tuple(part["filter"] for part in configs("task") if isinstance(part.get("filter"), dict))


def configs(group: str) -> Iterator[Mapping[str, Any]]:
    """Yield the files of conf/GROUP."""
    for file in sorted((CONF / group).glob("*.yaml")):
        yield yaml.safe_load(file.read_text(encoding="utf-8"))


def leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values in nested mappings and lists, by dotted key.

    Args:
        value: The mapping, list or value.
        key: The dotted key of it, empty for the whole; a list's values have the list's.
    """
    if isinstance(value, Mapping):
        for name, each in value.items():
            yield from leaves(each, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for each in value:
            yield from leaves(each, key)
    else:
        yield key, value
