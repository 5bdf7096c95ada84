"""LLaDA's forward pass in few kernels, recorded as CUDA graphs: what a step costs where the GPU waits for nothing.

The answer is the plain pass's within rounding. Projections that see the same input stand side by side in one matrix,
what lies between two projections is one kernel, and the pass for a batch's shape is recorded the second time that it
comes, then replayed. The last block's MLP is computed for the places that are asked for alone, their number rounded up
so that few shapes come.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dlmlab.errors import UserError
from dlmlab.kernel.attention import attention
from dlmlab.kernel.pointwise import Product, add_norm, quantize, swiglu
from dlmlab.model.llada import Block, LLaDAConfig, LLaDAModelLM
from dlmlab.model.projection import Projection, side_by_side
from dlmlab.model.quantize import Float8Linear

MOST_GRAPHS = 64
"""Recorded shapes; beyond them the one that was used longest ago goes."""
HEAD_START = 2
"""Blocks that the device computes while the host launches the others."""
HEAD_WIDTHS = (32, 64, 128, 256)

PLAIN = {
    "activation_type": "silu",
    "attention_layer_norm": False,
    "include_bias": False,
    "include_qkv_bias": False,
    "input_emb_norm": False,
    "layer_norm_with_affine": True,
    "norm_bias": False,
    "rope_full_precision": True,
}
"""What the kernels compute; published LLaDAs are all like this."""


Shape = tuple[int, int, int, bool]
"""B, L, N rounded up, and whether places are padding."""


class Layer(NamedTuple):
    """A block's weights."""

    attn_norm: Tensor
    qkv: Projection
    attn_out: Projection
    ff_norm: Tensor
    gate_up: Projection
    ff_out: Projection


class Inputs(NamedTuple):
    """What a pass reads, on the device."""

    input_ids_BL: Tensor
    attention_mask_BL: Tensor | None
    where_N: Tensor

    def fill(self, input_ids_BL: Tensor, attention_mask_BL: Tensor | None, where_N: Tensor) -> None:
        """Copy from wherever these lie; the places may be fewer, the others then stay what they are."""
        self.input_ids_BL.copy_(input_ids_BL, non_blocking=True)
        self.where_N[: len(where_N)].copy_(where_N, non_blocking=True)
        if self.attention_mask_BL is not None and attention_mask_BL is not None:
            self.attention_mask_BL.copy_(attention_mask_BL, non_blocking=True)


class Recorded(NamedTuple):
    """A pass in two parts, and the memory that it reads from and writes to."""

    inputs: Inputs
    begin: torch.cuda.CUDAGraph
    end: torch.cuda.CUDAGraph
    hidden_ND: Tensor


def obstacle(model: LLaDAModelLM) -> str | None:
    """Why a model on a GPU can't have a fast pass; None where it can."""
    config = model.config
    for key, value in PLAIN.items():
        if getattr(config, key) != value:
            return f"config key {key}={getattr(config, key)!r}"
    if config.head_width not in HEAD_WIDTHS:
        return f"heads of width {config.head_width}"
    if type(model.model.transformer["blocks"][0].q_proj).__name__ == "Linear8bitLt":
        return "quantization=int8"  # it waits for the device to find outliers
    dtype = model.model.transformer["wte"].weight.dtype
    return None if dtype == torch.bfloat16 else f"dtype={str(dtype).removeprefix('torch.')}"


