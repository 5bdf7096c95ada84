"""Load a checkpoint of any family: from a folder or the hub, in a dtype, quantised or not, on a device.

    model = load("GSAI-ML/LLaDA-1.5", dtype="bfloat16", quantization="nf4")

Tensors go one by one from the file to the device, so that a model that fits the device loads on it. No code of the
checkpoint is run, and nothing but safetensors and JSON is read.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
from torch import Tensor, nn

from dlmlab.errors import UserError
from dlmlab.model import checkpoint, dummy
from dlmlab.model.cached import FLOAT8
from dlmlab.model.config import LLaDAConfig
from dlmlab.model.experts import Experts
from dlmlab.model.llada import LLaDAModelLM
from dlmlab.model.place import SMALL_FILES, check_device_name, check_path, find, local
from dlmlab.model.quantize import QUANTIZERS, STACK_QUANTIZERS, check_bitsandbytes, check_float8
from dlmlab.settings import NonNegativeInt, one_of

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
LOAD_FORMATS = ("safetensors", "dummy")
COMPILE = ("auto", True, False)
NF4_KERNELS = ("auto", "fused", "bnb")
EMBEDDING_DEVICES = ("auto", "cpu")
KV_CACHE_DTYPES = {"auto": None, "fp8": FLOAT8}
QUANTIZED_PART = "model.transformer.blocks."
"""Prefix of the parameters that are quantised; the head and the embedding stay as they are.

A list of names could not say so: the head and the blocks' last projection are both called `ff_out`.
"""


def load(
    path: str,
    dtype: Annotated[str, one_of(DTYPES)] = "float32",
    device: str = "auto",
    quantization: Annotated[str, one_of(("none", *QUANTIZERS))] | None = None,
    revision: str | None = None,
    load_format: Annotated[str, one_of(LOAD_FORMATS)] = "safetensors",
    config: Mapping[str, Any] | None = None,
    compile: Annotated[bool | str, one_of(COMPILE)] = "auto",
    nf4_kernel: Annotated[str, one_of(NF4_KERNELS)] = "auto",
    kv_cache_dtype: Annotated[str, one_of(KV_CACHE_DTYPES)] = "auto",
    embedding_device: Annotated[str, one_of(EMBEDDING_DEVICES)] = "auto",
    mask_token_id: NonNegativeInt | None = None,
) -> LLaDAModelLM:
    """Return the model of a checkpoint, with its tokenizer, ready to decode.

    Args:
        path: A local folder or a hub name.
        dtype: float32 or bfloat16, or torch's own of these; the type of everything that is not quantised.
        device: auto (a GPU where there is one), cpu, cuda or cuda:N.
        quantization: none, nf4, int8 or fp8, for the projections inside the blocks; for experts nf4 alone.
        revision: The revision of a hub name.
        load_format: safetensors, or dummy for random weights.
        config: Stands in for config.json with load_format=dummy, where `path` is no local folder.
        compile: Whether passes go through dlmlab's own kernels, recorded as CUDA graphs (`dlmlab.model.fast`): true,
            false, or auto, where the device and the model allow it.
        nf4_kernel: What multiplies NF4 weights there: bnb (bitsandbytes), fused (one kernel), or auto, the faster for
            the number of rows.
        kv_cache_dtype: What a cache keeps keys and values in: auto, the model's own dtype, or fp8, in half the memory
            of bfloat16. A cache that keeps more than those (dllm) doesn't round.
        embedding_device: Where the embedding lies: auto, the model's device, or cpu, where a GPU reads the rows that it
            needs. That leaves it more memory, and takes Triton.
        mask_token_id: Stands for a missing token where the checkpoint doesn't say it.

    Returns:
        The model, in evaluation mode, on the device.

    Raises:
        UserError: Something cannot be had; the line names the value and the remedy.
    """
    if not isinstance(path, str | Path):
        raise UserError(f"path={reprlib.repr(path)} is no path: name a checkpoint's folder or a model of the hub")
    path, dtype = str(path), str(dtype).removeprefix("torch.") if isinstance(dtype, torch.dtype) else dtype
    place, number = pick_device(device), DTYPES[pick("dtype", dtype, DTYPES)]
    if place.index is not None:
        torch.cuda.set_device(place)  # kernels of libraries go to the current device
    kind = pick("quantization", quantization or "none", ("none", *QUANTIZERS))
    if kind == "fp8":
        check_float8(place)
    elif kind in QUANTIZERS:
        check_bitsandbytes(kind)
    if compile not in COMPILE:
        raise UserError(f"compile={compile!r} is not one of auto, true, false")
    pick("nf4_kernel", nf4_kernel, NF4_KERNELS)
    if pick("kv_cache_dtype", kv_cache_dtype, KV_CACHE_DTYPES) == "fp8" and place.type == "cuda":
        check_float8(place, "kv_cache_dtype=fp8", "kv_cache_dtype=auto")
    pick("embedding_device", embedding_device, EMBEDDING_DEVICES)
    if compile is True and place.type != "cuda":
        raise UserError(f"compile=true needs a CUDA device, not {place}: set compile=auto or false")
    if pick("load_format", load_format, LOAD_FORMATS) == "dummy":
        model = _load_dummy(path, revision, config, place, number, kind)
    else:
        folder = find(path, revision)
        model = skeleton(checkpoint.read_config(folder, mask_token_id))
        _load_checkpoint(model, folder, place, number, kind)
    model.model.rotary(place)
    model.train(False)
    model.kv_cache_dtype = KV_CACHE_DTYPES[kv_cache_dtype]
    if place.type == "cuda" and embedding_device == "cpu":
        _keep_embedding_on_host(model)
    if place.type == "cuda" and compile:
        _speed_up(model, nf4_kernel, required=compile is True)
    return model


class Preview(NamedTuple):
    """A model's config and tokenizer, known before its weights are read."""

    config: LLaDAConfig
    tokenizer: Any


