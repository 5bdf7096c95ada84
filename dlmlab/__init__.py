"""dlmlab: a lab bench for decoding masked diffusion language models.

import dlmlab
from dlmlab.decoder.localleap import LocalLeap

model = dlmlab.load("path-or-hub-name", dtype="float32", device="cpu", quantization=None)
outs = dlmlab.generate(model, ["Name a colour."], LocalLeap(kappa=0.9, tau=0.75, radius=4),
                       gen_length=64, block_length=64, steps=16)
outs[0].text, outs[0].tokens, outs[0].forwards
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dlmlab.generation import generate as generate
    from dlmlab.model.loader import load as load
    from dlmlab.page.frames import read_runs as read_runs

__all__ = ["__version__", "generate", "load", "read_runs"]

__version__ = "0.1.0"

_HOMES = {"generate": "dlmlab.generation", "load": "dlmlab.model.loader", "read_runs": "dlmlab.page.frames"}


def __dir__() -> list[str]:
    """Return what there is to use, which is not imported yet."""
    return sorted(__all__)


def __getattr__(name: str) -> Any:
    """Import on first use, so that `import dlmlab` and the command line's help don't wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'dlmlab' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
