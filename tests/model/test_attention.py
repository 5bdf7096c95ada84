"""The maps that rules ask for: those of a plain computation, with padding, grouped heads and shifted predictions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dlmlab.denoiser import Query
from dlmlab.generation import generate
from dlmlab.model.llada import LLaDAModelLM
from dlmlab.model.loader import load
from tests.decoder.steps import rule_of
from tests.model.families import save_family

LAYERS = 2


@pytest.fixture(scope="module", params=["illada", "dream", "sdar", "llada_moe"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LLaDAModelLM:
    folder: Path = tmp_path_factory.mktemp(request.param)
    save_family(folder, request.param)
    return load(str(folder), device="cpu")


def naive(model: LLaDAModelLM, tokens: list[int], layers: int) -> torch.Tensor:
    """The attention (L, L) of one row without padding, the mean of the heads of the last layers, head by head."""
    network, found = model.model, []
    x_BLD = network.embed(torch.tensor([tokens]))
    cos, sin = network.angles(x_BLD, slice(len(tokens)))
    size = model.config.block_size
    for block in network.transformer["blocks"]:
        q_BLHE, k_BLHE, _ = block.heads(x_BLD, cos, sin)
        maps = []
        for head in range(q_BLHE.shape[2]):
            scores = q_BLHE[0, :, head] @ k_BLHE[0, :, head // block.groups].T / q_BLHE.shape[-1] ** 0.5
            if size:
                number = torch.arange(len(tokens)) // size
                scores = scores.masked_fill(number > number[:, None], -torch.inf)
            maps.append(scores.softmax(-1))
        found.append(torch.stack(maps).mean(0))
        bias = None
        if size:
            hidden = torch.arange(len(tokens)) // size > (torch.arange(len(tokens)) // size)[:, None]
            bias = torch.zeros(hidden.shape).masked_fill(hidden, -1e4)[None, None]
        x_BLD = block(x_BLD, cos, sin, bias)
    return torch.stack(found[-layers:]).mean(0)


@torch.inference_mode()
def test_they_are_those_of_a_plain_computation_whatever_the_row_is_padded_by(model: LLaDAModelLM) -> None:
    rows, begins, width = [[3, 5, 7, 9, 11, 13, 15, 17], [2, 4, 6, 8, 10, 12]], [3, 1], 4
    pad = model.config.pad_token_id
    tokens_BL = torch.tensor([rows[0], [*rows[1], pad, pad]])
    real_BL = torch.tensor([[True] * 8, [True] * 6 + [False] * 2])
    position_BK = torch.tensor([[row * 8 + begin + each for each in range(width)] for row, begin in enumerate(begins)])
    query = Query(tokens_BL, real_BL, position_BK.flatten())
    hidden_ND, found_BKK = model.hidden_and_attention(query, position_BK, LAYERS)
    torch.testing.assert_close(hidden_ND, model.hidden(query))
    for row, begin, found_KK in zip(rows, begins, found_BKK, strict=True):
        own = slice(begin, begin + width)
        torch.testing.assert_close(found_KK, naive(model, row, LAYERS)[own, own], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["clad", "dapd", "dawn"])
def test_a_rule_that_looks_at_them_gives_each_prompt_what_it_gives_it_alone(name: str) -> None:
    model = load("tiny/v1", device="cpu", dtype="float32", quantization=None)
    prompts = ["Count up from 15 to 31 in steps of 2.", "Share 21 nuts fairly among Ann, Ida and Bob.", "Count."]
    settings = {"gen_length": 32, "block_length": 16, "steps": 32}
    together = generate(model, prompts, rule_of(name), batch_size=3, **settings)
    alone = [generate(model, [prompt], rule_of(name), batch_size=1, **settings)[0] for prompt in prompts]
    assert [output.tokens for output in together] == [output.tokens for output in alone]
    assert np.mean([output.forwards for output in together]) < 32


def test_more_layers_than_there_are_is_all_of_them() -> None:
    model = load("tiny/v1", device="cpu", dtype="float32", quantization=None)
    position_BK = torch.arange(4)[None]
    query = Query(torch.tensor([[5, 6, 7, 8, 9, 10]]))
    with torch.inference_mode():
        _, all_BKK = model.hidden_and_attention(query, position_BK, model.config.n_layers)
        _, more_BKK = model.hidden_and_attention(query, position_BK, 100)
    assert torch.equal(all_BKK, more_BKK)


def test_a_share_of_the_layers_is_rounded_up() -> None:
    model = load("tiny/v1", device="cpu", dtype="float32", quantization=None)
    position_BK = torch.arange(4)[None]
    query = Query(torch.tensor([[5, 6, 7, 8, 9, 10]]))
    assert model.config.n_layers == 6
    with torch.inference_mode():
        for share, layers in ((0.3, 2), (0.5, 3), (0.01, 1)):
            _, share_BKK = model.hidden_and_attention(query, position_BK, share)
            _, number_BKK = model.hidden_and_attention(query, position_BK, layers)
            assert torch.equal(share_BKK, number_BKK)
