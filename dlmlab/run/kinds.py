"""What the values of a config may be, said as soon as it is composed: nothing here imports torch.

A value's kind is said where the value is used: by the parameters of what a group's `_target_` names, by `Generation`,
and by an experiment's `KINDS`. Here they are read from the sources (`dlmlab.run.declared`); `dlmlab.run.check` asks the
objects themselves.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Annotated, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dlmlab.errors import UserError
from dlmlab.model.place import check_device_name, check_path
from dlmlab.run import declared
from dlmlab.run.conf import composing, options, part_faults, plain
from dlmlab.run.display import DISPLAYS
from dlmlab.settings import Fraction, Limits, NonNegativeInt, PositiveInt, Seed, faults, near, one_of, switch

GROUPS = ("model", "decoder", "cache", "task", "sandbox", "tracking")

KINDS: Mapping[str, Any] = {
    **{f"generation.{key}": kind | None for key, kind in (declared.kinds("dlmlab.schedule.Generation") or {}).items()},
    "seed": Seed,
    "batch_size": PositiveInt | one_of(["auto"]),
    "display": one_of(DISPLAYS),
    "resume": str | None,
    "resume_force": bool,
    "memo_path": str,
    "memo_gb": Annotated[float, Limits(0.001)],
    "model.tasks": dict[str, str] | None,
}

TRACED: Mapping[str, Any] = {"trace": bool, "trace_limit": PositiveInt}
"""Settings of experiments that can record every forward pass."""

SPREAD: Mapping[str, Any] = {"gpus": PositiveInt | one_of(["all", "ray"]) | None}
"""The setting of experiments that can decode on several GPUs."""

CALIBRATED: Mapping[str, Any] = {"kappa": Fraction, "tau": Fraction, "radius": NonNegativeInt}

SUITE: Mapping[str, Any] = {**(declared.kinds("dlmlab.task.base.BaseTask") or {}), "path": str | None}
"""What is said of all tasks where none is chosen."""
SPECIAL = ("device", "memo", "_target_")
"""Keys that are checked by name."""
KindsOf = Callable[[str, DictConfig], Mapping[str, Any] | None]
"""Says what the parameters of a part's `_target_` may be; None where it doesn't know."""


class Errors(list[str]):
    """Messages. `with errors:` around something that may raise keeps what it says and goes on."""

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if isinstance(error, UserError):
            self.extend(error.args)
        elif isinstance(error, OmegaConfBaseException):
            self.append(" ".join(str(error).split()))
        return isinstance(error, UserError | OmegaConfBaseException)


@contextmanager
def gathered() -> Iterator[Errors]:
    """Errors to fill; at the end they are raised together. Of one key the first message counts."""
    errors = Errors()
    yield errors
    if errors:
        first = {subject(line): line for line in reversed(errors)}
        raise UserError(*reversed(first.values()))


def subject(line: str) -> str:
    """The key that a message is about, else all of it."""
    key, equals, _ = line.partition("=")
    return key if equals and " " not in key else line


def check(cfg: DictConfig) -> None:
    """Check a run's config as far as that can be done without importing what it names.

    Raises:
        UserError: With a line for each thing that is wrong.
    """
    own = declared.constant(f"{str(cfg.get('_target_')).rpartition('.')[0]}.KINDS")
    with gathered() as errors:
        errors += wrong_values(cfg, own, lambda _, part: declared.kinds(str(part._target_)))
        errors += general(cfg)
        with errors:
            check_device_name(cfg.device)
        with errors:
            switch("memo", cfg.memo)
        path = cfg.model.get("path")
        if str(cfg.model.get("_target_")).startswith("dlmlab.") and isinstance(path, str) and not dummy(cfg.model):
            with errors:
                check_path(path)


def dummy(model: DictConfig) -> bool:
    """Return whether a model has random weights, so that its path may be no more than a name."""
    return bool(model.get("load_format") == "dummy")


def wrong_values(cfg: DictConfig, own: Mapping[str, Any] | None, kinds_of: KindsOf) -> list[str]:
    """Return what is wrong with the values of a config, each by itself, a line for each.

    Args:
        cfg: The config.
        own: The kinds of the experiment's settings; None where they aren't known.
        kinds_of: Says the kinds of the other parts'.

    Raises:
        UserError: The config's shape is another, which hinders looking at the rest.
    """
    known = {**KINDS, **(own or {})}
    if broken := [*shape(cfg, known)]:
        raise UserError(*broken)
    errors = Errors()
    if own is not None:
        errors += unknown(known)
    for key, kind in known.items():
        with errors:
            if not comes_from_elsewhere(cfg, key):
                errors += faults(key, plain(OmegaConf.select(cfg, key)), kind)
    errors += calibration_faults(cfg.model.get("localleap"))
    if "_target_" not in cfg.task:
        errors += part_faults("task", cfg.task, SUITE)
    for key, part in targets(cfg):
        with errors:
            if (kinds := kinds_of(key, part)) is not None:
                errors += part_faults(key, part, kinds)
    return errors


def general(cfg: DictConfig) -> Iterator[str]:
    """Yield what no single kind says of the settings that all experiments have."""
    if str(cfg.memo).lower() == "force" and cfg.generation.temperature:
        yield (
            f"memo=force cannot be kept at generation.temperature={cfg.generation.temperature}, where answers are "
            "drawn at random: set memo=on"
        )
    for group in GROUPS:
        if group not in ("task", "tracking") and "_target_" not in cfg[group]:
            yield f"{group} has no _target_: its YAML names a class in a line `_target_: module.Name`"
    for name, part in cfg.tracking.items():
        if not isinstance(part, DictConfig) or "_target_" not in part:
            yield f"tracking.{name}={plain(part)!r} is not a place for results: leave it out with ~tracking.{name}"
    for key in cfg.generation:
        if f"generation.{key}" not in KINDS:
            yield f"generation.{key} is not a setting{near(f'generation.{key}', KINDS)}"


def shape(cfg: DictConfig, known: Mapping[str, Any]) -> Iterator[str]:
    """Yield what hinders looking at the rest: a value, or nothing, where settings of their own are expected.

    Args:
        cfg: The run's config.
        known: What settings may be, by dotted key; what comes before a key's last dot is expected to be a group.
    """
    parents = {key[: end.start()] for key in known for end in re.finditer(r"\.", key)}
    broken = list[str]()
    for key in dict.fromkeys((*GROUPS, *sorted(parents))):
        if any(key.startswith(f"{above}.") for above in broken):
            continue
        found = OmegaConf.select(cfg, key)
        if not isinstance(found, DictConfig):
            broken.append(key)
            choices = f", such as one of {', '.join(options(key))}" if key in GROUPS else ""
            yield f"{key}={plain(found)!r} is not a group of settings{choices}"


def calibration_faults(calibration: Any) -> Iterator[str]:
    """Return what is wrong with the values that a model has for LocalLeap; it may have none."""
    if isinstance(calibration, DictConfig):
        for key in CALIBRATED.keys() & calibration.keys():
            yield from faults(f"model.localleap.{key}", plain(calibration[key]), CALIBRATED[key])
    elif calibration is not None:
        yield f"model.localleap={plain(calibration)!r} is not a group of settings or null"


def unknown(known: Mapping[str, Any]) -> Iterator[str]:
    """Keys that were added on the command line and that nothing reads."""
    job = HydraConfig.get()
    open_to_more = (*GROUPS, "generation", "grid", "hydra", *(key for key in known if "." not in key))
    own = {*known, *SPECIAL, *open_to_more, *job.runtime.choices}
    given = list(job.overrides.task)
    overrides = OverridesParser.create().parse_overrides(given)
    added = [override.is_add() or override.is_force_add() for override in overrides]
    shipped: Any = None
    for key in (override.key_or_group for override, new in zip(overrides, added, strict=True) if new):
        if own & {key, key.rpartition(".")[0], key.partition(".")[0]}:
            continue
        if shipped is None:
            with composing():
                usual = [text for text, new in zip(given, added, strict=True) if not new]
                shipped = hydra.compose("config", overrides=usual)
        if OmegaConf.select(shipped, key) is None:
            yield f"{key} is not a setting{near(key, [*known, *SPECIAL])}"


def comes_from_elsewhere(cfg: DictConfig, key: str) -> bool:
    """Return whether a value is an interpolation of another, which is looked at there.

    Args:
        cfg: The run's config.
        key: The value's dotted key; what comes before its last dot is a group of the config.
    """
    parent, _, name = key.rpartition(".")
    node = OmegaConf.select(cfg, parent) if parent else cfg
    return name in node and OmegaConf.is_interpolation(node, name)


def targets(cfg: DictConfig) -> Iterator[tuple[str, DictConfig]]:
    """The parts of a config that name what is built of them."""
    for key in GROUPS:
        if "_target_" in cfg[key]:
            yield key, cfg[key]
    yield from (
        (f"tracking.{name}", part)
        for name, part in cfg.tracking.items()
        if isinstance(part, DictConfig) and "_target_" in part
    )