class Fast:
    """A callable like `LLaDAModelLM.hidden`, for places that are named.

    nf4_kernel: see `dlmlab.model.loader.load`.
    """

    def __init__(self, model: LLaDAModelLM, nf4_kernel: str) -> None:
        transformer = model.model.transformer
        self._config: LLaDAConfig = model.config
        self._embedding: Tensor = transformer["wte"].weight
        self._rotary = model.model.rotary(model.device)
        self._norm: Tensor = transformer["ln_f"].weight
        blocks = list(transformer["blocks"].children())
        self._layers = [layer_of(block, nf4_kernel) for block in blocks]
        self._float8 = isinstance(blocks[0].q_proj, Float8Linear)
        self._seen: set[Shape] = set()
        self._recorded: OrderedDict[Shape, Recorded] = OrderedDict()
        self._pool: Any = None

    @torch.inference_mode()
    def __call__(self, input_ids_BL: Tensor, attention_mask_BL: Tensor | None, where_N: Tensor) -> Tensor:
        """(B, L) token ids, and true at places that count, to the final norm's output (N, D) at places `where_N`."""
        asked = len(where_N)
        shape = (*input_ids_BL.shape, rounded_up(asked), attention_mask_BL is not None)
        recorded = self._recorded.get(shape)
        if recorded is None:
            inputs = self._inputs(*shape)
            inputs.fill(input_ids_BL, attention_mask_BL, where_N)
            if shape not in self._seen:
                self._seen.add(shape)
                return self._end(inputs, *self._begin(inputs))[:asked]
            recorded = self._recorded[shape] = self._record(inputs)
            if len(self._recorded) > MOST_GRAPHS:
                self._recorded.popitem(last=False)
        self._recorded.move_to_end(shape)
        recorded.inputs.fill(input_ids_BL, attention_mask_BL, where_N)
        recorded.begin.replay()
        recorded.end.replay()
        return recorded.hidden_ND[:asked].clone()  # graphs share their memory

    def _inputs(self, rows: int, length: int, places: int, padded: bool) -> Inputs:
        zeros = partial(torch.zeros, dtype=torch.int64, device=self._embedding.device)
        mask_BL = zeros(rows, length, dtype=torch.bool) if padded else None
        return Inputs(zeros(rows, length), mask_BL, zeros(places))

    def _record(self, inputs: Inputs) -> Recorded:
        if not self._recorded:
            self._pool = torch.cuda.graph_pool_handle()  # one that no graph uses any more can't be used again
        begin, end = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        how = {"pool": self._pool, "capture_error_mode": "thread_local"}
        with torch.cuda.graph(begin, **how):
            x, y = self._begin(inputs)
        with torch.cuda.graph(end, **how):
            hidden_ND = self._end(inputs, x, y)
        return Recorded(inputs, begin, end, hidden_ND)

    def _begin(self, inputs: Inputs) -> tuple[Tensor, Product | None]:
        x = F.embedding(inputs.input_ids_BL, self._embedding).flatten(0, 1)
        return self._blocks(x, None, inputs, self._layers[:HEAD_START])

    def _end(self, inputs: Inputs, x: Tensor, y: Product | None) -> Tensor:
        x, y = self._blocks(x, y, inputs, self._layers[HEAD_START:])
        out = add_norm(x, y, self._norm, self._config.rms_norm_eps, float8=False)
        assert isinstance(out, Tensor)
        return out

    def _blocks(
        self, x: Tensor, y: Product | None, inputs: Inputs, layers: list[Layer]
    ) -> tuple[Tensor, Product | None]:
        """The residual stream, and what is still to be added to it."""
        config, (ids_BL, mask_BL, where_N) = self._config, inputs
        norm = partial(add_norm, eps=config.rms_norm_eps, float8=self._float8)
        for layer in layers:
            [qkv] = layer.qkv(norm(x, y, layer.attn_norm)).parts_SMN
            qkv = qkv.view(*ids_BL.shape, -1)
            mixed = attention(qkv, self._rotary, mask_BL, config.n_heads, config.kv_heads).flatten(0, 1)
            if layer is self._layers[-1]:
                mixed, x = mixed.index_select(0, where_N), x.index_select(0, where_N)
            y = layer.attn_out(quantize(mixed) if self._float8 else mixed)
            h = layer.gate_up(norm(x, y, layer.ff_norm))
            y = layer.ff_out(swiglu(h, self._float8))
        return x, y


def layer_of(block: Block, nf4_kernel: str) -> Layer:
    """A block's weights, side by side where they see the same input."""
    norms = [norm.weight for norm in (block.attn_norm, block.ff_norm)]
    assert norms[0] is not None
    assert norms[1] is not None
    return Layer(
        norms[0].detach(),
        side_by_side([block.q_proj, block.k_proj, block.v_proj], nf4_kernel, whole=True),
        side_by_side([block.attn_out], nf4_kernel),
        norms[1].detach(),
        side_by_side([block.ff_proj, block.up_proj], nf4_kernel),
        side_by_side([block.ff_out], nf4_kernel),
    )


def rounded_up(places: int) -> int:
    """The next of 16, 24, 32, 48, 64, 96 and so on."""
    power = 1 << max(4, (places - 1).bit_length())
    return 3 * power // 4 if places <= 3 * power // 4 and power > 16 else power


def speed_up(model: LLaDAModelLM, nf4_kernel: str) -> None:
    """Give the model a fast pass. Raises UserError, before anything is changed, where it can't have one."""
    if reason := obstacle(model):
        raise UserError(f"the kernels don't know {reason}: set compile=auto or false")
    probe = torch.zeros(1, 16, dtype=torch.bfloat16, device=model.device)
    try:
        add_norm(probe, None, probe[0], eps=1e-5, float8=False)
    except Exception as error:  # Triton raises what its compiler, or the lack of one, raises
        raise UserError(f"Triton doesn't work here ({error}): set compile=false") from error
    model.fast = Fast(model, nf4_kernel)
