"""CreditDecoding: what was predicted again and again needs less confidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from dlmlab.decoder.topk import top_k
from dlmlab.rule import Decision, Rule, Step
from dlmlab.settings import Fraction, NonNegativeFloat


@dataclass(frozen=True)
class Credit(Rule):
    """Raise the logits of tokens by the credit of their past, then commit by a threshold, at least one position.

    At each step the credit C of every token at every position fades, C ← beta C, and the likeliest token v* of each
    position gains p(v*)^gamma by the model's own p. Tokens and confidences come from logits + alpha ln(1 + C). Steps of
    the schedule play no part.

    Source: CreditDecoding, arXiv:2510.06133, equations 6 and 7, with the threshold of Fast-dLLM, arXiv:2505.22618; the
    defaults are those of the authors' engine (dInfer, `CreditThresholdParallelDecoder`). The most confident position,
    committed when none reaches the threshold, is not in the paper; dInfer commits all that come within 1e-5 of it. The
    state is a (K, V) credit for a row, anew with each block, as there.
    """

    alpha: NonNegativeFloat
    beta: Fraction
    gamma: NonNegativeFloat
    threshold: Fraction
    needs_logits: ClassVar[bool] = True
    scheduled: ClassVar[bool] = False

    def initial_state(self, block_length: int, vocab_size: int, like: Tensor) -> tuple[Tensor, ...]:
        """Return a row's credit where a block begins: none for any token, (K, V).

        Args:
            block_length: K, the positions of the active block.
            vocab_size: V, the width of the logits.
            like: A tensor with the device, and with the dtype of logits.
        """
        return (like.new_zeros(block_length, vocab_size),)

    def transform(self, logits_BKV: Tensor, state: tuple[Tensor, ...]) -> Tensor:
        return logits_BKV + per_row(self.alpha) * self.updated(logits_BKV, *state).log1p()

    def __call__(self, step: Step) -> Decision:
        assert step.logits_BKV is not None
        commit_BK = (step.confidence_BK >= self.threshold) | top_k(step.confidence_BK, 1)
        return Decision(commit_BK, state=(self.updated(step.logits_BKV, *step.state),))

    def updated(self, logits_BKV: Tensor, credit_BKV: Tensor) -> Tensor:
        """Return the credit after one more look at the model's logits.

        Args:
            logits_BKV: The model's own logits, to which no credit has been added.
            credit_BKV: The credit as of the last step; it stays as it is.
        """
        probability_BK, token_BK = logits_BKV.softmax(-1).max(-1)
        gain_BK = probability_BK.pow(self.gamma)
        return (per_row(self.beta) * credit_BKV).scatter_add_(-1, token_BK[..., None], gain_BK[..., None])


def per_row(value: float | Tensor) -> float | Tensor:
    """A parameter that goes with (B, K, V): a number, or (B, 1, 1)."""
    return value[..., None] if isinstance(value, Tensor) else value
