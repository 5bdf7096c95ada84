"""From a run's config to its objects. The one place that knows both Hydra and the library."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, is_dataclass, replace
from functools import wraps
from inspect import Parameter, signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import hydra
import torch
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf

from dlmlab.denoiser import Denoiser, check_denoiser
from dlmlab.errors import UserError
from dlmlab.loop.batch import LIGHTER, no_room
from dlmlab.loop.shared_pass import Memo
from dlmlab.memo import DiskMemo
from dlmlab.policy import Policy, check_pair
from dlmlab.rule import Rule, check_composition
from dlmlab.run import protocol
from dlmlab.run.conf import (
    LAB_KEYS,
    PUBLISHED,
    choice,
    decoder_values,
    homes,
    labels,
    options,
    part_faults,
    plain,
    target_of,
)
from dlmlab.settings import check, kinds_of, list_of, one_of, switch
from dlmlab.types import Generation

if TYPE_CHECKING:
    from dlmlab.task.base import Task
    from dlmlab.tracking import Tracker

VARIADIC = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
TASK_OVERRIDES = ("limit", "shard", "num_shards", "path")
NO_CACHE = "none"

Made = TypeVar("Made")


def keep_last(make: Callable[[str], Made]) -> Callable[[str], Made]:
    """Let a function keep its last answer. It goes before another is made: a device may have no room for both."""
    kept: dict[str, Made] = {}

    @wraps(make)
    def kept_or_made(key: str) -> Made:
        if key not in kept:
            kept.clear()
            kept[key] = make(key)
        return kept[key]

    kept_or_made.forget = kept.clear  # type: ignore[attr-defined]
    return kept_or_made


@keep_last
def load(part: str) -> Denoiser:
    """Return the model that a part of a config, as YAML, describes. Jobs of one process that want the same share it."""
    config = OmegaConf.create(part)
    assert isinstance(config, DictConfig)
    loaded: Denoiser = instantiate(config)
    check_denoiser(loaded)
    return loaded


def model(cfg: DictConfig) -> Denoiser:
    """Return the config's model, loaded.

    Raises:
        UserError: The model can't be had.
    """
    wanted = {key: value for key, value in cfg.model.items() if key not in LAB_KEYS["model"]}
    if "device" in kinds_of(target_of("model", cfg.model)):
        wanted["device"] = cfg.device
    return load(OmegaConf.to_yaml(OmegaConf.create(wanted), resolve=True))


def model_name(cfg: DictConfig) -> str:
    """Return what reports call the config's model: the checkpoint, or the config's name where it has none."""
    return str(cfg.model.get("path") or labels()["model"])


def decoder(cfg: DictConfig, name: str | None = None) -> Rule:
    """Return the config's decoder, or another one of conf/decoder/ at its defaults.

    Args:
        cfg: The run's config.
        name: A decoder of conf/decoder/; None for the config's own, with the values that the user gave.

    Raises:
        UserError: It takes its values from the model's calibration and the model has none (`model.localleap` holds for
            one checkpoint only), or `memo=force` is not for it.
    """
    chosen = cfg.decoder if name is None else choice(cfg, "decoder", name)
    values = decoder_values(cfg, chosen)
    taken = [key for key in chosen if OmegaConf.is_interpolation(chosen, str(key))]
    with homes({str(key): "model.localleap" if key in taken else "decoder" for key in values}):
        rule: Rule = instantiate(OmegaConf.create(values))
    check_composition(rule, memo=cfg.memo == "force")
    return rule


def cache(cfg: DictConfig, rules: Iterable[Rule] = (), name: str | None = None) -> Policy:
    """Return the config's cache, or another one of conf/cache/ at its defaults.

    Args:
        cfg: The run's config.
        rules: The decoders that run with it.
        name: A cache of conf/cache/; None for the config's own, with the values that the user gave.

    Raises:
        UserError: It doesn't go with one of the rules, or with `memo=force`.
    """
    with homes({str(key): "cache" for key in cfg.cache}):
        found: Policy = instantiate(cfg.cache if name is None else choice(cfg, "cache", name))
    for rule in rules:
        check_pair(rule, found)
    if found.keeps and cfg.memo == "force":
        raise UserError(
            "memo=force cannot be kept with a cache, where a pass depends on those before it: set memo=on or cache=none"
        )
    return found


def with_cache(name: str, cache_name: str) -> str:
    """Return what a decoder is called that has a cache.

    Args:
        name: The decoder's own name.
        cache_name: The cache's name in conf/cache/; with `none` the decoder keeps its own.
    """
    return name if cache_name == NO_CACHE else f"{name} + {cache_name}"


def described(rule: Rule, cache: Policy) -> str:
    """Return a decoder with its cache, if it has one, in words.

    Args:
        rule: The decoder, which names itself with its parameters.
        cache: Its cache; one that keeps nothing goes unsaid.
    """
    return f"{rule} with {cache}" if cache.keeps else str(rule)


def task(cfg: DictConfig, name: str, **overrides: Any) -> Task:
    """Return the config's task where it is the one named, else one of conf/task/ with what the config's task overrides.

    A name such as `gsm8k@brief@5` is the task in a template of conf/template/, with 5 examples.

    Args:
        cfg: The run's config.
        name: A task of conf/task/, with or without a template and a number of examples.
        **overrides: Values of the task's settings that go before both; those that it doesn't have are left out.

    Raises:
        UserError: A setting is missing or wrong, or the items can't be had or scored: before an hour of loading and
            decoding.
    """
    asked, (name, *variant) = name, name.split("@")
    own = cfg.task.get("name") == name
    chosen = cfg.task.copy() if own else choice(cfg, "task", name)
    if not own:  # to the config's own task it was applied when the run began
        chosen.update(protocol.task_settings(protocol.of(cfg), name))
    given = {key: cfg.task[key] for key in TASK_OVERRIDES if key in cfg.task}  # ??? is not in
    if "_target_" in cfg.task and not own:
        given.pop("path", None)  # another task's data
    known = set(chosen.keys())  # `in` would leave out what is missing, ???
    chosen.update({key: value for key, value in {**given, **overrides}.items() if key in known})
    if open_keys := [str(key) for key in chosen if OmegaConf.is_missing(chosen, str(key))]:
        raise UserError(f"task.{open_keys[0]} is not given, and {name} has none of its own: task.{open_keys[0]}=…")
    if wrong := [*part_faults("task", chosen, kinds_of(target_of("task", chosen)), bare=overrides)]:
        raise UserError(*wrong)
    with homes({str(key): "task" for key in chosen if key not in overrides}):
        found: Task = instantiate(chosen)
        if variant:
            found = varied(cfg, found, asked, *variant)
        found.items()
    return found


def fit_canvas(given: dict[str, tuple[str, Any]], own_length: int) -> None:
    """Fit the task's own block and steps to a canvas of another length, in place.

    A block that doesn't divide it becomes all of it. One token a step stays that; other steps are at most so many.

    Args:
        given: For each setting of the generation who gives it, and the value.
        own_length: Positions of the task's own canvas.
    """
    (home, length), (block_home, block), (steps_home, steps) = (
        given[key] for key in ("gen_length", "block_length", "steps")
    )
    if home == "task" or not isinstance(length, int) or length < 1:
        return
    if block_home == "task" and length % block:
        given["block_length"] = home, length
    if steps_home == "task":
        given["steps"] = home, length if steps == own_length else min(steps, length)


def varied(cfg: DictConfig, task: Task, name: str, template: str, num_fewshot: str = "") -> Task:
    """Return a task under another name, in a template of conf/template/ and with a number of examples, if one is given.

    Args:
        cfg: The run's config.
        task: The task as it is, which stays so.
        name: What the new one is called, such as `gsm8k@brief@5`.
        template: The template's name in conf/template/.
        num_fewshot: The number of examples, in digits; where it is empty the task keeps its own.

    Raises:
        UserError: There is no such template, or the task takes no examples.
    """
    check("templates", [template], list_of(one_of(options("template"))))
    changes: dict[str, Any] = {"name": name, "template": choice(cfg, "template", template).text}
    if num_fewshot:
        changes["num_fewshot"] = int(num_fewshot)
    own: set[str] = {each.name for each in fields(task)} if is_dataclass(task) else set()
    if lacking := changes.keys() - own - {"num_fewshot"}:
        raise UserError(f"task={task.name} takes no {' or '.join(sorted(lacking))}: choose another task")
    if changes.keys() - own:
        raise UserError(
            f"num_fewshot={num_fewshot}, but task={task.name} takes no examples: leave num_fewshot out, or choose "
            "another task"
        )
    return replace(task, **changes)  # type: ignore[type-var]


def role(cfg: DictConfig, gate: str) -> str:
    """Return the name of the task that the model's config gives a role.

    Args:
        cfg: The run's config.
        gate: The role, a key of `model.tasks` such as `mmlu`, `humaneval` or `bleu`.

    Raises:
        UserError: It gives none.
    """
    name = (cfg.model.get("tasks") or {}).get(gate)
    if name is None:
        raise UserError(f"model.tasks.{gate}={name} names no task of the model's for {gate}: choose a task=, or add it")
    return str(name)


def generation(cfg: DictConfig, task: Task, **overrides: Any) -> Generation:
    """Return the config's settings; where it has none the protocol's, then the overrides, then the task's own.

    Args:
        cfg: The run's config; a setting that is null there counts as not given.
        task: The task whose canvas is filled.
        **overrides: Settings of `Generation` that go before the task's own; None leaves those.
    """
    own = {key: getattr(task, key) for key in ("gen_length", "block_length", "steps")}
    published = protocol.of(cfg)
    switches = published.generation.get(task.name, {}) if published else {}
    layers = [("task", own), ("", overrides), ("protocol", switches), ("generation", cfg.generation)]
    given = {str(key): (home, value) for home, layer in layers for key, value in layer.items() if value is not None}
    fit_canvas(given, task.gen_length)
    with homes({key: home for key, (home, _) in given.items() if home}):
        return Generation(**{key: value for key, (_, value) in given.items()})


def own_generation(cfg: DictConfig) -> Generation:
    """Return the config's settings where no task is decoded. Raises UserError for a value out of range."""
    needed = ("gen_length", "block_length", "steps")  # what is null besides is left to its default
    given = {str(key): value for key, value in cfg.generation.items() if value is not None or key in needed}
    with homes(dict.fromkeys(given, "generation")):
        return Generation(**given)


