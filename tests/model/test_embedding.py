"""Where the embedding lies. What a GPU makes of one on the host is in test_fast.py."""

from pathlib import Path

import pytest
import torch

from dlmlab.errors import UserError
from dlmlab.model.loader import load
from tests.model.helpers import save_small


def test_a_place_that_is_none_is_refused(tmp_path: Path) -> None:
    save_small(tmp_path)
    assert load(str(tmp_path), device="cpu", embedding_device="cpu").device.type == "cpu"
    with pytest.raises(UserError, match="embedding_device='disk' is not one of auto, cpu"):
        load(str(tmp_path), device="cpu", embedding_device="disk")


def test_an_embedding_that_is_the_head_stays(tmp_path: Path) -> None:
    pytest.importorskip("triton", reason="Triton is not installed")
    from dlmlab.model.embedding import keep_on_host

    save_small(tmp_path, weight_tying=True)
    with pytest.raises(UserError, match="not for a model whose head is its embedding: set embedding_device=auto"):
        keep_on_host(load(str(tmp_path), device="cpu"))


def test_an_embedding_on_the_host_gives_the_rows_of_any_ids(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("triton", reason="Triton is not installed")
    from dlmlab.model.embedding import HostEmbedding, keep_on_host

    save_small(tmp_path)
    model = load(str(tmp_path), device="cpu")
    ids = torch.tensor([[3, 1], [2, 3]])
    expected = model(ids).logits
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)  # which takes a GPU
    keep_on_host(model)
    assert isinstance(model.get_input_embeddings(), HostEmbedding)
    assert torch.equal(model(ids).logits, expected)
