"""lm-eval's tasks, found and loaded: from the hub at a pinned revision, or from local files in the published format.

lm-eval builds prompts, examples and filters, so that they are the published ones to the letter. Nothing that a model
wrote runs here, and no metric is fetched: some of lm-eval's tasks do both while they are imported, which is kept from
them (`importing`). `pip install 'dlmlab[eval]'`, and never `lm-eval[math]`: beside Hydra, which needs another antlr, it
installs lm-eval 0.3.0 without a word.
"""

from __future__ import annotations

import io
import logging
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from difflib import get_close_matches
from functools import cache
from importlib import import_module, metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from dlmlab.errors import UserError
from dlmlab.task import hub
from dlmlab.task.local_data import read_split

OLDEST = (0, 4, 9)
INSTALL = "pip install 'dlmlab[eval]'"
SET_PATH = "set task.path to a file or folder in its format, or HF_HUB_OFFLINE=1 to use what is cached"
FEWSHOT_SEED = 1234
"""lm-eval's own default: examples are drawn with it, item by item."""


def load(name: str, path: str | None, revision: str | None, num_fewshot: int | None) -> list[Any]:
    """Return the lm-eval tasks that a name stands for: one, or all of a group's, in lm-eval's order.

    Args:
        name: A task or group of lm-eval's.
        path: A local file or folder instead of the hub, see `dlmlab.task.local_data`.
        revision: The hub's commit; None is its newest.
        num_fewshot: Examples in the prompt; None is what the task says.

    Raises:
        UserError: lm-eval is missing or too old, it has no such task, or its data can't be had.
    """
    check_installed()
    with importing():
        from lm_eval.api.task import ConfigurableTask

        def download(task: Any, dataset_kwargs: dict[str, Any] | None = None, **_: Any) -> None:
            settings = dataset_kwargs or {}
            task.dataset = (
                local(task, path)
                if path
                else hub.load(task.DATASET_PATH, task.DATASET_NAME, revision, SET_PATH, **settings)
            )

        manager = find(name)
        with patch.object(ConfigurableTask, "download", download):
            tasks = leaves(build(name, manager))
    for task in tasks:
        default = task.config.num_fewshot or 0
        task.set_config("num_fewshot", default if num_fewshot is None else num_fewshot)
        task.set_fewshot_seed(FEWSHOT_SEED)
        check_examples(task, path)
    return tasks


def check_installed() -> None:
    """Raise UserError unless an lm-eval is installed that is new enough."""
    try:
        found = metadata.version("lm_eval")
    except metadata.PackageNotFoundError as error:
        raise UserError(f"lm-eval is not installed: {INSTALL}") from error
    if tuple(map(int, re.findall(r"\d+", found)[:3])) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise UserError(f"lm-eval {found} is older than {oldest}, as lm-eval[math] beside Hydra leaves it: {INSTALL}")


@contextmanager
def importing() -> Iterator[None]:
    """Let lm-eval's tasks import without a network: no metric, no corpus, no check of antlr, no bars and no log."""
    import_module("math_verify")  # chooses its parser by the antlr that is really there
    version = metadata.version
    templates = import_module("lm_eval.utils").env

    def told(name: str) -> str:
        return "4.11" if name == "antlr4-python3-runtime" else version(name)

    logger = logging.getLogger("lm_eval")
    before = logger.level
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.enter_context(patch.object(metadata, "version", told))
        stack.enter_context(patch.object(import_module("evaluate"), "load", lambda *_, **__: NO_METRIC))
        stack.enter_context(patch.object(import_module("nltk"), "download", lambda *_, **__: False))
        stack.enter_context(patch.object(import_module("lm_eval.api.task"), "tqdm", lambda each, **_: each))
        stack.enter_context(patch.object(templates, "from_string", cache(templates.from_string)))
        bars = import_module("datasets")
        if not bars.are_progress_bars_disabled():
            bars.disable_progress_bars()
            stack.callback(bars.enable_progress_bars)
        stack.enter_context(redirect_stdout(io.StringIO()))
        stack.callback(logger.setLevel, before)
        logger.setLevel(logging.CRITICAL)
        yield


NO_METRIC = SimpleNamespace(compute=lambda *_, **__: [{"pass@1": 0.0}])
"""Stands for a metric that would run a model's code outside of the sandbox; lm-eval asks it once, on import."""


def find(name: str) -> Any:
    """Return a manager of lm-eval's that knows a name: of the folders that are called alike, else of all its tasks.

    Raises:
        UserError: lm-eval has no task or group of that name.
    """
    import lm_eval.tasks
    from lm_eval.tasks import TaskManager

    root = Path(lm_eval.tasks.__file__).parent
    for folder in sorted(root.iterdir(), reverse=True):  # of two that fit, the longer name comes first
        if folder.is_dir() and name.startswith(folder.name):
            manager = TaskManager(include_path=str(folder), include_defaults=False)
            if name in manager.all_tasks:
                return manager
    print(f"looking for {name} among all of lm-eval's tasks, which takes a minute", file=sys.stderr)
    manager = TaskManager()
    if name not in manager.all_tasks:
        near = get_close_matches(name, manager.all_tasks, n=1)
        hint = f": did you mean {near[0]}?" if near else ": lm-eval ls tasks lists them"
        raise UserError(f"task.task={name!r} is none of lm-eval's tasks{hint}")
    return manager


def build(name: str, manager: Any) -> Any:
    """Return what lm-eval makes of a name, nested as its groups are.

    Args:
        name: A task's or group's.
        manager: lm-eval's own of its tasks.

    Raises:
        UserError: It fails.
    """
    try:
        return manager.load_task_or_group([name])
    except UserError:
        raise
    except Exception as error:  # a task's own code may raise anything
        raise UserError(f"task.task={name}: lm-eval cannot build it ({one_line(error)})") from error


def leaves(nested: Any) -> list[Any]:
    """Return the tasks of lm-eval's nested groups, in order."""
    return [task for each in nested.values() for task in (leaves(each) if isinstance(each, dict) else [each])]


def local(task: Any, path: str) -> dict[str, Any]:
    """Return a task's splits from local files; one that it can do without is empty where it is missing.

    Args:
        task: lm-eval's own object.
        path: A file or folder in the published format.
    """
    from datasets import Dataset

    config = task.config
    scored = config.test_split or config.validation_split
    name = task.DATASET_NAME
    splits = {scored: Dataset.from_list(read_split(Path(path).expanduser(), name, scored, alone=True))}
    for split in (config.training_split, config.validation_split, config.fewshot_split):
        if split and split not in splits:
            splits[split] = Dataset.from_list(read_split(Path(path).expanduser(), name, split, alone=False))
    return splits


def check_examples(task: Any, path: str | None) -> None:
    """Raise UserError where a prompt needs examples and local data have none.

    Args:
        task: lm-eval's own object.
        path: The local data; None is the hub.
    """
    wanted, sampler = task.config.num_fewshot, getattr(task, "sampler", None)
    if path and wanted and sampler is not None and not len(sampler.df):
        split = task.config.fewshot_split or task.config.training_split
        raise UserError(
            f"task.path={path} has no {split!r} split, from which the {wanted} examples come: name a folder with "
            f"{split}.jsonl beside the test data, or set task.num_fewshot=0"
        )


def one_line(error: BaseException) -> str:
    """Return an error's message in a line, cut to what can be read."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