def as_published(cfg: DictConfig, name: str, generation: Generation) -> Generation:
    """Return the settings with what a decoder's authors set for it: `published` in conf/decoder/.

    `steps: gen_length` there is a schedule of one token a step.

    Args:
        cfg: The run's config.
        name: The decoder's name in conf/decoder/.
        generation: The settings, which stay where the authors set nothing.

    Raises:
        UserError: A value there is out of range.
    """
    given: dict[str, Any] = plain(choice(cfg, "decoder", name).get(PUBLISHED)) or {}
    if unknown := given.keys() - kinds_of(Generation).keys():
        raise UserError(f"decoder.{PUBLISHED}.{min(unknown)} is no setting of generation: remove it from {name}.yaml")
    if given.get("steps") == "gen_length":
        given["steps"] = generation.gen_length
    return replace(generation, **given)


def memo(cfg: DictConfig, model: Any, generation: Generation) -> Memo | None:
    """Return what the config's memo keeps for a model and settings; None where it is off.

    Args:
        cfg: The run's config.
        model: The loaded model, whose proposals are kept.
        generation: The settings that proposals depend on.
    """
    if not switch("memo", cfg.memo):
        return None
    return DiskMemo(Path(cfg.memo_path), model, generation, cfg.memo_gb)


def trackers(cfg: DictConfig) -> Sequence[Tracker]:
    """Return the trackers that the run is reported to."""
    return [instantiate(each) for each in cfg.tracking.values()]


def instantiate(part: DictConfig) -> Any:
    """`hydra.utils.instantiate`, with the error that the constructor raised and not Hydra's about it."""
    try:
        return hydra.utils.instantiate(part, _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, TypeError) and (open_keys := not_given(part)):
            raise UserError(f"{part._target_} needs {' and '.join(open_keys)}: add it to its YAML") from error
        if isinstance(cause, TypeError):
            raise UserError(f"{part._target_}: {cause}") from error
        if str(error).startswith("Error locating target"):  # of a part inside this one
            raise UserError(f"{part._target_}: {str(error).partition(', set env var')[0]}: {cause}") from error
        if isinstance(cause, torch.OutOfMemoryError):
            raise no_room("the model", str(cause), LIGHTER) from None
        raise (cause if isinstance(cause, UserError) else error) from None


def not_given(part: DictConfig) -> list[str]:
    """Return the parameters that a part's target can't do without, and that the part doesn't give."""
    taken = signature(hydra.utils.get_object(part._target_)).parameters.values()
    return [
        each.name
        for each in taken
        if each.default is each.empty and each.kind not in VARIADIC and each.name not in part
    ]
