"""The grid of a calibration: every combination of values of a decoder's parameters, as rules."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from dlmlab.decoder.localleap import LocalLeap
from dlmlab.errors import UserError
from dlmlab.rule import Rule
from dlmlab.run import build, conf
from dlmlab.settings import faults, kinds_of, list_of, near

SYMBOLS = {"kappa": "κ", "tau": "τ", "radius": "W"}
BASELINE = "baseline"


@dataclass(frozen=True)
class Setting:
    """A point of the grid.

    Attributes:
        name: Its numbers in a text, by which samples call it.
        values: The numbers, by field of the decoder.
        rule: The decoder with these numbers.
        same_as: The first setting, or plainer rule, that it does not differ from; None where it differs from all.
        repeated: Whether it is the rule of a setting before it, which stands for both where one is chosen.
    """

    name: str
    values: Mapping[str, Any]
    rule: Rule
    same_as: str | None
    repeated: bool = False


def grid(cfg: DictConfig) -> list[Setting]:
    """Return every combination of the grid's values. Raises UserError for what the decoder won't take."""
    if not isinstance(cfg.get("grid") or {}, Mapping):
        raise UserError(f"grid={cfg.grid!r} is no group of parameters with values, such as grid.kappa=[0.5,0.9]")
    lists = {
        str(key): list(values) if isinstance(values, ListConfig) else values
        for key, values in (cfg.get("grid") or {}).items()
    }
    if not lists:
        raise UserError("grid is empty: give it a parameter with values, such as grid.kappa=[0.5,0.9]")
    if wrong := [line for key, values in lists.items() for line in list_faults(cfg.decoder, key, values)]:
        raise UserError(*wrong)
    settings, known = list[Setting](), dict[object, str]()
    for combination in itertools.product(*lists.values()):
        values = dict(zip(map(str, lists), combination, strict=True))
        one = cfg.copy()
        OmegaConf.update(one, "decoder", values)
        try:
            rule = build.decoder(one)
        except UserError as error:
            raise UserError(*(f"grid: {line}" for line in error.args)) from error
        name = " ".join(f"{SYMBOLS.get(key, key)}={value}" for key, value in values.items())
        form, plainer = canonical(rule)
        settings.append(Setting(name, values, rule, plainer or known.get(form), repeated=form in known))
        known.setdefault(form, name)
    return settings


def list_faults(decoder: DictConfig, key: str, values: Any) -> list[str]:
    """Return what is wrong with the values of one parameter.

    Args:
        decoder: The decoder's config.
        key: The parameter's name in the grid.
        values: What the grid has for it.
    """
    own = [str(name) for name in decoder if name != "_target_"]
    if key not in own:
        has = ", ".join(own) or "none"
        said = near(key, own) or f": remove it with ~grid.{key}"
        return [f"grid.{key} is no parameter of the decoder, which has {has}{said}"]
    if not isinstance(values, list) or not values:
        return [f"grid.{key}={values} has no values: write grid.{key}=[…]"]
    if len(set(map(str, values))) < len(values):
        return [f"grid.{key}={values} has a value twice"]
    return faults(f"grid.{key}", values, list_of(kinds_of(conf.target_of("decoder", decoder))[key]))


def canonical(rule: Rule) -> tuple[object, str | None]:
    """Equal for settings that are the same rule, and the name of a plainer rule where it is one.

    Where every anchor's neighbours need more than an anchor does, or an anchor has none but itself, the paper's rule
    is a threshold; without neighbours the log's rule is its schedule.
    """
    if not isinstance(rule, LocalLeap):
        return rule, None
    if rule.scheduled:
        return (rule, None) if rule.radius else ("schedule", BASELINE)
    if rule.radius and rule.tau < rule.kappa:
        return rule, None
    threshold = max(rule.tau, rule.kappa)
    return threshold, f"threshold {threshold:g}"
