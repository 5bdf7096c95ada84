"""End a run whose logits are not finite, and say where they came from: an answer made from them would look
like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn

from dlmlab.denoiser import Denoiser, Query
from dlmlab.errors import UserError
from dlmlab.loop.canvases import pad
from dlmlab.loop.row import Row

BROKEN = -2
"""Marks a change where a logit is not finite; no other change is less than -1."""


class Changes(NamedTuple):
    """A step's changes on their way to the host, in the one copy that the step waits for.

    Attributes:
        all_BN: The changes of each of the block's K positions, and whatever numbers come besides, on the host.
        ends: Where, of the N numbers of a row, the changes and each of the others but the last end.
        copied: Happens when they are there; None where they are.
    """

    all_BN: Tensor
    ends: Sequence[int]
    copied: torch.cuda.Event | None

    @classmethod
    def of(cls, change_BK: Tensor, confidence_BK: Tensor, more: Sequence[Tensor] = ()) -> Self:
        """Send a step's changes to the host.

        Args:
            change_BK: The new tokens; -1 where nothing changes.
            confidence_BK: The confidences; NaN where a logit is not finite.
            more: Numbers that come besides, each (B, n).
        """
        parts = [torch.where(confidence_BK.isnan(), BROKEN, change_BK), *more]
        all_BN = torch.cat(parts, -1) if more else parts[0]
        ends = np.cumsum([part.shape[-1] for part in parts[:-1]]).tolist()
        if not all_BN.is_cuda:
            return cls(all_BN.cpu(), ends, None)
        on_host, copied = all_BN.to("cpu", non_blocking=True), torch.cuda.Event()
        copied.record(torch.cuda.current_stream(all_BN.device))
        return cls(on_host, ends, copied)

    def arrived(self) -> list[np.ndarray]:
        """Return the changes, (B, K), BROKEN where a logit is not finite, and the numbers that come besides."""
        if self.copied is not None:
            self.copied.synchronize()
        return np.split(self.all_BN.numpy(), self.ends, axis=-1) if self.ends else [self.all_BN.numpy()]


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
