"""How much of what goes through the model is padding, where prompts differ in length?

    python -m benchmarks.padding batch_size=8

256 random prompts of 8 to 512 tokens, decoded on random weights of a small shape, with the fixed schedule and with a
rule whose rows take different numbers of passes. Goal: at most 12 % of the positions are padding.
`dlmlab.loop.shared_pass.by_length` says how passes are parted. Every row takes part in every step, and rows are
admitted in order of length, so none waits longer than its turn.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.common import compose, exit_status, mark, show
from dlmlab.decoder.baseline import Baseline
from dlmlab.decoder.threshold import Threshold
from dlmlab.denoise import denoise
from dlmlab.denoiser import Query
from dlmlab.generation import decode
from dlmlab.model.config import LLaDAConfig
from dlmlab.model.llada import LLaDAModelLM
from dlmlab.rule import Rule
from dlmlab.tracking import Table
from dlmlab.types import Generation, Request

MOST = 0.12
PROMPTS, SHORTEST, LONGEST = 256, 8, 512
GENERATION = Generation(gen_length=16, block_length=16, steps=8)
SHAPE = {"vocab_size": 512, "d_model": 32, "n_layers": 1, "n_heads": 2, "mlp_hidden_size": 32}
TOKENS = {"mask_token_id": 511, "eos_token_id": 510, "pad_token_id": 510}


class Counting:
    """A model that counts the positions it is given, and those that are padding."""

    works_ahead = False  # passes that begin ahead would go past `hidden`

    def __init__(self, model: Any) -> None:
        self._model, self.positions, self.padded = model, 0, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def hidden(self, query: Query) -> Any:
        """The model's own."""
        self.positions += query.tokens_BL.numel()
        if query.real_BL is not None:
            self.padded += int((query.real_BL == 0).sum())
        return self._model.hidden(query)


def main(overrides: Sequence[str]) -> bool:
    """Measure, print, and say whether the goal is kept."""
    cfg = compose(overrides)
    batch = cfg.batch_size
    model = LLaDAModelLM(LLaDAConfig(**SHAPE, **TOKENS, max_sequence_length=LONGEST + GENERATION.gen_length))
    draw = np.random.default_rng(cfg.seed)
    lengths = np.exp(draw.uniform(np.log(SHORTEST), np.log(LONGEST), PROMPTS)).astype(int)
    prompts = [tuple(draw.integers(0, 510, length).tolist()) for length in lengths]
    rules: dict[str, Rule] = {"fixed schedule": Baseline(), "0 to 16 positions a pass": Threshold(0.02)}
    rows, kept = [], True
    for name, rule in rules.items():
        requests = [Request(index, prompt, rule) for index, prompt in enumerate(prompts)]
        sorted_, given = Counting(model), Counting(model)
        passes = {each.forwards for each in decode(sorted_, requests, GENERATION, batch_size=batch)}
        list(denoise(given, requests, GENERATION, batch))
        waste = sorted_.padded / sorted_.positions
        kept &= waste <= MOST
        shown = f"≤ {MOST:.0%} {mark(waste <= MOST)}"
        rows.append(
            [name, f"{min(passes)}–{max(passes)}", f"{given.padded / given.positions:.1%}", f"{waste:.1%}", shown]
        )
    columns = ["rows", "passes a row", "in the order given", "by length, as decode does", "goal"]
    show(Table(f"Positions that are padding, batch {batch}", columns, rows))
    return kept


if __name__ == "__main__":
    sys.exit(exit_status(main))
