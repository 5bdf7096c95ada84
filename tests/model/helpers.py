"""A small random LLaDA, in memory and as a checkpoint folder."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from dlmlab.model.config import LLaDAConfig
from dlmlab.model.llada import LLaDAModelLM

VECTORS = Path(__file__).parents[1] / "data" / "llada-parity"

SMALL: dict[str, Any] = {
    "vocab_size": 96,
    "d_model": 128,
    "n_layers": 2,
    "n_heads": 4,
    "mlp_hidden_size": 192,
    "max_sequence_length": 64,
    "mask_token_id": 95,
    "eos_token_id": 94,
    "pad_token_id": 94,
}


def small_model(**changes: Any) -> LLaDAModelLM:
    """Fresh weights from a fixed seed; norms and biases are random too, so that leaving one out shows."""
    torch.manual_seed(0)
    model = LLaDAModelLM(LLaDAConfig(**(SMALL | changes))).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            randomized(parameter)
    return model


def randomized(tensor: torch.Tensor) -> None:
    """Make a vector random, so that leaving it out shows."""
    if tensor.dim() == 1:
        tensor.add_(torch.randn_like(tensor), alpha=0.3)


def save_small(folder: Path, **changes: Any) -> LLaDAModelLM:
    """Write a small checkpoint in LLaDA's layout, and return the model."""
    model = small_model(**changes)
    model.save_pretrained(folder)
    return model


def edit_config(folder: Path, **changes: Any) -> None:
    """Change keys of a folder's config.json; None drops the key."""
    file = folder / "config.json"
    config = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def shard(folder: Path) -> None:
    """Split a folder's weights over two files with an index, as the published checkpoints are."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    weight_map = {name: f"model-0000{1 + position % 2}-of-00002.safetensors" for position, name in enumerate(tensors)}
    for file in set(weight_map.values()):
        save_file({name: tensors[name] for name in tensors if weight_map[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
