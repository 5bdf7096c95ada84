"""DPad's suffix dropout: of the masks behind the active block a random part is kept, the fewer the further off."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dlmlab.policy import Frozen, Plan, Policy, View
from dlmlab.settings import NonNegativeFloat, PositiveInt


@dataclass(frozen=True)
class DPad(Policy):
    """Let only some of the `window` positions behind the block be computed and seen, at their own positions.

    They are drawn when a block begins, by the row's seed: each with the probability scale · φ(z), where φ is the
    density of the standard normal distribution, and z goes in even steps from 0 behind the block to k_sigma at the
    window's end.

    Source: DPad, arXiv:2508.14148, whose published code has for k_sigma and scale 4 and 2, or 3 and 1.6 to 2.3, and for
    the window 128 to 512. Its early end is `generation.stop_at_end`'s. It draws from one source for all rows. No
    published decodes are held against this one.

    Attributes:
        window: Positions behind the block that may be drawn; none beyond them is.
        k_sigma: The largest z; a larger one draws fewer positions far from the block.
        scale: What the density is multiplied by; from a product of 1 on a position is always drawn.
        keep_prefix: Whether what lies before the block is computed when the block begins and then kept, as with
            `Prefix`; where not, each pass computes it, as in most of the published figures.
    """

    window: PositiveInt = 256
    k_sigma: NonNegativeFloat = 4.0
    scale: NonNegativeFloat = 2.0
    keep_prefix: bool = True
    frozen = Frozen.EARLIER_BLOCKS
    steady = True

    def plan(self, view: View) -> Plan:
        visible_L = view.between(0, view.end) | self._drawn(view)
        kept = self.keep_prefix and view.step > 0
        return Plan(visible_L & ~view.between(0, view.start) if kept else visible_L, visible_L)

    def _drawn(self, view: View) -> np.ndarray:
        z_W = np.linspace(0, self.k_sigma, self.window)
        chance_W = self.scale * np.exp(-(z_W**2) / 2) / np.sqrt(2 * np.pi)
        drawn_W = np.random.default_rng([*view.seed, view.start]).random(self.window) < chance_W
        drawn = view.end + np.flatnonzero(drawn_W)
        drawn_L = np.zeros(len(view.committed_L), dtype=bool)
        drawn_L[drawn[drawn < len(drawn_L)]] = True
        return drawn_L
