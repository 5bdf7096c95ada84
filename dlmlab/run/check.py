"""What is wrong with a config that only its objects can say, all of it at once and before a model is loaded.

What values must have to do with each other is the experiment's `check`, which builds what the run needs; it is handed
on, so that nothing is built twice. What a value by itself may be is in `dlmlab.run.kinds`.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig

from dlmlab import settings
from dlmlab.errors import UserError
from dlmlab.generation import encode
from dlmlab.model.loader import pick_device
from dlmlab.rule import Rule
from dlmlab.run import build, conf
from dlmlab.run.conf import plain
from dlmlab.run.experiment import Experiment
from dlmlab.run.gpus import devices
from dlmlab.run.kinds import gathered, targets, wrong_values
from dlmlab.settings import kinds_of, list_of, one_of
from dlmlab.task.base import Task
from dlmlab.types import Generation


def check(cfg: DictConfig, experiment: Experiment) -> Any:
    """Check a run's config, without loading a model.

    Args:
        cfg: The run's config.
        experiment: The experiment that it names, with the kinds of its settings and its own check.

    Returns:
        What the experiment's own check has built for its run.

    Raises:
        UserError: With a line for each thing that is wrong.
    """
    with gathered() as errors:
        errors += wrong_values(cfg, experiment.kinds, lambda key, part: kinds_of(conf.target_of(key, part)))
        said = len(errors)
        for attempt in (placed, preview, experiment.check):
            try:
                with errors:
                    built = attempt(cfg)
            except (TypeError, ValueError, KeyError, AttributeError, HydraException):
                if not errors:  # else it stumbles over a value that is known to be wrong
                    raise
        errors[said:] = [line for line in errors[said:] if not follows(line, cfg, errors[:said])]
    return built


def placed(cfg: DictConfig) -> None:
    """Raise UserError for devices that aren't there."""
    with gathered() as errors:
        with errors:
            pick_device(cfg.device)
        with errors:
            devices(cfg)


def follows(line: str, cfg: DictConfig, said: Sequence[str]) -> bool:
    """Return whether a line only follows from values that are known to be wrong.

    Args:
        line: What building the run's objects has complained of.
        cfg: The run's config.
        said: The lines about values that are wrong by themselves.
    """
    canvas = line.startswith("generation.") and any(each.startswith("generation.") for each in said)
    part = any(line.startswith(f"{part._target_}: ") for _, part in targets(cfg))
    return bool(said) and (canvas or part or "full_key:" in line)


def preview(cfg: DictConfig) -> Any:
    """Return what is known of a model that isn't loaded, by the function `preview` beside its target.

    It is given the same settings, and answers with a `config` and a `tokenizer`; None where there is no such function,
    or nothing is known.

    Raises:
        UserError: The model can't be had.
    """
    ask = getattr(inspect.getmodule(conf.target_of("model", cfg.model)), "preview", None)
    given = {key: value for key, value in plain(cfg.model).items() if key not in ("_target_", *conf.LAB_KEYS["model"])}
    return None if ask is None else ask(**given)


def decoders(cfg: DictConfig, names: Sequence[str]) -> dict[str, Rule]:
    """Return the decoders of these names; of the config's own the parameters may be other than its file's.

    Args:
        cfg: The run's config.
        names: Decoders of conf/decoder/.

    Returns:
        The rules by name, in the order of the names.

    Raises:
        UserError: There is no such decoder, or it doesn't go with the config.
    """
    settings.check("decoders", plain(names), list_of(one_of(conf.options("decoder"))))
    rules = {}
    with gathered() as errors:
        for name in names:
            with errors:
                rules[name] = build.decoder(cfg, None if name == conf.labels()["decoder"] else name)
    return rules


def check_fit(cfg: DictConfig, task: Task, generation: Generation) -> None:
    """Raise UserError where a prompt and its canvas are more than the model's context, as far as that is known.

    Args:
        cfg: The run's config, whose model is asked for its context and tokenizer without its weights.
        task: The task whose prompts are measured.
        generation: The settings, which have the canvas's length.
    """
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