def preview(
    path: str,
    load_format: str = "safetensors",
    config: Mapping[str, Any] | None = None,
    mask_token_id: int | None = None,
    **_: Any,
) -> Preview | None:
    """Return what a checkpoint's folder says of the model that `load` would make of it; None where only the hub knows.

    Args:
        path: A local folder or a hub name; None is returned for anything but a text.
        load_format: As `load` has it: with `dummy`, `config` is looked at where `path` is no folder.
        config: Stands in for config.json then.
        mask_token_id: As `load` has it.
        **_: Other settings of `load`, of which no notice is taken.

    Raises:
        UserError: The path is neither a checkpoint's folder nor a name on the hub, or a file there can't be used.
    """
    if not isinstance(path, str):
        return None
    folder = local(path)
    if folder.is_dir():
        network = checkpoint.read_config(folder, mask_token_id)
        return Preview(network, checkpoint.read_tokenizer(folder, network))
    if load_format == "dummy" and config:
        return Preview(dummy.network_config(config), None)
    check_path(path)
    return None


def _keep_embedding_on_host(model: LLaDAModelLM) -> None:
    try:
        from dlmlab.model.embedding import keep_on_host
    except ImportError as error:
        raise UserError(f"embedding_device=cpu can't be had: {error}; set embedding_device=auto") from error
    keep_on_host(model)


def _speed_up(model: LLaDAModelLM, nf4_kernel: str, required: bool) -> None:
    """Give the model a fast pass. Where that can't be, and isn't required, the plain one does."""
    try:
        from dlmlab.model import fast

        fast.speed_up(model, nf4_kernel)
    except (ImportError, UserError) as error:
        if required:
            raise UserError(f"compile=true can't be had: {error}") from error


def _load_checkpoint(model: LLaDAModelLM, folder: Path, place: torch.device, dtype: torch.dtype, kind: str) -> None:
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    with checkpoint.Weights(folder) as weights:
        held = checkpoint.Checkpoint(folder, model.config, weights, shapes)
        fill(model, lambda name, _: held.read(name).to(place, precision(name, dtype), copy=True), kind)
    model.identify, model.commit = partial(checkpoint.fingerprint, folder), checkpoint.hub_commit(folder)
    model.tokenizer = checkpoint.read_tokenizer(folder, model.config)


def precision(name: str, dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of a parameter in a model of one dtype: a router's biases would be rounded alike by bfloat16.

    Args:
        name: The parameter's name in the network, such as `model.transformer.blocks.0.router.bias`.
        dtype: The model's, which all but a router's biases have; theirs is float32.
    """
    return torch.float32 if name.endswith(".router.bias") else dtype


def _load_dummy(
    path: str,
    revision: str | None,
    config: Mapping[str, Any] | None,
    place: torch.device,
    dtype: torch.dtype,
    kind: str,
) -> LLaDAModelLM:
    folder = None
    if config is None or local(path).is_dir():
        folder = find(path, revision, SMALL_FILES)
        network = checkpoint.read_config(folder)
    else:
        network = dummy.network_config(config)
    model = skeleton(network)
    weights = dummy.DummyWeights(dtype, place)
    fill(model, lambda _, shape: weights.make(shape), kind)
    model.identify = partial(dummy.fingerprint, model.config)
    model.tokenizer = checkpoint.read_tokenizer(folder, network) if folder else None
    return model


def skeleton(config: LLaDAConfig) -> LLaDAModelLM:
    """Return the model without weights: its parameters have a shape and no storage."""
    with torch.device("meta"):
        return LLaDAModelLM(config)


def fill(model: LLaDAModelLM, tensor_of: Callable[[str, torch.Size], Tensor], kind: str) -> None:
    """Give every parameter its tensor, one at a time, quantised where it is to be.

    Args:
        model: A model without weights.
        tensor_of: Returns the tensor of a parameter's name and shape.
        kind: The quantisation, or `none`.
    """
    for name, parameter in list(model.named_parameters()):
        owner_name, _, leaf = name.rpartition(".")
        owner = model.get_submodule(owner_name)
        tensor = tensor_of(name, parameter.shape)
        if kind in QUANTIZERS and name.startswith(QUANTIZED_PART) and isinstance(owner, nn.Linear) and leaf == "weight":
            model.set_submodule(owner_name, QUANTIZERS[kind](owner, tensor))
        elif kind in STACK_QUANTIZERS and isinstance(owner, Experts):
            delattr(owner, leaf)
            setattr(owner, leaf, STACK_QUANTIZERS[kind](tensor))
        else:
            setattr(owner, leaf, nn.Parameter(tensor, requires_grad=False))


def pick(key: str, value: str, choices: Iterable[str]) -> str:
    """Return a value that is one of the choices.

    Args:
        key: What an error calls the setting.
        value: What a caller has given.
        choices: All that it may be.

    Raises:
        UserError: It is not.
    """
    if not isinstance(value, str) or value not in choices:
        raise UserError(f"{key}={value!r} is not one of {', '.join(choices)}")
    return value


def pick_device(device: str) -> torch.device:
    """Return the device of a name; `auto` is a GPU where there is one.

    Raises:
        UserError: The name is of no device, or the device is missing.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    check_device_name(device)
    place = torch.device(device)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if place.type == "cuda" and (place.index or 0) >= count:
        raise UserError(f"device={device} asked for, but {count} CUDA devices are found: set device=cpu or device=auto")
    return place
