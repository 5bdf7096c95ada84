"""A benchmark's data from the Hugging Face hub, at a pinned revision."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from dlmlab.errors import UserError

COMMIT = re.compile(r"\b[0-9a-f]{40}\b")


def load(name: str, config: str | None, revision: str | None, remedy: str, **settings: Any) -> Any:
    """Return a dataset, or one split of it with `split=…`.

    Args:
        name: Its name on the hub.
        config: The configuration of it that is meant; None is its only one.
        revision: The hub's commit; None is its newest.
        remedy: What a user can do where it can't be had.
        settings: What else `datasets.load_dataset` is given; it never runs a dataset's own code.

    Raises:
        UserError: The hub can't be reached, which is said without retrying; it has no such dataset; or there is no
            network and the cache holds another revision, which `datasets` would take.
    """
    from datasets import load_dataset
    from huggingface_hub import constants

    settings.pop("trust_remote_code", None)
    try:
        if not constants.HF_HUB_OFFLINE and "/" in name:
            check_there(name, revision)
        found = load_dataset(name, config, revision=revision, **settings)
    except Exception as error:  # its type depends on the versions of three libraries
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise UserError(f"{name} could not be loaded from the hub ({reason}): {remedy}") from error
    check_revision(name, found, revision)
    return found


@cache
def check_there(name: str, revision: str | None) -> None:
    """Ask the hub for a dataset once, since `load_dataset` retries for half a minute where there is no network.

    Args:
        name: The dataset's.
        revision: Its commit; None is the newest.
    """
    from huggingface_hub import HfApi

    HfApi().dataset_info(name, revision=revision, timeout=10)


def check_revision(name: str, found: Any, revision: str | None) -> None:
    """Raise UserError where the files of a dataset say that they are of another commit than the one that was asked for.

    Args:
        name: The dataset's name on the hub.
        found: What `load_dataset` has returned.
        revision: The commit; nothing is checked where it is None or a branch.
    """
    tables = found.values() if isinstance(found, Mapping) else [found]
    files = [file["filename"] for table in tables for file in getattr(table, "cache_files", ())]
    commits = {commit for file in files for commit in COMMIT.findall(file)}
    if revision and COMMIT.fullmatch(revision) and commits and revision not in commits:
        raise UserError(
            f"the cache holds {name} at {', '.join(sorted(commits))}, not at {revision}: go on with a network, or set "
            "task.revision to the one that is there"
        )
