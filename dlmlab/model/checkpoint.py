"""The files of a checkpoint: checked before they are used, hashed. Safetensors alone."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from dlmlab.errors import UserError
from dlmlab.model import digest
from dlmlab.model.config import LLaDAConfig
from dlmlab.model.family import FAMILIES, network_config, source
from dlmlab.model.place import CONFIG, SMALL_FILES
from dlmlab.record.files import parse_json, read_bytes

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
TOKENIZER = "tokenizer.json"
GENERATION = "generation_config.json"

EMBEDDING = "model.transformer.wte.weight"
HEAD = "model.transformer.ff_out.weight"

COMMIT = re.compile(r"[0-9a-f]{40}")
MOST = {"n_layers": 1024, "max_sequence_length": 2**24, "d_model": 2**17, "n_heads": 2**12, "vocab_size": 2**24}
"""Keys of a network's config, and the most that they may say."""


def hub_commit(folder: Path) -> str | None:
    """Return the commit of a snapshot in the hub's cache, whose folder it names; None for any other folder."""
    return folder.name if folder.parent.name == "snapshots" and COMMIT.fullmatch(folder.name) else None


def read_config(folder: Path, mask_token_id: int | None = None) -> LLaDAConfig:
    """Return the network that the folder's config.json describes.

    Args:
        folder: The checkpoint's folder, with config.json and, where there is one, generation_config.json.
        mask_token_id: Stands in for the file's; None takes what the file says.

    Raises:
        UserError: A file can't be read, or the network that it describes can't be had.
    """
    config = _read_json(folder / CONFIG)
    if mask_token_id is not None:
        config["mask_token_id"] = mask_token_id
    ends = _read_json(folder / GENERATION) if (folder / GENERATION).exists() else {}
    try:
        found = network_config(config, str(folder / CONFIG), ends)
    except UserError:
        raise
    except Exception as error:  # of whatever transformers and we do with a value of another type
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{folder / CONFIG} has a value that can't be used ({reason}): fetch it again") from error
    check_size(found)
    check_ends(found)
    return found


def check_size(config: LLaDAConfig) -> None:
    """Raise UserError for a network beyond all that there are, which would take all memory before it failed."""
    for key, most in MOST.items():
        if getattr(config, key) > most:
            raise UserError(f"config key {key}={getattr(config, key)} is more than {most}, which no model has")


def check_ends(config: LLaDAConfig) -> None:
    """Raise UserError where what is masked can't be told from what ends an answer."""
    if config.mask_token_id in (config.eos_token_id, *getattr(config, "other_end_ids", ())):
        raise UserError(
            f"config key mask_token_id={config.mask_token_id} is the token that ends an answer: state the model's own"
        )


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = parse_json(read_bytes(file))
    except FileNotFoundError:
        raise UserError(f"checkpoint folder {file.parent} has no {file.name}: copy it there") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} cannot be read as JSON ({error}): fetch it again") from error
    if not isinstance(content, dict):
        raise UserError(f"{file} holds no JSON object: fetch it again")
    return content


