"""How a published table was made, as data: `protocol=fast_dllm` gives tasks the settings behind its figures.

A protocol says, for each of its tasks, what differs from conf/task/, and how end tokens are treated; what the user
gives on the command line goes before both. Its published rows stand beside ours in `experiment=compare`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from dlmlab.errors import UserError
from dlmlab.settings import Fraction, Limits, check_fields, near

SWITCHES = (
    *("logits_eos_inf", "confidence_eos_eot_inf", "temperature", "confidence_dtype"),
    *("schedule", "top_k", "top_p", "tempered"),
)
Points = Annotated[float, Limits(0, 100)]


@dataclass(frozen=True, kw_only=True)
class Published:
    """A published figure.

    Attributes:
        task: Our name of the task.
        method: What the table calls the way of decoding.
        score: In points of 100.
        source: Where the figure stands.
        decoder: Our name of the decoder; None where we have none.
        cache: Our name of the cache, or words for one that we don't have; `none` without one.
        tokens_per_second: As reported, by the protocol's way of counting; None where it isn't.
        tokens_per_forward: Likewise.
        hardware: As reported; empty where it isn't.
        setting: Whatever else sets the figure apart, as reported.
    """

    task: str
    method: str
    score: Points
    source: str
    decoder: str | None = None
    cache: str = "none"
    tokens_per_second: float | None = None
    tokens_per_forward: float | None = None
    hardware: str = ""
    setting: str = ""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """A published way of measuring.

    Attributes:
        name: That of its file.
        about: Whose it is, and what it says beside the settings.
        models: The checkpoints that it is of.
        tokens: What its speeds count.
        template: How the prompt reaches the model.
        tasks: By task, what differs from `conf/task/<name>.yaml`.
        generation: By task, switches of `dlmlab.types.Generation`.
        y_max: By task, AUP's best score, in points of 100.
        tolerance: Half of the widest interval that still agrees, as a fraction.
        rows: The published figures; given as mappings of the fields of `Published`.

    Raises:
        UserError: A field is of another kind.
    """

    name: str
    about: str
    models: list[str]
    tokens: str
    template: str
    tasks: dict[str, dict[str, Any]]
    generation: dict[str, dict[str, Any]] = field(default_factory=dict)
    y_max: dict[str, Points] = field(default_factory=dict)
    tolerance: Fraction = 0.03
    rows: list[Published] = field(default_factory=list)

    def __post_init__(self) -> None:
        check_fields(self, "protocol.")
        object.__setattr__(self, "rows", [Published(**each) for each in self.rows])  # type: ignore[arg-type]


def of(cfg: DictConfig) -> Protocol | None:
    """Return the config's protocol, None where it has none.

    Raises:
        UserError: It is malformed, or of another model than the config's.
    """
    chosen = cfg.get("protocol")
    if chosen is None:
        return None
    try:
        protocol = Protocol(**OmegaConf.to_container(chosen, resolve=True))  # type: ignore[arg-type]
    except TypeError as error:
        raise UserError(f"protocol={chosen.get('name')}: {' '.join(str(error).split())}") from error
    path = cfg.model.get("path")
    if path not in protocol.models:
        raise UserError(f"protocol={protocol.name} is of {' and '.join(protocol.models)}, not of model.path={path}")
    return protocol


def apply(cfg: DictConfig) -> None:
    """Give the config's own task the protocol's settings, those apart that the command line has given.

    Raises:
        UserError: See `of` and `task_settings`.
    """
    name = cfg.task.get("name")
    if (protocol := of(cfg)) is None or "_target_" not in cfg.task:
        return
    given = overridden()
    settings = {key: value for key, value in task_settings(protocol, name).items() if f"task.{key}" not in given}
    if unknown := settings.keys() - set(cfg.task):
        raise UserError(f"protocol.tasks.{name}.{min(unknown)} is not a setting of task={name}")
    cfg.task.update(settings)


def task_settings(protocol: Protocol | None, name: str) -> Mapping[str, Any]:
    """Return what a protocol says of a task, by setting.

    Args:
        protocol: The run's protocol; None where it has none, which changes no setting.
        name: The task's name in conf/task/.

    Raises:
        UserError: It says nothing of the task.
    """
    if protocol is None:
        return {}
    if name not in protocol.tasks:
        hint = near(name, protocol.tasks)
        raise UserError(
            f"protocol={protocol.name} says nothing of task={name}, but of {', '.join(protocol.tasks)}{hint}"
        )
    return protocol.tasks[name]


def overridden() -> set[str]:
    """Return the keys that the command line has given."""
    if not HydraConfig.initialized():
        return set()
    parser = OverridesParser.create()
    return {each.key_or_group for each in parser.parse_overrides(list(HydraConfig.get().overrides.task))}
