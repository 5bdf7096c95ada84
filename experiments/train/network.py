"""The network that is trained: fresh, or begun from a checkpoint's weights, and saved in its family's layout."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import PreTrainedTokenizerFast

from dlmlab.errors import UserError
from dlmlab.model.checkpoint import WEIGHTS
from dlmlab.model.config import LLaDAConfig
from dlmlab.model.family import network_config, source
from dlmlab.model.llada import LLaDAModelLM
from dlmlab.model.loader import load
from dlmlab.model.place import CONFIG, find
from dlmlab.record.files import replacing
from experiments.train import sudoku
from experiments.train.tokenizer import CELLS, in_template, save_tokenizer, train_tokenizer

FRESH = (".q_norm.", ".k_norm.", ".bias")
"""Parts of the names of parameters that begin as new where the first checkpoint, of another family, has none."""
NO_IDS = {"mask_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
"""Ids of a tokenizer that is not there yet."""


@dataclass
class Network:
    """A network in float32 with its tokenizer, and the config.json that describes it."""

    model: LLaDAModelLM
    tokenizer: PreTrainedTokenizerFast
    config: Mapping[str, Any]


def described(architecture: Mapping[str, Any], vocabulary: int, ids: Mapping[str, int]) -> dict[str, Any]:
    """Return the config.json of an architecture, LLaDA's where it names no other, and of a vocabulary.

    Args:
        architecture: Keys of a config.json of the network's family, without token ids.
        vocabulary: The number of tokens.
        ids: Token ids by their keys in config.json: `mask_token_id`, `eos_token_id` and `pad_token_id`.
    """
    if not architecture.get("architectures"):
        network = LLaDAConfig(**architecture, **ids, vocab_size=vocabulary, embedding_size=vocabulary)  # type: ignore[arg-type]
        stated = {key: getattr(network, key) for key in LLaDAConfig.__annotations__ if key != "model_type"}
        return {"architectures": ["LLaDAModelLM"], "model_type": "llada", **stated, "torch_dtype": "bfloat16"}
    return {**architecture, **ids, "vocab_size": vocabulary, "torch_dtype": "bfloat16"}


def start(
    tokenizer: Mapping[str, Any],
    architecture: Mapping[str, Any],
    initial: str | None,
    seed: int,
    kinds: Iterable[str] = (),
) -> Network:
    """Return a network to train.

    Args:
        tokenizer: What `train_tokenizer` takes, and the template, see `in_template`; for `cells` nothing else counts.
        architecture: Keys of a config.json of the network's family, without token ids; empty is the initial one's.
        initial: A checkpoint whose weights and tokenizer are where the training begins; None is a fresh network.
        seed: Of the text that the tokenizer is trained on; torch's own seeds the weights.
        kinds: The exercises whose text that is.

    Raises:
        UserError: The initial weights don't fit the architecture, or the network can't be trained here.
    """
    settings = dict(tokenizer)
    template = settings.pop("template", "llada")
    if initial:
        folder = find(initial)
        words = PreTrainedTokenizerFast.from_pretrained(folder)
    else:
        words = sudoku.make_tokenizer() if template == CELLS else train_tokenizer(**settings, seed=seed, kinds=kinds)
    words = in_template(words, template)
    if initial and not architecture:
        config = json.loads((folder / CONFIG).read_text())
    else:
        ids = {"mask_token_id": words.mask_token_id, "eos_token_id": words.eos_token_id}
        config = described(architecture, len(words), {**ids, "pad_token_id": words.eos_token_id})
    model = LLaDAModelLM(trained(config))
    if initial:
        begin(model, initial)
    return Network(model, words, config)


def begin(model: LLaDAModelLM, initial: str) -> None:
    """Give a model a checkpoint's weights, by name.

    Args:
        model: The model; of what only it has, parts of `FRESH` stay new.
        initial: The checkpoint, as `training.initial` names it.

    Raises:
        UserError: Shapes or parts differ.
    """
    given = load(initial, device="cpu", compile=False).state_dict()
    own = model.state_dict()
    for name, tensor in own.items():
        if name not in given and not any(part in name for part in FRESH):
            raise UserError(f"training.initial={initial} has no {name}, which the architecture asks for")
        if name in given and given[name].shape != tensor.shape:
            shapes = f"{tuple(given[name].shape)}, not {tuple(tensor.shape)}"
            raise UserError(f"training.initial={initial}: {name} is {shapes}, which the architecture asks for")
    if more := sorted(given.keys() - own.keys()):
        raise UserError(f"training.initial={initial} has {more[0]}, which the architecture lacks")
    model.load_state_dict(given, strict=False)


def save_checkpoint(network: Network, out: Path) -> None:
    """Write a folder in the family's layout, weights in bfloat16; config.json states every key that shapes the model.

    Args:
        network: The network, with its tokenizer.
        out: The folder, which is made where it is missing.
    """
    out.mkdir(parents=True, exist_ok=True)
    weights = {}
    for name, tensor in network.model.state_dict().items():
        [own] = source(network.model.config, name).names
        weights[own] = tensor.bfloat16().contiguous().cpu()
    with replacing(out / WEIGHTS) as draft:
        save_file(weights, draft, metadata={"format": "pt"})
        draft.chmod(0o644)
    (out / CONFIG).write_text(json.dumps(network.config, indent=1) + "\n")
    save_tokenizer(network.tokenizer, out)


def check_architecture(architecture: Mapping[str, Any], vocabulary: int) -> LLaDAConfig:
    """Return the network of an architecture, as `start` would make it, without weights.

    Args:
        architecture: Keys of a config.json of the network's family, without token ids.
        vocabulary: The number of tokens.

    Raises:
        UserError: A key is wrong, which is named.
    """
    return trained(described(architecture, vocabulary, NO_IDS | {"mask_token_id": 1}))


def trained(config: Mapping[str, Any]) -> LLaDAConfig:
    """Return the network that a config.json describes.

    Args:
        config: The config.json.

    Raises:
        UserError: A key is wrong, or the network can't be trained here; the line names it.
    """
    network = network_config(config, "the architecture")
    if network.attention_dropout:
        raise UserError(f"attention_dropout={network.attention_dropout} is not for training here: leave it at 0")
    return network


def parameters(model: torch.nn.Module) -> int:
    """Count the numbers that a model has learnt."""
    return sum(parameter.numel() for parameter in model.parameters())