class Weights:
    """The tensors of a folder's safetensors files; none is read before it is asked for.

    Raises UserError for missing, truncated or inconsistent files.
    """

    def __init__(self, folder: Path) -> None:
        self._stack = ExitStack()
        self._file_of: dict[str, Any] = {}
        for path in weight_files(folder):
            try:
                file = self._stack.enter_context(safe_open(path, framework="pt"))
            except (SafetensorError, OSError) as error:
                raise UserError(f"{path} is truncated or no safetensors file ({error}): fetch it again") from error
            for name in file.keys():  # noqa: SIM118 (an open file is no dict)
                if name in self._file_of:
                    raise UserError(f"tensor {name} is in two files of {folder}: fetch the checkpoint again")
                self._file_of[name] = file

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(file.get_slice(name).get_shape()) for name, file in self._file_of.items()}

    def read(self, name: str) -> Tensor:
        tensor: Tensor = self._file_of[name].get_tensor(name)
        if not tensor.is_floating_point():
            raise UserError(f"tensor {name} holds {tensor.dtype}: only unquantised checkpoints can be loaded")
        return tensor


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a checkpoint, each in its own folder. Raises UserError where one is missing."""
    if (folder / WEIGHTS).exists():
        if not (folder / WEIGHTS).is_file():
            raise UserError(f"{folder / WEIGHTS} is no regular file: copy the weights there")
        return [folder / WEIGHTS]
    if not (folder / INDEX).exists():
        raise UserError(
            f"checkpoint folder {folder} has no {WEIGHTS} and no {INDEX}: copy the weights there "
            "(pickled weights are not read: convert them to safetensors)"
        )
    weight_map = _read_json(folder / INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(f"{folder / INDEX} has no weight_map: fetch it again")
    names = sorted({str(name) for name in weight_map.values()})
    for name in names:
        if Path(name).name != name or Path(name).suffix != ".safetensors":
            raise UserError(f"{folder / INDEX} names {name!r}, which is no safetensors file of its own folder")
        if not (folder / name).is_file():
            raise UserError(f"checkpoint folder {folder} has no {name}, which its {INDEX} names: fetch it again")
    return [folder / name for name in names]


class Checkpoint:
    """The network's parameters as a checkpoint of its family holds them.

    Raises UserError unless the weights are exactly the tensors that the config asks for; a copy of the embedding that
    stands for a tied head may be there as well.
    """

    def __init__(self, folder: Path, config: LLaDAConfig, weights: Weights, shapes: Mapping[str, tuple[int, ...]]):
        self._weights, self._shapes = weights, shapes
        self._sources = {name: source(config, name) for name in shapes}
        found, wanted = weights.shapes(), self._wanted()
        if config.weight_tying and (copy := source(config, HEAD).names[0]) in found:
            [embedding] = self._sources[EMBEDDING].names
            if not torch.equal(weights.read(copy), weights.read(embedding)):
                raise UserError(f"tensor {copy} of {folder} is no copy of {embedding}, to which its {CONFIG} ties it")
            del found[copy]
        check_shapes(folder, found, wanted)

    def _wanted(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the checkpoint's tensors. Parameters that are stacked of several have one more dimension."""
        wanted: dict[str, tuple[int, ...]] = {}
        for name, (names, _) in self._sources.items():
            *outer, width = self._shapes[name]
            shape = (math.prod(outer) // len(names), width) if outer else (width,)
            for each in names:
                before = wanted[each][0] if each in wanted else 0
                wanted[each] = (before + shape[0], *shape[1:])
        return wanted

    def read(self, name: str) -> Tensor:
        """Return a parameter of the network, from as many tensors as it lies in."""
        names, begin = self._sources[name]
        tensors = [self._weights.read(each) for each in names]
        tensor = tensors[0] if len(tensors) == 1 else torch.cat(tensors)
        shape = self._shapes[name]
        rows = math.prod(shape[:-1]) if len(shape) > 1 else shape[0]
        return tensor[begin : begin + rows].view(shape)


def check_shapes(folder: Path, found: dict[str, tuple[int, ...]], wanted: dict[str, tuple[int, ...]]) -> None:
    """Raise UserError unless a checkpoint holds exactly the tensors that its config.json asks for.

    Args:
        folder: The checkpoint's folder, which an error names.
        found: The shapes of the tensors that its files hold, by name.
        wanted: The shapes that the config asks for, by the checkpoint's names.
    """
    for problem, names in (
        ("lacks", wanted.keys() - found.keys()),
        ("has an unexpected", found.keys() - wanted.keys()),
    ):
        if names:
            others = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise UserError(
                f"checkpoint {folder} {problem} tensor {min(names)}{others}, going by its {CONFIG}: "
                "fetch weights and config of one model"
            )
    for name, shape in wanted.items():
        if found[name] != shape:
            raise UserError(f"tensor {name} of {folder} has shape {found[name]}, but its {CONFIG} asks for {shape}")


def read_tokenizer(folder: Path, config: LLaDAConfig | None = None) -> PreTrainedTokenizerBase | None:
    """Return the checkpoint's tokenizer, or None where it has none.

    The class is fixed: a tokenizer_config.json that names another, or code of its own, is not followed.

    Args:
        folder: The checkpoint's folder.
        config: The network's, whose special tokens it must have; with None they are not checked.

    Raises:
        UserError: The tokenizer can't be read, or lacks a special token, or has another mask.
    """
    if not (folder / TOKENIZER).exists():
        return None
    for file in (file for pattern in SMALL_FILES for file in folder.rglob(pattern)):
        if not file.is_file():
            raise UserError(f"{file} is no regular file: fetch it again")
    chatty = logging.getLogger("transformers")
    level = chatty.level
    chatty.setLevel(logging.ERROR)
    try:
        tokenizer: PreTrainedTokenizerBase = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"tokenizer of {folder} cannot be read ({reason}): fetch it again") from error
    finally:
        chatty.setLevel(level)
    if config is not None:
        check_special_tokens(folder, config, tokenizer.get_vocab())
        check_mask(folder, config, tokenizer)
    return tokenizer


def check_mask(folder: Path, config: LLaDAConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise UserError where the mask token of a config is none of the tokenizer's.

    Args:
        folder: The checkpoint's folder, which an error names.
        config: The network's; where its family's special tokens aren't checked, its mask must be no plain text.
        tokenizer: The checkpoint's; where it names a mask token, that must be the config's.
    """
    asked, own = config.mask_token_id, tokenizer.mask_token_id
    text = tokenizer.convert_ids_to_tokens(asked) if asked is not None else None
    if own not in (None, asked):
        raise UserError(f"config key mask_token_id={asked} of {folder} is {text!r}, but its tokenizer's mask is {own}")
    known = asked in tokenizer.added_tokens_decoder or FAMILIES[config.family].special_tokens_checked
    if text is not None and not known:
        raise UserError(f"config key mask_token_id={asked} of {folder} is the text {text!r}: state the model's mask")


def check_special_tokens(folder: Path, config: LLaDAConfig, vocabulary: Mapping[str, int]) -> None:
    """Raise UserError where a tokenizer lacks the mask, or what ends an answer of its family.

    Args:
        folder: The checkpoint's folder, which an error names.
        config: The network's; its family says whether anything is checked.
        vocabulary: The tokenizer's ids, by the texts of its tokens.
    """
    family = FAMILIES[config.family]
    if not family.special_tokens_checked:
        return
    ids = {"mask": config.mask_token_id, "end of text": config.eos_token_id}
    known = set(vocabulary.values())
    missing = [f"{what} ({token})" for what, token in ids.items() if token is not None and token not in known]
    if family.end_of_turn and family.end_of_turn not in vocabulary:
        missing.append(f"end of turn ({family.end_of_turn})")
    if missing:
        raise UserError(f"tokenizer of {folder} has no {' and no '.join(missing)}: fetch it and {CONFIG} of one model")


def fingerprint(folder: Path) -> str:
    """sha256 over the digests of config.json and of every weights file: which model this is, wherever it lies."""
    return digest.combined([folder / CONFIG, *weight_files(folder)])
