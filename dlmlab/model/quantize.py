"""A projection quantised: NF4 (arXiv:2305.14314) or LLM.int8 (arXiv:2208.07339) by bitsandbytes, or FP8.

FP8 is float8_e4m3fn (arXiv:2209.05433), multiplied by torch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from copy import copy
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from dlmlab.errors import UserError

FLOAT8_CAPABILITY = (8, 9)
"""The first CUDA devices that multiply FP8: RTX 40, L4, H100 and what came after."""
OUTLIER = 6.0
"""LLM.int8's threshold: columns of the input with a larger value are multiplied in 16 bit."""


def check_bitsandbytes(quantization: str) -> None:
    """Raise UserError where bitsandbytes is missing."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    try:
        import_module("bitsandbytes")
    except ImportError as error:
        raise UserError(
            f"quantization={quantization} needs bitsandbytes, which is missing ({error}): "
            "pip install bitsandbytes, or set quantization=none"
        ) from error


def nf4(layer: nn.Linear, weight: Tensor) -> nn.Module:
    """Return the layer in 4 bits, scales quantised too, computing in bfloat16, with this weight.

    Args:
        layer: The projection that is replaced: it gives the shape, and whether there is a bias, which isn't filled in.
        weight: The unquantised weight, (N, K), on the device where the new one is to be.
    """
    bnb = import_module("bitsandbytes")
    form: dict[str, Any] = {"compress_statistics": True, "quant_type": "nf4"}
    quantized: nn.Module = bnb.nn.Linear4bit(
        layer.in_features, layer.out_features, layer.bias is not None, torch.bfloat16, device="meta", **form
    )
    packed = bnb.nn.Params4bit(weight.to(torch.bfloat16), requires_grad=False, module=quantized, **form)
    quantized.weight = packed.to(weight.device)
    return quantized


class NF4Stack(nn.Module):
    """Matrices of experts in 4 bits, scales quantised too: (X, N, K), unpacked as they are needed.

    Scales are quantised around the mean of their own expert's: an expert with small weights keeps its precision beside
    others. A product unpacks all, since few experts see no token of a block: in LLaDA2.0-mini 1 GiB in bfloat16.
    """

    def __init__(self, weight_XNK: Tensor) -> None:
        super().__init__()
        bnb = import_module("bitsandbytes").functional
        rows = weight_XNK.to(torch.bfloat16).flatten(0, 1)
        codes, self._state = bnb.quantize_4bit(rows, compress_statistics=False, quant_type="nf4")
        self.codes = nn.Parameter(codes, requires_grad=False)
        scale_XS = self._state.absmax.view(len(weight_XNK), -1)
        self._shape, self._mean_X1 = weight_XNK.shape, scale_XS.mean(1, keepdim=True)
        self.scales, self.scale_state = bnb.quantize_blockwise(scale_XS - self._mean_X1, blocksize=256)
        self._state.absmax = None

    def forward(self) -> Tensor:
        """Return the matrices in bfloat16, (X, N, K)."""
        bnb = import_module("bitsandbytes").functional
        state = copy(self._state)
        state.absmax = (bnb.dequantize_blockwise(self.scales, self.scale_state) + self._mean_X1).flatten()
        weight: Tensor = bnb.dequantize_4bit(self.codes, state)
        return weight.view(self._shape)


def int8(layer: nn.Linear, weight: Tensor) -> nn.Module:
    """Return the layer in 8 bits, one scale a row, with this weight.

    Args:
        layer: The projection that is replaced: it gives the shape, and whether there is a bias, which isn't filled in.
        weight: The unquantised weight, (N, K), on the device where the new one is to be.
    """
    bnb = import_module("bitsandbytes")
    quantized: nn.Module = bnb.nn.Linear8bitLt(
        layer.in_features,
        layer.out_features,
        layer.bias is not None,
        has_fp16_weights=False,
        threshold=OUTLIER,
        device="meta",
    )
    rows, scales, _ = bnb.functional.int8_vectorwise_quant(weight.to(torch.float16))
    quantized.weight = bnb.nn.Int8Params(rows, requires_grad=False, CB=rows, SCB=scales)
    return quantized


def check_float8(
    device: torch.device, asked: str = "quantization=fp8", remedy: str = "quantization=nf4 or none"
) -> None:
    """Check that a device has units for FP8.

    Args:
        device: The device.
        asked: The setting that needs them.
        remedy: What to set instead.

    Raises:
        UserError: It has none.
    """
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < FLOAT8_CAPABILITY:
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "a CPU"
        raise UserError(
            f"{asked} needs a GPU that multiplies FP8 (RTX 40, H100 or newer), and this is {name}: set {remedy}"
        )


def rounded(x: Tensor) -> tuple[Tensor, Tensor]:
    """Rows in FP8, and each row's scale: (…, K) to (M, K) of float8_e4m3fn and (M, 1) of float32."""
    rows = x.flatten(0, -2).float()
    scale = rows.abs().amax(-1, keepdim=True).clamp(min=1e-12) / torch.finfo(torch.float8_e4m3fn).max
    return (rows / scale).to(torch.float8_e4m3fn), scale


def scaled_matmul(x_MK: Tensor, scale_M1: Tensor, weight_NK: Tensor, scale_N1: Tensor) -> Tensor:
    """Return the product (M, N), in bfloat16, of FP8 rows and FP8 weights, and of their scales.

    Hopper adds up faster with less precision: off by 0.2 % (of 4096 to 12288 terms), where FP8 itself is by near 4 %.

    Args:
        x_MK: The rows, in float8_e4m3fn.
        scale_M1: float32: a scale for each row; or one for all, (1, 1), where the weights have one too.
        weight_NK: The weights, in float8_e4m3fn.
        scale_N1: float32: a scale for each column of the product; or one for all, (1, 1).
    """
    return torch._scaled_mm(
        x_MK, weight_NK.T, scale_a=scale_M1, scale_b=scale_N1.T, out_dtype=torch.bfloat16, use_fast_accum=True
    )


class Float8Linear(nn.Module):
    """A projection in FP8: a scale an output, (N, 1), found on loading, and one an input row, found at each call."""

    def __init__(self, layer: nn.Linear, weight: Tensor) -> None:
        super().__init__()
        values, self.scale = rounded(weight)
        self.weight = nn.Parameter(values, requires_grad=False)
        self.bias = layer.bias

    def forward(self, x: Tensor) -> Tensor:
        """(…, K) to (…, N), in x's dtype."""
        y = scaled_matmul(*rounded(x), self.weight, self.scale).view(*x.shape[:-1], -1).to(x.dtype)
        return y if self.bias is None else y + self.bias


QUANTIZERS: dict[str, Callable[[nn.Linear, Tensor], nn.Module]] = {"nf4": nf4, "int8": int8, "fp8": Float8Linear}
STACK_QUANTIZERS: dict[str, Callable[[Tensor], nn.Module]] = {"nf4": NF4Stack}
"""Of experts' matrices; where a kind has none here they stay as they are."""
