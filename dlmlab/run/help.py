"""What `--help` prints: what can be chosen, and what each key means, from the comments of conf/ itself.

dlmlab --help                      the usual choices
dlmlab --help experiment=compare   those of another experiment
dlmlab --help task                 the choices of one group, with what each is
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path

import yaml

from dlmlab.errors import UserError
from dlmlab.paths import CONF
from dlmlab.settings import near

FLAGS = {"-h", "--help"}
HEAD = """dlmlab decodes masked diffusion language models, and measures how fast and how well.

dlmlab                                   the tiny model on any machine: LocalLeap against the baseline
dlmlab decoder=localleap model=llada15   LLaDA-1.5 in NF4 on a 12 GB card
dlmlab -m decoder.kappa=0.5,0.7,0.9      a sweep
dlmlab --help task                       the tasks with their sizes; likewise any other group
"""
QUOTES = (
    "A value with , = ' # < or other signs in it is quoted twice: 'key=\"…\"'. prompt=… needs the shell's quotes only."
)
LAUNCHERS = {
    "basic": "one job after another; the usual one",
    "joblib": "several at once on this machine",
    "ray": "on Ray",
    "gpus": "one job a GPU, through Ray",
    "submitit_local": "as on a cluster, on this machine",
    "submitit_slurm": "on a Slurm cluster",
}
EXTRAS = {"joblib": "joblib", "ray": "ray", "gpus": "ray", "submitit_local": "slurm", "submitit_slurm": "slurm"}


def text(arguments: Sequence[str], conf: Path = CONF) -> str:
    """Return the help for a command line's choices, or for the one group that it names.

    Args:
        arguments: The command line, without the program's name.
        conf: The folder of configs.
    """
    named = [each for each in arguments if (conf / each).is_dir() and each in groups(conf)]
    if named:
        return "\n".join(group_text(conf, group) for group in named)
    if unknown := [each for each in arguments if each not in FLAGS and "=" not in each and each[:1] not in "-+~"]:
        known = [*groups(conf), *(f"{group}={name}" for group in groups(conf) for name in names(conf, group))]
        meant = [each for each in known if each.endswith(f"={unknown[0]}")]
        hint = f"; did you mean {meant[0]}?" if meant else near(unknown[0], known)
        raise UserError(f"--help {unknown[0]}: it is no group of conf/{hint}")
    given = dict(each.split("=", 1) for each in arguments if "=" in each)
    usual = choices(conf)
    chosen = {group: given.get(group, name) for group, name in usual.items()}
    parts = [HEAD, "Choose (group=name):", ""]
    parts += [f"  {group}: {', '.join(names(conf, group))}" for group in groups(conf)]
    parts += ["", f"  hydra/launcher (with -m): {', '.join(LAUNCHERS)}", ""]
    parts += [f"    {name}: {LAUNCHERS[name]}; pip install 'dlmlab[{extra}]'" for name, extra in EXTRAS.items()]
    parts += ["", "Change (key=value):", "", general(conf)]
    for group, name in chosen.items():
        path = conf / group / f"{name}.yaml"
        if path.is_file():
            parts += ["", f"{group}={name}", *(f"  {line}" for line in body(path).splitlines())]
    return "\n".join([*parts, "", QUOTES])


def groups(conf: Path) -> list[str]:
    """Return the groups of conf/, in the order of their use."""
    usual = list(choices(conf))
    return [
        *usual,
        *sorted(each.name for each in conf.iterdir() if each.is_dir() and each.name not in (*usual, "hydra")),
    ]


def choices(conf: Path) -> dict[str, str | None]:
    """Return the usual choice of each group."""
    defaults = yaml.safe_load((conf / "config.yaml").read_text(encoding="utf-8"))["defaults"]
    return {group: name for each in defaults if isinstance(each, dict) for group, name in each.items()}


def names(conf: Path, group: str) -> list[str]:
    """Return the names of a group's choices; files whose name begins with an underscore are parts of others.

    Args:
        conf: The folder of configs.
        group: A folder in it.
    """
    return sorted(path.stem for path in (conf / group).glob("[!_]*.yaml"))


def general(conf: Path) -> str:
    """Return conf/config.yaml from its first own key to Hydra's, comments and all."""
    own = (conf / "config.yaml").read_text(encoding="utf-8").partition("\n\n")[2]
    return own.partition("\nhydra:\n")[0].rstrip()


def body(path: Path) -> str:
    """Return a config file without what only Hydra reads."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines if not re.match(r"# @package|_target_:|defaults:", line)).rstrip()


def group_text(conf: Path, group: str) -> str:
    """Return the choices of a group: of each what it is, and a task's size.

    Args:
        conf: The folder of configs.
        group: A folder in it.
    """
    width = max(map(len, names(conf, group)), default=0)
    rows = [f"  {name:{width}}  {about(conf / group / f'{name}.yaml')}" for name in names(conf, group)]
    return "\n".join([f"{group}=", *rows])


def about(path: Path) -> str:
    """Return what a config file is, the first sentence of its comment; and how many items a task has by default."""
    lines = path.read_text(encoding="utf-8").splitlines()
    first = itertools.takewhile(lambda line: line.startswith("#"), (line for line in lines if "@package" not in line))
    comment = " ".join(line[1:].strip() for line in first)
    return "  ".join(part for part in (items(path), re.split(r"(?<=[.?]) ", comment)[0]) if part)


def items(path: Path) -> str:
    """Return how many items a task has: its own limit, or that of the task that it builds on."""
    if path.parent.name != "task":
        return ""
    own = yaml.safe_load(path.read_text(encoding="utf-8"))
    if "limit" in own:
        return {None: "all items", "???": ""}.get(own["limit"], f"{own['limit']} items")
    bases = [each for each in own.get("defaults", ()) if isinstance(each, str) and each != "_self_"]
    return items(path.with_name(f"{bases[0]}.yaml")) if bases else ""
