"""LLaDA's forward pass in few kernels, recorded as CUDA graphs: what a step costs where the GPU waits for nothing.

The answer is the plain pass's within rounding. Projections that see the same input stand side by side in one matrix,
what lies between two projections is one kernel, and the pass for a batch's shape is recorded the second time that it
comes, then replayed. The last block's MLP is computed for the places that are asked for alone, their number rounded up
so that few shapes come.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dlmlab.errors import UserError
from dlmlab.kernel.attention import attention
from dlmlab.kernel.pointwise import add_norm, quantize, swiglu
from dlmlab.model.llada import Block, LLaDAConfig, LLaDAModelLM
from dlmlab.model.projection import Projection, side_by_side
from dlmlab.model.quantize import Float8Linear

MOST_GRAPHS = 64
"""Recorded shapes; beyond them the one that was used longest ago goes."""
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


class Layer(NamedTuple):
    """A block's weights."""

    attn_norm: Tensor
    qkv: Projection
    attn_out: Projection
    ff_norm: Tensor
    gate_up: Projection
    ff_out: Projection


class Recorded(NamedTuple):
    """A recorded pass, and the memory that it reads from and writes to."""

    graph: torch.cuda.CUDAGraph
    input_ids_BL: Tensor
    attention_mask_BL: Tensor | None
    where_N: Tensor
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
        self._seen: set[object] = set()
        self._recorded: OrderedDict[object, Recorded] = OrderedDict()
        self._pool = torch.cuda.graph_pool_handle()

    @torch.inference_mode()
    def __call__(self, input_ids_BL: Tensor, attention_mask_BL: Tensor | None, where_N: Tensor) -> Tensor:
        """(B, L) token ids, and true at places that count, to the final norm's output (N, D) at places `where_N`."""
        asked, width = len(where_N), rounded_up(len(where_N))
        where = F.pad(where_N, (0, width - asked))
        shape = (*input_ids_BL.shape, width, attention_mask_BL is not None)
        if shape not in self._seen:
            self._seen.add(shape)
            return self._pass(input_ids_BL, attention_mask_BL, where)[:asked]
        if shape not in self._recorded:
            self._recorded[shape] = self._record(input_ids_BL, attention_mask_BL, where)
            if len(self._recorded) > MOST_GRAPHS:
                self._recorded.popitem(last=False)
        self._recorded.move_to_end(shape)
        recorded = self._recorded[shape]
        recorded.input_ids_BL.copy_(input_ids_BL)
        recorded.where_N.copy_(where)
        if recorded.attention_mask_BL is not None and attention_mask_BL is not None:
            recorded.attention_mask_BL.copy_(attention_mask_BL)
        recorded.graph.replay()
        return recorded.hidden_ND[:asked].clone()  # graphs share their memory

    def _record(self, input_ids_BL: Tensor, attention_mask_BL: Tensor | None, where_N: Tensor) -> Recorded:
        ids, where = input_ids_BL.clone(), where_N.clone()
        mask = None if attention_mask_BL is None else attention_mask_BL.clone()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            hidden = self._pass(ids, mask, where)
        return Recorded(graph, ids, mask, where, hidden)

    def _pass(self, input_ids_BL: Tensor, attention_mask_BL: Tensor | None, where_N: Tensor) -> Tensor:
        config, shape = self._config, input_ids_BL.shape
        norm = partial(add_norm, eps=config.rms_norm_eps, float8=self._float8)
        x = F.embedding(input_ids_BL, self._embedding).flatten(0, 1)
        y: Tensor | None = None
        for layer in self._layers:
            qkv = layer.qkv(norm(x, y, layer.attn_norm)).view(*shape, -1)
            mixed = attention(qkv, self._rotary, attention_mask_BL, config.n_heads, config.kv_heads).flatten(0, 1)
            if layer is self._layers[-1]:
                mixed, x = mixed.index_select(0, where_N), x.index_select(0, where_N)
            y = layer.attn_out(quantize(mixed) if self._float8 else mixed)
            h = layer.gate_up(norm(x, y, layer.ff_norm))
            y = layer.ff_out(swiglu(h, self._float8))
        out = add_norm(x, y, self._norm, config.rms_norm_eps, float8=False)
        assert isinstance(out, Tensor)
        return out


def layer_of(block: Block, nf4_kernel: str) -> Layer:
    """A block's weights, side by side where they see the same input."""
    norms = [norm.weight for norm in (block.attn_norm, block.ff_norm)]
    assert norms[0] is not None
    assert norms[1] is not None
    return Layer(
        norms[0].detach(),
        side_by_side([block.q_proj, block.k_proj, block.v_proj], nf4_kernel),
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
