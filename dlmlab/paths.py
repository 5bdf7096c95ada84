"""Where the project's own files lie, in a checkout and where it is installed, and where runs are written."""

from __future__ import annotations

import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent

CHECKOUT = _PACKAGE.parent if (_PACKAGE.parent / "conf" / "config.yaml").exists() else None
"""The folder of the repository; None where dlmlab is installed without one."""
CONF = (CHECKOUT or _PACKAGE) / "conf"
"""The configs that ship with the project. The wheel carries them inside the package."""


def home() -> Path:
    """Return the folder whose `outputs/` takes the runs: $DLMLAB_ROOT, the checkout, or the current directory."""
    return Path(os.environ.get("DLMLAB_ROOT") or CHECKOUT or Path.cwd())
