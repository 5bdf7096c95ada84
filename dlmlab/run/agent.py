"""What a W&B agent hands over: parameters from a server. They choose settings, and nothing that runs or writes.

The agent's command, which the parameters are put into, runs as it stands: who starts an agent trusts it with that.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from dlmlab.errors import UserError
from dlmlab.record.files import read_bytes

PARAMETERS = "WANDB_SWEEP_PARAM_PATH"
"""The environment variable that names the file of a run's parameters."""
CLOSED = re.compile(r"(^|[.@/+~])(_|hydra\b)|(^|[+~])(memo_path|resume)$|\.log_file$|^-")
"""Settings that name what is built, how Hydra works, or where something is written."""


def check() -> None:
    """Raise UserError where an agent's parameters set more than what is decoded and how."""
    for key, value in parameters():
        if CLOSED.search(key) or "${" in str(value):
            raise UserError(f"{key}={value} comes from a W&B sweep, which may not set it: remove that parameter")


def parameters() -> Iterator[tuple[str, Any]]:
    """The parameters that an agent has for this run; none where no agent started it."""
    path = os.environ.get(PARAMETERS)
    try:
        told = yaml.safe_load(read_bytes(Path(path))) if path else {}
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(
            f"{PARAMETERS}={path} cannot be read ({type(error).__name__}): start the agent again"
        ) from error
    for key, each in told.items() if isinstance(told, dict) else ():
        yield str(key), each.get("value") if isinstance(each, dict) else each
