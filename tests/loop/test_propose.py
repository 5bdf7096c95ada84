"""One forward pass: the right numbers at the right positions, whatever the batch and the chunks."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import pytest
import torch

from dlmlab.decoder.baseline import Baseline
from dlmlab.decoder.entropy import Entropy
from dlmlab.decoder.margin import Margin
from dlmlab.loop.canvases import Canvases, Window, pad
from dlmlab.loop.propose import Proposal, propose
from dlmlab.rule import Rule
from dlmlab.types import Generation
from tests.fakes import EOS, EOT, MASK, VOCABULARY, FakeModel

GENERATION = Generation(gen_length=6, block_length=3, steps=2)
ROWS = [[1, 2, MASK, 7, MASK, MASK, MASK, MASK], [3, MASK, MASK, MASK, MASK, MASK, MASK], [4, 4, 4, 5, 6, MASK]]
STARTS = [2, 4, 3]


@dataclass(frozen=True)
class Everything(Rule):
    """Asks for all that can be had."""

    measures = needs_logits = revokes = True

    @staticmethod
    def measure(probability_NV: torch.Tensor) -> torch.Tensor:
        return probability_NV.amin(-1)

    def transform(self, logits_BKV: torch.Tensor, state: tuple[torch.Tensor, ...]) -> torch.Tensor:
        return logits_BKV * 2


def windows(rows: list[list[int]] = ROWS, starts: list[int] = STARTS, seed: int = 5) -> list[Window]:
    return [
        Window(np.array(row), start, torch.Generator().manual_seed(seed + index))
        for index, (row, start) in enumerate(zip(rows, starts, strict=True))
    ]


def canvases(some: list[Window] | None = None) -> Canvases:
    return Canvases.of(some or windows(), 3, FakeModel().config)


def same(one: Proposal, other: Proposal) -> bool:
    return all(a is b is None or torch.equal(a, b) for a, b in zip(one, other, strict=True))  # type: ignore[arg-type]


def logits_of(row: list[int]) -> torch.Tensor:
    return FakeModel()(torch.tensor([row])).logits[0]


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_masked_places_get_the_likeliest_token_but_the_mask_and_its_probability(precision: str) -> None:
    generation = Generation(6, 3, 2, confidence_dtype=precision)
    proposal = propose(FakeModel(), canvases(), generation, Baseline())
    for index, (row, start) in enumerate(zip(ROWS, STARTS, strict=True)):
        logits_LV = logits_of(row).to(getattr(torch, precision))
        for offset in range(3):
            confidence = proposal.confidence_BK[index, offset]
            if row[start + offset] != MASK:
                assert confidence == -torch.inf
                continue
            probability_V = logits_LV[start + offset].softmax(-1)
            token = int(proposal.token_BK[index, offset])
            assert token == max(range(VOCABULARY - 1), key=lambda token: float(probability_V[token]))
            torch.testing.assert_close(confidence, probability_V[token])
            assert confidence.dtype == logits_LV.dtype
    assert proposal.measure_BK is proposal.logits_BKV is proposal.kept_BK is None


def test_a_rule_that_asks_gets_measures_logits_and_what_is_kept() -> None:
    proposal = propose(FakeModel(), canvases(), GENERATION, Everything())
    assert proposal.measure_BK is not None
    assert proposal.logits_BKV is not None
    assert proposal.kept_BK is not None
    for index, (row, start) in enumerate(zip(ROWS, STARTS, strict=True)):
        for offset in range(3):
            token, logits_V = row[start + offset], logits_of(row)[start + offset]
            torch.testing.assert_close(proposal.logits_BKV[index, offset], logits_V)
            probability_V = (logits_V * 2).softmax(-1)
            masked = token == MASK
            assert (proposal.confidence_BK[index, offset] > -torch.inf) == masked
            torch.testing.assert_close(proposal.measure_BK[index, offset], probability_V.amin())
            expected = torch.tensor(-torch.inf) if masked else probability_V[token]
            torch.testing.assert_close(proposal.kept_BK[index, offset], expected)


@pytest.mark.parametrize(("rule", "temperature"), [*product([Baseline(), Margin(), Everything()], [0.0, 1.0])], ids=str)
def test_company_and_chunks_change_nothing(rule: Rule, temperature: float, monkeypatch: pytest.MonkeyPatch) -> None:
    generation = Generation(6, 3, 2, temperature=temperature)
    together = propose(FakeModel(), canvases(), generation, rule)
    for position, window in enumerate(windows()):
        alone = propose(FakeModel(), canvases([window]), generation, rule)
        assert same(alone, Proposal._make(part if part is None else part[position : position + 1] for part in together))
    monkeypatch.setattr("dlmlab.loop.propose.CHUNK_ELEMENTS", 1)
    assert same(propose(FakeModel(), canvases(), generation, rule), together)


def test_the_end_token_can_be_forbidden_or_put_last() -> None:
    fixed = [0.0] * VOCABULARY
    fixed[EOS], fixed[EOT], fixed[7] = 9.0, 1.0, 5.0
    model = FakeModel(fixed=fixed)
    free = propose(model, canvases(), GENERATION, Baseline())
    forbidden = propose(model, canvases(), Generation(6, 3, 2, logits_eos_inf=True), Baseline())
    last = propose(model, canvases(), Generation(6, 3, 2, confidence_eos_eot_zero=True), Baseline())
    masked_BK = free.confidence_BK > -torch.inf
    assert (free.token_BK[masked_BK] == EOS).all()
    assert (forbidden.token_BK[masked_BK] == 7).all()
    assert (forbidden.confidence_BK[masked_BK] > 0.8).all()
    assert (last.token_BK[masked_BK] == EOS).all()
    assert (last.confidence_BK[masked_BK] == 0).all()
    assert (last.confidence_BK[~masked_BK] == -torch.inf).all()


def test_without_the_end_tokens_every_other_confidence_is_a_softmax_over_the_rest() -> None:
    """LLaDA's published option; the paper's text changes the end tokens' own confidences alone."""
    fixed = [0.0] * VOCABULARY
    fixed[EOS], fixed[EOT], fixed[7] = 4.0, 1.0, 5.0
    rest = torch.tensor(fixed)
    rest[[EOS, EOT]] = -torch.inf
    for change, logits in (("confidence_eos_eot_inf", rest), ("confidence_eos_eot_zero", torch.tensor(fixed))):
        found = propose(FakeModel(fixed=fixed), canvases(), Generation(6, 3, 2, **{change: True}), Baseline())
        masked_BK = found.confidence_BK > -torch.inf
        assert (found.token_BK[masked_BK] == 7).all()
        assert (found.confidence_BK[masked_BK] == logits.softmax(-1)[7]).all()


@pytest.mark.parametrize("change", ["confidence_eos_eot_inf", "confidence_eos_eot_zero"])
@pytest.mark.parametrize("rule", [Margin(), Entropy()])
def test_a_measure_puts_end_tokens_last_as_well(rule: Rule, change: str) -> None:
    fixed = [0.0] * VOCABULARY
    fixed[EOS], fixed[7] = 9.0, 4.0
    proposal = propose(FakeModel(fixed=fixed), canvases(), Generation(6, 3, 2, **{change: True}), rule)
    assert proposal.measure_BK is not None
    masked_BK = proposal.confidence_BK > -torch.inf
    [nothing] = rule.measure(torch.full((1, VOCABULARY), 1 / VOCABULARY))
    assert (proposal.measure_BK[masked_BK] == nothing).all()


def test_padding_is_on_the_right_and_none_is_needed_for_equal_lengths() -> None:
    tokens_BL, mask_BL = pad([np.array([1, 2]), np.array([3])], 9)
    assert tokens_BL.tolist() == [[1, 2], [3, 9]]
    assert mask_BL is not None
    assert mask_BL.tolist() == [[True, True], [True, False]]
    assert pad([np.array([1, 2]), np.array([3, 4])], 9)[1] is None
