"""What an experiment is: a module with a `run`, named by `_target_` in conf/experiment/, and three parts beside it.

KINDS                    what each of its settings may be, by key (`dlmlab.settings`); none unless given
check(cfg)               builds what `run` needs before a model is loaded, and returns it; raises UserError, with a
line for each thing that is wrong; builds nothing unless given
run(cfg, built)          runs it, within `dlmlab.run.begin.begin`; what it returns is what a search weighs
recompute(saved)         computes a report's fields again from what a run left (`dlmlab.verify`); without it verify
says that figures can't be checked
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from omegaconf import DictConfig

from dlmlab.errors import UserError


def nothing(cfg: DictConfig) -> None:
    """Check nothing, and build nothing."""


@dataclass(frozen=True)
class Experiment:
    """An experiment's parts, see above; those that its module lacks have their default."""

    run: Callable[[DictConfig, Any], Any]
    kinds: Mapping[str, Any] = field(default_factory=dict)
    check: Callable[[DictConfig], Any] = nothing
    recompute: Callable[[Any], dict[str, Any]] | None = None


def find(target: object) -> Experiment:
    """Return the experiment that a `_target_` names, `module.run`.

    Raises:
        UserError: There is no such module, or nothing of that name in it.
    """
    module_name, _, name = str(target).rpartition(".")
    try:
        module = import_module(module_name)
        parts = {key: getattr(module, part) for key, part in PARTS.items() if hasattr(module, part)}
        return Experiment(getattr(module, name), **parts)
    except (ImportError, ValueError, AttributeError) as error:
        raise UserError(f"_target_={target!r} cannot be imported ({error}): choose an experiment=") from error


PARTS = {"kinds": "KINDS", "check": "check", "recompute": "recompute"}
"""By the field of `Experiment`, the name in the module."""


def name_of(cfg: DictConfig) -> str:
    """Return the name of a config's experiment: that of its module, or of its package in experiments/."""
    own, _, inside = str(cfg._target_).rpartition(".")[0].partition("experiments.")
    return inside.partition(".")[0] if inside and not own else str(cfg._target_).split(".")[-2]
