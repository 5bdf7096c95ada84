"""What is wrong with a config, all of it at once and before a model is loaded.

A value's kind is said where the value is used: by the parameters of what a group's `_target_` names, by `Generation`,
and by an experiment's `KINDS`. What values must have to do with each other is the experiment's `check`, which builds
what the run needs; it is handed on, so that nothing is built twice.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Annotated, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dlmlab import settings as kinds
from dlmlab.errors import UserError
from dlmlab.generation import encode
from dlmlab.loop.batch import check_batch_size
from dlmlab.memo import switch
from dlmlab.model.loader import pick_device
from dlmlab.rule import Rule
from dlmlab.run import build
from dlmlab.run.build import part_faults, plain
from dlmlab.run.display import DISPLAYS
from dlmlab.run.experiment import Experiment
from dlmlab.run.gpus import devices
from dlmlab.settings import Fraction, Limits, NonNegativeInt, PositiveInt, Seed, faults, kinds_of, list_of, near, one_of
from dlmlab.task.base import Task
from dlmlab.types import Generation

GROUPS = ("model", "decoder", "cache", "task", "sandbox", "tracking")
KINDS: Mapping[str, Any] = {
    **{f"generation.{key}": kind | None for key, kind in kinds_of(Generation).items()},
    "seed": Seed,
    "display": one_of(DISPLAYS),
    "resume": str | None,
    "resume_force": bool,
    "memo_path": str,
    "memo_gb": Annotated[float, Limits(0.001)],
    "model.tasks": dict[str, str] | None,
}
TRACED: Mapping[str, Any] = {"trace": bool, "trace_limit": PositiveInt}
"""Settings of experiments that can record every forward pass."""
SPREAD: Mapping[str, Any] = {"gpus": PositiveInt | one_of(["all"]) | None}
"""The setting of experiments that can decode on several GPUs."""
CALIBRATED: Mapping[str, Any] = {"kappa": Fraction, "tau": Fraction, "radius": NonNegativeInt}
SPECIAL = ("device", "batch_size", "memo", "_target_")
"""Keys that are checked by what reads them."""


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


def check(cfg: DictConfig, experiment: Experiment) -> Any:
    """Check a run's config, without loading a model.

    Returns:
        What the experiment's own check has built for its run.

    Raises:
        UserError: with a line for each thing that is wrong.
    """
    known = {**KINDS, **experiment.kinds}
    if broken := [*shape(cfg, known)]:
        raise UserError(*broken)
    with gathered() as errors:
        errors += unknown(known)
        for key, kind in known.items():
            with errors:
                if not comes_from_elsewhere(cfg, key):
                    errors += faults(key, plain(OmegaConf.select(cfg, key)), kind)
        errors += calibration_faults(cfg.model.get("localleap"))
        for key, part in targets(cfg):
            with errors:
                errors += part_faults(key, part)
        said = len(errors)
        for attempt in (general, preview, experiment.check):
            try:
                with errors:
                    built = attempt(cfg)
            except (TypeError, ValueError, KeyError, AttributeError, HydraException):
                if not errors:  # else it stumbles over a value that is known to be wrong
                    raise
        errors[said:] = [line for line in errors[said:] if not follows(line, cfg, errors[:said])]
    return built


def follows(line: str, cfg: DictConfig, said: Sequence[str]) -> bool:
    """Return whether a line only follows from values that are known to be wrong."""
    canvas = line.startswith("generation.") and any(each.startswith("generation.") for each in said)
    part = any(line.startswith(f"{part._target_}: ") for _, part in targets(cfg))
    return bool(said) and (canvas or part or "full_key:" in line)


def shape(cfg: DictConfig, known: Mapping[str, Any]) -> Iterator[str]:
    """Yield what hinders looking at the rest: a value, or nothing, where settings of their own are expected."""
    parents = {key[: end.start()] for key in known for end in re.finditer(r"\.", key)}
    broken = list[str]()
    for key in dict.fromkeys((*GROUPS, *sorted(parents))):
        if any(key.startswith(f"{above}.") for above in broken):
            continue
        found = OmegaConf.select(cfg, key)
        if not isinstance(found, DictConfig):
            broken.append(key)
            choices = f", such as one of {', '.join(build.options(key))}" if key in GROUPS else ""
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
            with build.composing():
                usual = [text for text, new in zip(given, added, strict=True) if not new]
                shipped = hydra.compose("config", overrides=usual)
        if OmegaConf.select(shipped, key) is None:
            yield f"{key} is not a setting{near(key, [*known, *SPECIAL])}"


def comes_from_elsewhere(cfg: DictConfig, key: str) -> bool:
    """Return whether a value is an interpolation of another, which is looked at there."""
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


def general(cfg: DictConfig) -> None:
    """What no single kind says of the settings that all experiments have."""
    with gathered() as errors:
        with errors:
            check_batch_size("batch_size", cfg.batch_size)
        with errors:
            pick_device(cfg.device)
        with errors:
            devices(cfg)
        with errors:
            switch("memo", cfg.memo)
        if str(cfg.memo).lower() == "force" and cfg.generation.temperature:
            errors.append(
                f"memo=force cannot be kept at generation.temperature={cfg.generation.temperature}, where answers are "
                "drawn at random: set memo=on"
            )
        for name, part in cfg.tracking.items():
            if not isinstance(part, DictConfig) or "_target_" not in part:
                errors.append(
                    f"tracking.{name}={plain(part)!r} is not a place for results: leave it out with ~tracking.{name}"
                )
        for key in cfg.generation:
            if f"generation.{key}" not in KINDS:
                errors.append(f"generation.{key} is not a setting{near(f'generation.{key}', KINDS)}")


def preview(cfg: DictConfig) -> Any:
    """Return what is known of a model that isn't loaded, by the function `preview` beside its target.

    It is given the same settings, and answers with a `config` and a `tokenizer`; None where there is no such function,
    or nothing is known.

    Raises:
        UserError: the model can't be had.
    """
    ask = getattr(inspect.getmodule(build.target_of("model", cfg.model)), "preview", None)
    settings = {
        key: value for key, value in plain(cfg.model).items() if key not in ("_target_", *build.LAB_KEYS["model"])
    }
    return None if ask is None else ask(**settings)


def decoders(cfg: DictConfig, names: Sequence[str]) -> dict[str, Rule]:
    """Return the decoders of these names; of the config's own the parameters may be other than its file's.

    Raises:
        UserError: there is no such decoder, or it doesn't go with the config.
    """
    kinds.check("decoders", plain(names), list_of(one_of(build.options("decoder"))))
    rules = {}
    with gathered() as errors:
        for name in names:
            with errors:
                rules[name] = build.decoder(cfg, None if name == build.labels()["decoder"] else name)
    return rules


def check_fit(cfg: DictConfig, task: Task, generation: Generation) -> None:
    """Raise UserError where a prompt and its canvas are more than the model's context, as far as that is known."""
    known = preview(cfg)
    if known is None:
        return
    if known.tokenizer is None and cfg.model.get("load_format", "dummy") == "dummy":
        if generation.gen_length >= known.config.max_sequence_length:
            raise UserError(
                f"gen_length={generation.gen_length} leaves no room for a prompt in the model's context of "
                f"{known.config.max_sequence_length}: lower it"
            )
        return
    for item in task.items():
        encode(known, item.prompt, generation.gen_length, f"{task.name} item {item.id}")
