"""Fast-dLLM's published code (arXiv:2505.22618) beside ours, at the field's setting: by cache, one prompt at a time.

    git clone https://github.com/NVlabs/Fast-dLLM      # anywhere
    python -m benchmarks.peers.fast_dllm checkout=Fast-dLLM
    python -m benchmarks.peers.fast_dllm checkout=Fast-dLLM per_forward=8 device=cuda

Both have random weights of LLaDA-8B's shape in bfloat16, and the schedule alone decides how many tokens a pass commits.
They take turns, after two runs of each that are not counted. Its attention is PyTorch's own, as its configuration has
it. Their code imports einops, which this project doesn't need: pip install einops.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from omegaconf import OmegaConf

from benchmarks.common import compose, exit_status, show
from dlmlab.cache.dual import Dual
from dlmlab.cache.prefix import Prefix
from dlmlab.decoder.baseline import Baseline
from dlmlab.errors import UserError
from dlmlab.measure.timing import clock, spread, take_turns, time_decode
from dlmlab.policy import Policy
from dlmlab.run import build
from dlmlab.tracking import Table
from dlmlab.types import Generation, Request
from experiments.throughput import random_prompts

OWN = {"checkout": "???", "prompt": 1024, "canvas": 256, "block": 32, "per_forward": 4, "rounds": 3}
"""What may be set besides the config's keys."""
CACHES: dict[str, tuple[str, Policy | None]] = {
    "none": ("generate", None),
    "prefix": ("generate_with_prefix_cache", Prefix()),
    "dual": ("generate_with_dual_cache", Dual()),
}
"""Their function and our policy."""
THEIRS = ("model.configuration_llada", "model.modeling_llada", "generate")


class Published:
    """Their network and their loops.

    Args:
        checkout: Where the repository is.
        config: Of our network, whose shape theirs gets.
        device: Where it computes, in bfloat16.

    Raises:
        UserError: There is no such repository, or a package that it imports is missing.
    """

    def __init__(self, checkout: str, config: Any, device: torch.device) -> None:
        found = next(Path(checkout).glob("**/llada/generate.py"), None)
        if found is None:
            raise UserError(f"checkout={checkout} holds no llada/generate.py: name a checkout of NVlabs/Fast-dLLM")
        sys.path.insert(0, str(found.parent))
        try:
            configuration, modeling, self._loops = map(importlib.import_module, THEIRS)
        except ModuleNotFoundError as error:
            raise UserError(f"checkout={checkout} needs the package {error.name}: pip install {error.name}") from error
        known = {field.name for field in fields(configuration.ModelConfig)}
        shape = {key: value for key, value in config.to_dict().items() if key in known}
        settings = configuration.ModelConfig(
            **shape | {"block_type": "llama", "rope": True, "init_device": str(device)}
        )
        torch.set_default_dtype(torch.bfloat16)
        self._network = modeling.LLaDAModel(settings, init_params=False).train(False)
        torch.set_default_dtype(torch.float32)
        for parameter in self._network.parameters():
            torch.nn.init.normal_(parameter, std=0.02)
        self.device, self.passes = device, 0

    def __call__(self, *arguments: Any, **more: Any) -> Any:
        """One pass, with the names that their loops ask the wrapper for."""
        self.passes += 1
        out = self._network(*arguments, **more)
        return SimpleNamespace(logits=out.logits, past_key_values=out.attn_key_values)

    def decode(self, loop: str, prompt: Sequence[int], generation: Generation, mask: int) -> float:
        """Fill one canvas and return the seconds that it took.

        Args:
            loop: Their function's name.
            prompt: Token ids.
            generation: How the canvas is filled.
            mask: The mask token's id.
        """
        ids = torch.tensor([prompt], device=self.device)
        begun, self.passes = clock(self.device), 0
        settings = {"steps": generation.steps, "gen_length": generation.gen_length, "mask_id": mask}
        getattr(self._loops, loop)(self, ids, block_length=generation.block_length, **settings)
        return clock(self.device) - begun


def main(arguments: Sequence[str]) -> bool:
    """Measure and print.

    Args:
        arguments: Keys of `OWN` and of the config, `key=value`.

    Raises:
        UserError: No checkout is named, or there is none.
    """
    own = OmegaConf.merge(OWN, OmegaConf.from_dotlist([each for each in arguments if each.split("=")[0] in OWN]))
    if OmegaConf.is_missing(own, "checkout"):
        raise UserError("checkout= is missing: name a checkout of NVlabs/Fast-dLLM")
    others = [each for each in arguments if each.split("=")[0] not in OWN]
    usual = ["model=llada", "model.load_format=dummy", "model.quantization=none", "decoder=baseline"]
    cfg = compose([*usual, *others])
    model = build.model(cfg)
    theirs = Published(own.checkout, model.config, model.device)
    generation = Generation(own.canvas, own.block, own.canvas // own.per_forward)
    mask = model.config.mask_token_id
    [drawn] = random_prompts(model, [own.prompt], generation, cfg.seed)
    prompt = tuple(0 if token == mask else token for token in drawn)  # theirs would fill in a mask of the prompt
    passes: dict[tuple[str, str], int] = {}

    def published(name: str) -> float:
        seconds = theirs.decode(CACHES[name][0], prompt, generation, mask)
        passes["Fast-dLLM", name] = theirs.passes
        return seconds

    def ours(name: str) -> float:
        timing = time_decode(model, [Request(0, prompt, Baseline(), cache=CACHES[name][1])], generation, 1)
        passes["dlmlab", name] = timing.ledger.forwards
        return timing.seconds

    jobs: dict[tuple[str, str], Callable[[], float]] = {}
    for name in CACHES:
        jobs["Fast-dLLM", name] = lambda name=name: published(name)
        jobs["dlmlab", name] = lambda name=name: ours(name)
    take_turns(jobs, 2)  # ours records a shape the second time that it comes
    seconds = take_turns(jobs, own.rounds)
    rows = []
    for (who, name), runs in seconds.items():
        rate = spread(own.canvas / each for each in runs)
        ratio = spread(b / a for a, b in zip(runs, seconds["Fast-dLLM", name], strict=True))
        rows.append(
            [
                *(name, who, passes[who, name], f"{rate.median:.1f}", f"{rate.low:.1f}–{rate.high:.1f}"),
                f"{ratio.median:.2f}×" if who == "dlmlab" else None,
            ]
        )
    columns = ["cache", "code", "passes", "canvas tok/s", "lowest–highest", "by Fast-dLLM's"]
    show(Table(f"Prompt {own.prompt}, canvas {own.canvas}, {own.per_forward} tokens a pass, batch 1", columns, rows))
    return True


if __name__ == "__main__":
    sys.exit(exit_status(main))
