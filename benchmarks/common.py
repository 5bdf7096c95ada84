"""What the benchmarks share: the config of a run, and a table with goals."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, open_dict
from rich.console import Console

from dlmlab.errors import UserError
from dlmlab.paths import CONF
from dlmlab.run import build
from dlmlab.run.cli import one_line
from dlmlab.tracking import Table
from dlmlab.tracking.terminal import show_table
from dlmlab.types import Generation
from experiments import throughput

os.environ.setdefault("DLMLAB_ROOT", str(Path(__file__).resolve().parents[1]))


def compose(overrides: Sequence[str]) -> DictConfig:
    """The config of `python run.py` with these overrides."""
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = hydra.compose("config", overrides=list(overrides), return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)  # what is checked asks it for the names of the choices
    with open_dict(cfg):
        del cfg["hydra"]
    throughput.check(cfg)
    return cfg


def prepare(cfg: DictConfig) -> tuple[Any, list[tuple[int, ...]], Generation]:
    """The model, prompts and settings of the throughput experiment."""
    task = build.task(cfg, cfg.model.tasks.bleu)
    generation = build.generation(cfg, task)
    texts = throughput.distinct_prompts(task, cfg.prompts)
    model = build.model(cfg)
    return model, throughput.token_ids(cfg, model, texts, generation), generation


def show(table: Table) -> None:
    """Print it."""
    show_table(Console(), table)


def mark(kept: bool) -> str:
    """How a goal came out."""
    return "✓" if kept else "✗"


def exit_status(main: Callable[[Sequence[str]], bool]) -> int:
    """Run a benchmark on the command line's overrides: 0 where all goals are kept, 1 else, 2 for an error."""
    try:
        return 0 if main(sys.argv[1:]) else 1
    except (UserError, HydraException, OSError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
