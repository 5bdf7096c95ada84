"""What a run's config says, and what is wrong with a part of it. Nothing is built of it, and torch not imported."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError

from dlmlab.errors import UserError
from dlmlab.paths import CONF
from dlmlab.settings import check, faults, near, one_of

PUBLISHED = "published"
"""Key of a decoder's config: settings of `Generation` that its authors run it with."""

LAB_KEYS = {"model": ("tasks", "localleap"), "decoder": (PUBLISHED,)}
"""Keys of a group that are the lab's own, and no parameters of its `_target_`."""


def decoder_values(cfg: DictConfig, chosen: DictConfig) -> dict[str, Any]:
    """Return a decoder's target and parameters, of a `rule` that it is built around as well.

    Args:
        cfg: The run's config, whose model has the calibration.
        chosen: The decoder's part of a config: the run's own, or a file of conf/decoder/.

    Raises:
        UserError: It takes values from a calibration that the model lacks, or names a rule that there isn't.
    """
    try:
        values = OmegaConf.to_container(chosen, resolve=True)
    except InterpolationResolutionError as error:
        raise uncalibrated(cfg) from error
    assert isinstance(values, dict)
    calibration = cfg.model.get("localleap") or {}
    taken = any(OmegaConf.is_interpolation(chosen, str(key)) for key in chosen)
    if taken and calibration.get("checkpoint") != cfg.model.get("path"):
        raise uncalibrated(cfg)
    values.pop(PUBLISHED, None)
    if isinstance(values.get("rule"), str):
        check("decoder.rule", values["rule"], one_of(options("decoder")))
        values["rule"] = decoder_values(cfg, choice(cfg, "decoder", values["rule"]))
    return {str(key): value for key, value in values.items()}


def uncalibrated(cfg: DictConfig) -> UserError:
    """Return the error of a model that has no calibration."""
    return UserError(
        f"model.path={cfg.model.get('path')} has no calibrated kappa, tau and radius: give decoder.kappa=, "
        "decoder.tau= and decoder.radius=, take the paper's with localleap=paper, or choose decoder=localleap_paper"
    )


def choice(cfg: DictConfig, group: str, name: str) -> DictConfig:
    """Return conf/<group>/<name>.yaml as a part of this config, so that its interpolations find the rest.

    Args:
        cfg: The run's config, which becomes the part's parent.
        group: A folder of conf/.
        name: A file in it, without its ending.
    """
    with composing():
        composed = hydra.compose(f"{group}/{name}")
    part = composed[group]
    part._set_parent(cfg)
    return part  # type: ignore[no-any-return]


def options(group: str) -> list[str]:
    """Return the names of conf/<group>/, and of the folders that the user adds to it."""
    with composing():
        names = GlobalHydra.instance().config_loader().get_group_options(group)
    return sorted(name for name in names if not name.startswith("_"))  # those are parts of others


def composing() -> AbstractContextManager[Any]:
    """Hydra as it runs; it doesn't in a launcher's worker process."""
    running = GlobalHydra.instance().is_initialized()
    return nullcontext() if running else hydra.initialize_config_dir(str(CONF), version_base="1.3")


def part_faults(group: str, part: DictConfig, kinds: Mapping[str, Any], bare: Container[str] = ()) -> Iterator[str]:
    """Yield what is wrong with a part of the config, a line for each fault.

    Args:
        group: What comes before a key in a line.
        part: The part.
        kinds: By name, what the parameters of its `_target_` may be.
        bare: Names that stand in a line without their group.
    """
    for name in map(str, part):
        if name.startswith("_") or name in LAB_KEYS.get(group, ()):
            continue
        key = name if name in bare else f"{group}.{name}"
        if name not in kinds and "**" not in kinds:
            has = ", ".join(kinds) or "none: what a dataclass's fields or a function's parameters are, are settings"
            yield f"{key} is not a setting of {group}, which has {has}{near(name, kinds)}"
        elif not (looked_up(part, name) or OmegaConf.is_missing(part, name)):
            yield from faults(key, plain(part[name]), kinds.get(name, Any))


def looked_up(part: DictConfig, name: str) -> bool:
    """Return whether a value is that of another key, which is checked there; one of the environment is not.

    Args:
        part: The part of a config that has the value.
        name: The value's key in it.
    """
    raw = OmegaConf.to_container(part, resolve=False)
    assert isinstance(raw, dict)
    return OmegaConf.is_interpolation(part, name) and not str(raw[name]).startswith("${oc.env:")


def target_of(group: str, part: DictConfig) -> Any:
    """Return what a part's `_target_` names.

    Args:
        group: What a message calls the part, such as `decoder`.
        part: A part of a config with a `_target_`.

    Raises:
        UserError: It names nothing that can be imported.
    """
    try:
        return resolve_name(part._target_)
    except (ImportError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"{group}._target_={plain(part._target_)!r} cannot be imported ({error}): choose another {group}=, "
            "or start where the module lies"
        ) from error


def plain(value: Any) -> Any:
    """Return a part of a config as dicts and lists."""
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


@contextmanager
def homes(of: Mapping[str, str]) -> Iterator[None]:
    """Errors about a key say where it is set: `kappa=2 …` becomes `decoder.kappa=2 …`."""
    try:
        yield
    except UserError as error:
        lines = [(line.partition("=")[0], line) for line in error.args]
        raise UserError(*(f"{of[key]}.{line}" if key in of else line for key, line in lines)) from error


def labels() -> dict[str, str]:
    """Return the names of the run's choices, by group."""
    choices = HydraConfig.get().runtime.choices
    return {group: choices[group] for group in ("model", "decoder", "cache", "task", "sweep") if choices[group]}


def folder() -> Path:
    """Return the folder that this run writes."""
    return Path(HydraConfig.get().runtime.output_dir)
