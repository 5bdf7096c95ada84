"""Rows without their padding: each is computed as it is alone, and what no longer fits is left out."""

from __future__ import annotations

import pytest
import torch

from experiments.train.data import Layout
from experiments.train.loss import Batch, Masks, Objective, Weights
from experiments.train.network import start
from experiments.train.packed import Masked, attend, pack
from tests.experiments.test_train import SMALL

LAYOUTS = [Layout(3, 4), Layout(5, 2)]


def batch_of(layout: Layout, prompts: list[int], canvases: list[int], seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(9, 250, (len(prompts), layout.positions), generator=generator)
    answers = [max(1, canvas - 1) for canvas in canvases]
    lengths = (torch.tensor(each) for each in (prompts, answers, canvases))
    drawn = (torch.rand(len(prompts), *more, generator=generator) for more in ((), (3,), (layout.canvas,)))
    return Batch(ids, *lengths, *drawn)


BATCH = [batch_of(LAYOUTS[0], [3, 1, 2], [4, 2, 3], 0), batch_of(LAYOUTS[1], [5, 4], [2, 1], 1)]
"""Rows of 7, 3, 5, 7 and 5 positions."""


def objective(room: int, layouts: list[Layout] = LAYOUTS, device: str = "cpu") -> Objective:
    torch.manual_seed(0)
    model = start(SMALL["tokenizer"], SMALL["architecture"], None, seed=0).model.to(device)
    return Objective(model, layouts, Masks((2, 4), block_share=0.5), Weights(3, 0.25), room)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("room", [27, 33, 60])
def test_a_batch_is_the_sum_of_its_rows(room: int, device: str) -> None:
    batch = [Batch(*(column.to(device) for column in rows)) for rows in BATCH]
    whole = objective(room, device=device)
    loss, weight = whole(batch)
    loss.backward()
    alone = objective(7, device=device)
    found = []
    for layout, rows in zip(LAYOUTS, batch, strict=True):
        alone.layouts = [layout]
        found += [alone([Batch(*(column[row : row + 1] for column in rows))]) for row in range(len(rows.ids_BL))]
    losses, weights = (sum(each) for each in zip(*found, strict=True))
    losses.backward()
    assert loss.item() > 0
    loose = {"rel": 0.02} if device == "cuda" else {}
    assert loss.item() == pytest.approx(losses.item(), **loose)
    assert weight.item() == pytest.approx(weights.item())
    for one, two in zip(whole.model.parameters(), alone.model.parameters(), strict=True):
        assert (one.grad is None) == (two.grad is None)
        if one.grad is not None:
            assert (one.grad - two.grad).norm() <= (0.05 if device == "cuda" else 1e-4) * two.grad.norm()


def test_rows_that_no_longer_fit_are_left_out_and_not_those_of_the_longest_layout() -> None:
    rest = [Batch(*(column[:1] for column in BATCH[0])), BATCH[1]]
    for one, two in zip(objective(21)(BATCH), objective(19)(rest), strict=True):
        assert one.item() == pytest.approx(two.item())


def test_packed_rows_have_their_places() -> None:
    real = torch.tensor([[0, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 1]]) == 1
    ids = torch.arange(12).view(3, 4)
    packed = pack([Masked(ids, 10 * ids, real, ids + 0.5, ids + 0.25)], room=8, longest=3)
    assert packed.ids_N.tolist() == [1, 2, 3, 4, 5, 0, 0, 0]
    assert packed.token_N.tolist() == [10, 20, 30, 40, 50, 0, 0, 0]
    assert packed.weight_N.tolist() == [1.5, 2.5, 3.5, 4.5, 5.5, 0, 0, 0]
    assert packed.scale_N.tolist() == [1.25, 2.25, 3.25, 4.25, 5.25, 0, 0, 0]
    assert packed.position_N.tolist() == [0, 1, 2, 0, 1, 0, 0, 0]
    assert packed.ends_R.tolist() == [0, 3, 5, 5, 8, 8, 8]


def test_spare_positions_are_in_rows_of_the_longest_at_most() -> None:
    none = torch.zeros(1, 4)
    packed = pack([Masked(none.long(), none.long(), none == 1, none, none)], room=11, longest=4)
    assert packed.ends_R.tolist() == [0, 0, 4, 8, 11]


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_a_row_attends_to_itself_alone(device: str) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(9, 2, 32, generator=generator).to(device, torch.bfloat16) for _ in range(3))
    mixed = attend(q, k, v, torch.tensor([0, 4, 4, 9], dtype=torch.int32, device=device), longest=5)
    for first, end in ((0, 4), (4, 9)):
        scores = torch.einsum("qhe,khe->hqk", q[first:end].float(), k[first:end].float()) / 32**0.5
        expected = torch.einsum("hqk,khe->qhe", scores.softmax(-1), v[first:end].float())
        assert torch.allclose(mixed[first:end].float(), expected, atol=0.03)
