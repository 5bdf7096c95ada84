"""A workspace on W&B that compares decoders: speed, quality against cost, memory; runs are grouped by their decoder.

    pip install wandb-workspaces
    python -m dlmlab.tracking.wandb_workspace ENTITY/PROJECT            # saves it, and says where it is
    python -m dlmlab.tracking.wandb_workspace ENTITY/PROJECT --print    # says what would be saved; asks no network

Charts read the summary keys that docs/wandb.md lists. Exit status 1 and one line where W&B can't be reached.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from dlmlab.errors import UserError

NAME = "Decoders compared"
DECODER = "labels.decoder"
"""Of a run's config: the name of its decoder."""
PER_DECODER = ("memory peak GB", "step p99 by p50", "forwards per item", "score")
PER_BATCH = ("speedup", "tokens per second")


def workspace(entity: str, project: str, batches: Sequence[int] = (1, 8)) -> Any:
    """Return the workspace, unsaved: a `wandb_workspaces.workspaces.Workspace`.

    Args:
        entity: Whose project it is.
        project: The project.
        batches: Batch sizes whose speeds are shown.

    Raises:
        UserError: wandb-workspaces is not installed.
    """
    try:
        workspaces, panels = map(import_module, ("wandb_workspaces.workspaces", "wandb_workspaces.reports.v2"))
    except ImportError as error:
        raise UserError(f"wandb-workspaces cannot be imported ({error}): pip install wandb-workspaces") from error

    def bars(metric: str) -> Any:
        return panels.BarPlot(title=metric, metrics=[metric], groupby=panels.Config(DECODER))

    cost = panels.ScatterPlot(
        title="score against forward passes",
        x=panels.SummaryMetric("forwards per item"),
        y=panels.SummaryMetric("score"),
    )
    speeds = [bars(f"{name}/batch={batch}") for name in PER_BATCH for batch in batches]
    memory, steps, forwards, score = map(bars, PER_DECODER)
    return workspaces.Workspace(
        entity=entity,
        project=project,
        name=NAME,
        sections=[
            workspaces.Section(name="Speed", panels=[*speeds, steps], is_open=True),
            workspaces.Section(name="Quality and its cost", panels=[cost, score, forwards], is_open=True),
            workspaces.Section(name="Memory", panels=[memory], is_open=True),
        ],
        runset_settings=workspaces.RunsetSettings(groupby=[workspaces.Config(DECODER)]),
    )


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m dlmlab.tracking.wandb_workspace", description=__doc__.split("\n")[0]
    )
    parser.add_argument("project", metavar="ENTITY/PROJECT", help="where runs were reported to")
    parser.add_argument("--batch", type=int, nargs="+", default=(1, 8), help="batch sizes whose speeds are shown")
    parser.add_argument("--print", action="store_true", help="print what would be saved, and save nothing")
    options = parser.parse_args()
    entity, _, project = options.project.partition("/")
    if not entity or not project:
        parser.error(f"{options.project!r} is not ENTITY/PROJECT, such as me/dlmlab")
    try:
        made = workspace(entity, project, options.batch)
        print(made._to_model().model_dump_json(by_alias=True, indent=2) if options.print else made.save().url)
    except Exception as error:  # W&B raises whatever its client does
        print(f"error: the workspace is not on W&B: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
