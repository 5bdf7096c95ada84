"""End a run whose logits are not finite, and say where they came from: an answer made from them would look
like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dlmlab.denoiser import Denoiser, Query
from dlmlab.errors import UserError
from dlmlab.loop.canvases import pad
from dlmlab.loop.row import Row

BROKEN = -2
"""Marks a change where a logit is not finite; no other change is less than -1."""


def on_host(
    model: Denoiser, rows: Sequence[Row], change_BK: Tensor, confidence_BK: Tensor, more: Sequence[Tensor] = ()
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Copy a step's changes to the host, in the one copy that the step waits for.

    Args:
        model: The model, to be asked again where a logit is not finite.
        rows: The B rows of the step.
        change_BK: The new tokens; -1 where nothing changes.
        confidence_BK: The confidences; NaN where a logit is not finite.
        more: Numbers that come besides, each (B, n).

    Returns:
        The changes, (B, K), and each of the numbers, (B, n).

    Raises:
        UserError: A confidence is NaN.
    """
    parts = [torch.where(confidence_BK.isnan(), BROKEN, change_BK), *more]
    if more:
        ends = np.cumsum([part.shape[-1] for part in parts])
        changes, *numbers = np.split(torch.cat(parts, -1).cpu().numpy(), ends[:-1], axis=-1)
    else:
        changes, numbers = parts[0].cpu().numpy(), []
    check_finite(model, rows, changes == BROKEN)
    return changes, numbers


def check_finite(model: Denoiser, rows: Sequence[Row], broken_BK: np.ndarray) -> None:
    """Check that the logits of all rows were finite.

    Args:
        model: The model, to be asked again where they were not.
        rows: The rows, whose canvases are still those that the model saw.
        broken_BK: Where the logits were not finite.

    Raises:
        UserError: Some were not; the line names the layer and the step.
    """
    if broken_BK.any():
        row = rows[int(broken_BK.any(-1).argmax())]
        where = f"the logits of request {row.request.index} are not finite at its step {row.forwards}"
        raise UserError(f"{where}: {origin(model, rows)}")


def origin(model: Any, rows: Sequence[Row]) -> str:
    """Say in words where the first value that is not finite comes from, and what to do.

    Args:
        model: The model.
        rows: Those whose proposals are not finite.
    """
    found = first_broken(model, rows)
    if found is None:
        return "a second pass over the same canvases is finite: suspect the decoder's transform, or the device"
    name, module = found
    weights = [each for each in module.parameters(recurse=False) if each.is_floating_point()]
    if all(each.isfinite().all() for each in weights):
        return f"the first value that is not comes out of {name}: set model.dtype=float32 and model.quantization=none"
    return f"the weights of {name} are not: fetch the checkpoint again"


@torch.inference_mode()
def first_broken(model: Any, rows: Sequence[Row]) -> tuple[str, nn.Module] | None:
    """Return the first part of the model whose output is not finite, by showing the model the rows again; None
    where all is.

    Args:
        model: The model.
        rows: Those whose proposals are not finite.
    """
    broken: list[tuple[str, nn.Module]] = []

    def watch(name: str, module: nn.Module, inputs: object, output: object) -> None:
        if not broken and isinstance(output, Tensor) and not output.isfinite().all():
            broken.append((name, module))

    handles = [module.register_forward_hook(partial(watch, name)) for name, module in model.named_modules() if name]
    tokens_BL, mask_BL = pad([row.tokens for row in rows], model.config.pad_token_id)
    query = Query(torch.from_numpy(tokens_BL), None if mask_BL is None else torch.from_numpy(mask_BL))
    try:
        # Positions are not named, so that a model with a faster pass for named ones runs layer by layer.
        for hidden_LD in model.hidden(query):
            watch("the head", model, None, model.head(hidden_LD))
    finally:
        for handle in handles:
            handle.remove()
    return broken[0] if broken else None
