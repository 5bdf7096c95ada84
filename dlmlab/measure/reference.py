"""LLaDA's published generate procedure, written plainly: full logits at every step, a batch waits for its slowest row.

It exists to be compared with. Tests hold the fast loop to it token for token, and the throughput experiment times it.
Source: LLaDA, arXiv:2502.09992, section 2.4, algorithms 4 and 5; LocalLeap, arXiv:2510.07081; Fast-dLLM,
arXiv:2505.22618. Where the published code leaves the order of equal confidences open, the leftmost position comes
first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dlmlab.denoiser import Query
from dlmlab.types import CONFIDENCE_DTYPES, Generation

NEVER = -torch.inf


class Reference(NamedTuple):
    """The result of the reference loop.

    Attributes:
        tokens: The canvas of each prompt.
        forwards: The forward passes of each prompt.
    """

    tokens: list[list[int]]
    forwards: list[int]


@torch.inference_mode()
def reference(
    model: Any, prompts: Sequence[Sequence[int]], generation: Generation, rule: str = "baseline", **parameters: Any
) -> Reference:
    """Decode the prompts as one left-padded batch, greedily.

    Args:
        model: The model.
        prompts: Token ids of the prompts.
        generation: How canvases are laid out and scheduled.
        rule: `baseline`, `localleap`, `localleap_paper` (both with kappa, tau, radius) or `threshold` (threshold).
        **parameters: The rule's parameters.
    """
    longest = max(len(prompt) for prompt in prompts)
    pad, mask = model.config.pad_token_id, model.config.mask_token_id
    x = torch.full((len(prompts), longest + generation.gen_length), mask, device=model.device)
    attention = torch.ones_like(x, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        x[row, : longest - len(prompt)] = pad
        attention[row, : longest - len(prompt)] = False
        x[row, longest - len(prompt) : longest] = torch.tensor(prompt, device=model.device)
    forwards = [0] * len(prompts)
    for block in range(generation.blocks):
        begin = longest + block * generation.block_length
        step = 0
        while (x[:, begin : begin + generation.block_length] == mask).any():
            hidden_BLD = model.hidden(Query(x, None if attention.all() else attention))
            logits = model.head(hidden_BLD.flatten(0, 1)).view(*x.shape, -1).clone()
            probabilities = logits.to(CONFIDENCE_DTYPES[generation.confidence_dtype]).softmax(-1)
            logits[..., mask] = NEVER
            proposed = logits.argmax(-1)
            confidence = probabilities.gather(-1, proposed[..., None])[..., 0]
            confidence[x != mask] = NEVER
            confidence[:, :begin] = NEVER
            confidence[:, begin + generation.block_length :] = NEVER
            for row in range(len(prompts)):
                chosen = RULES[rule](confidence[row], generation.quota(step), **parameters)
                forwards[row] += bool(chosen)
                x[row, chosen] = proposed[row, chosen]
            step += 1
    return Reference(x[:, longest:].tolist(), forwards)


def leading(confidence: Tensor, count: int) -> list[int]:
    """Return the `count` most confident positions, or as many as there are.

    Args:
        confidence: (L,) of one row, NEVER where nothing may be committed.
        count: Most positions that are returned.
    """
    order = confidence.argsort(descending=True, stable=True)[:count]
    return order[confidence[order] > NEVER].tolist()


def localleap(confidence: Tensor, quota: int, kappa: float, tau: float, radius: int) -> list[int]:
    """Choose positions by the performance log's rule.

    Args:
        confidence: (L,) of one row, NEVER where nothing may be committed.
        quota: The positions that the schedule commits at this step.
        kappa: The least confidence of an anchor, which is one of those.
        tau: The least confidence of a position beside an anchor.
        radius: How many positions away from an anchor one may be.
    """
    top = leading(confidence, quota)
    anchors = [position for position in top if confidence[position] >= kappa]
    return sorted({*top, *around(confidence, anchors, tau, radius)})


def localleap_paper(confidence: Tensor, quota: int, kappa: float, tau: float, radius: int) -> list[int]:
    """Choose positions by the paper's rule, which needs no schedule.

    Args:
        confidence: (L,) of one row, NEVER where nothing may be committed.
        quota: Not used; every rule is given it.
        kappa: The least confidence of an anchor.
        tau: The least confidence of a position beside an anchor.
        radius: How many positions away from an anchor one may be.
    """
    anchors = at_least(confidence, kappa)
    return sorted({*leading(confidence, 1), *around(confidence, anchors, tau, radius)})


def around(confidence: Tensor, anchors: list[int], tau: float, radius: int) -> list[int]:
    """Return the positions of confidence >= tau within the radius of an anchor.

    Args:
        confidence: (L,) of one row, NEVER where nothing may be committed.
        anchors: Positions; they are returned as well where they are confident enough.
        tau: The least confidence.
        radius: How many positions away from an anchor one may be, on either side.
    """
    near = {position for anchor in anchors for position in range(anchor - radius, anchor + radius + 1)}
    return [position for position in at_least(confidence, tau) if position in near]


def at_least(confidence: Tensor, bound: float) -> list[int]:
    """Return the positions of at least that confidence.

    Args:
        confidence: (L,) of one row, NEVER where nothing may be committed.
        bound: The least confidence.
    """
    return (confidence >= bound).nonzero()[:, 0].tolist()


def fast_dllm(confidence: Tensor, quota: int, threshold: float) -> list[int]:
    """Choose positions by Fast-dLLM's threshold, which needs no schedule.

    Args:
        confidence: (L,) of one row, NEVER where nothing may be committed.
        quota: Not used; every rule is given it.
        threshold: The least confidence; the most confident position is chosen whatever its own is.
    """
    return sorted({*leading(confidence, 1), *at_least(confidence, threshold)})


RULES: dict[str, Callable[..., list[int]]] = {
    "baseline": leading,
    "localleap": localleap,
    "localleap_paper": localleap_paper,
    "threshold": fast_dllm,
}
