"""LLaDA's forward pass in few kernels, recorded as CUDA graphs: what a step costs where the GPU waits for nothing.

The answer is the plain pass's within rounding. Rows follow each other without padding, projections that see the same
input stand side by side in one matrix, and what lies between two projections is one kernel. The pass for a shape is
recorded the second time that it comes, then replayed; but not the end of the last block, which only the positions that
are asked for need.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dlmlab.denoiser import Query
from dlmlab.errors import UserError
from dlmlab.kernel.attention import Reach, attention
from dlmlab.kernel.cached_attention import cached_attention
from dlmlab.kernel.embedding import gather
from dlmlab.kernel.pointwise import Float8, Product, add_norm, norm_heads, quantize
from dlmlab.model.arena import Arena, Slot
from dlmlab.model.attention import blocks_of
from dlmlab.model.block import Block
from dlmlab.model.config import LLaDAConfig
from dlmlab.model.llada import LLaDAModelLM
from dlmlab.model.pack import KeptLayout, KeptShape, PackedKept, PackedRows, Shape, pack_rows
from dlmlab.model.projection import Projection, dense, mlp_of, side_by_side
from dlmlab.model.quantize import Float8Linear

log = logging.getLogger(__name__)

MOST_GRAPHS = 64
"""Recorded shapes; beyond them the one that was used longest ago goes."""
HEAD_WIDTHS = (32, 64, 128, 256)
GROUPED_FROM = 9, 0
"""The compute capability from which experts are multiplied in one product that a recorded pass can hold."""

PLAIN = {
    "activation_type": "silu",
    "attention_layer_norm": False,
    "include_bias": False,
    "input_emb_norm": False,
    "layer_norm_with_affine": True,
    "norm_bias": False,
    "rope_full_precision": True,
}
"""What the kernels compute; published models of all families are like this."""


class Layer(NamedTuple):
    """A block's weights.

    Attributes:
        attn_norm: Weight of the norm before attention.
        qkv: Projections of queries, keys and values, side by side.
        head_norms: Weights of the norms of each head's queries and keys; None where heads have none.
        attn_out: Projection of what the heads mix.
        ff_norm: Weight of the norm before the MLP.
        mlp: The MLP; None where experts do all.
        experts: What a router's experts make of (M, D); None where there are none.
    """

    attn_norm: Tensor
    qkv: Projection
    head_norms: tuple[Tensor, Tensor] | None
    attn_out: Projection
    ff_norm: Tensor
    mlp: Projection | None
    experts: Callable[[Tensor], Tensor] | None


class Recorded(NamedTuple):
    """A recorded pass, and the memory that it reads from and writes to; see `Fast._mix`.

    Attributes:
        packed: Its tokens, on the device; a call overwrites them.
        graph: The recording.
        x_TD: The residual stream in the last block.
        mixed_TD: What the last block's heads mix.
    """

    packed: PackedRows | PackedKept
    graph: torch.cuda.CUDAGraph
    x_TD: Tensor
    mixed_TD: Tensor


def obstacle(model: LLaDAModelLM) -> str | None:
    """Why a model on a GPU can't have a fast pass; None where it can."""
    config = model.config
    for key, value in PLAIN.items():
        if getattr(config, key) != value:
            return f"config key {key}={getattr(config, key)!r}"
    if config.head_width not in HEAD_WIDTHS:
        return f"heads of width {config.head_width}"
    if 2 * config.rotary_width > config.head_width:
        return f"config key rotary_width={config.rotary_width}"
    blocks: list[Any] = list(model.model.transformer["blocks"].children())
    if type(blocks[0].q_proj).__name__ == "Linear8bitLt":
        return "quantization=int8"  # it waits for the device to find outliers
    if config.n_experts and isinstance(blocks[0].q_proj, Float8Linear):
        return "experts beside quantization=fp8"
    if config.n_experts and torch.cuda.get_device_capability(model.device) < GROUPED_FROM:
        return "experts on a card before Hopper"  # there a grouped product waits for its counts
    dtype = model.model.like.dtype
    return None if dtype == torch.bfloat16 else f"dtype={str(dtype).removeprefix('torch.')}"


def what_bars(query: Query, block_length: int) -> str | None:
    """Return what a cache does that keeps a pass out of the kernels; None where nothing does: all rows are in the
    arena, and see all of themselves, or all up to the last block that is computed.

    Args:
        query: A pass that reuses.
        block_length: Positions of a block, where none sees a later one; 0 where all of a row is seen.
    """
    assert query.reuse is not None
    if not all(isinstance(each, Slot) for each in query.reuse.stores):
        return "looks into the pass"
    for row, visible in enumerate(query.reuse.visible):
        if visible is None:
            continue
        last = int(query.reuse.position_BL[row].max())
        if not visible[: (last // block_length + 1) * block_length if block_length else None].all():
            return "leaves positions out"
    return None


class Fast:
    """A callable like `LLaDAModelLM.hidden`, for positions that are named.

    Args:
        model: The model, on a GPU; its weights are joined where they see the same input.
        nf4_kernel: What multiplies NF4 weights; see `dlmlab.model.loader.load`.

    Attributes:
        arena: Keeps keys and values of rows for passes that reuse them.
        ran_over: Positions of all passes so far, as many as their shapes have.
    """

    def __init__(self, model: LLaDAModelLM, nf4_kernel: str) -> None:
        transformer = model.model.transformer
        self._config: LLaDAConfig = model.config
        self._embedding: Tensor = transformer["wte"].weight
        self._on_host = self._embedding.device != model.device
        self._rotary = model.model.rotary(model.device)
        self._norm: Tensor = transformer["ln_f"].weight
        self._like = model.model.like.detach()
        self._head = dense(self._like, whole=True)
        blocks = list(transformer["blocks"].children())
        self._layers = [layer_of(block, nf4_kernel) for block in blocks]
        self._float8 = isinstance(blocks[0].q_proj, Float8Linear)
        self.arena = Arena(model.config, self._like, model.kv_cache_dtype)
        self.ran_over = 0
        self._laid_out: KeptLayout | None = None
        self._seen: set[Shape | KeptShape] = set()
        self._logged: set[str] = set()
        self._recorded: OrderedDict[Shape | KeptShape, Recorded] = OrderedDict()
        self._pool: Any = None
        widths = self._like.shape[1], self._config.n_heads * self._config.head_width
        self._written = [self._like.new_empty(0, width) for width in widths]

    @torch.inference_mode()
    def __call__(self, query: Query) -> Tensor:
        """Return the final norm's output, (N, D), at the positions that a query without a store or a layout names.

        At positions that don't count it means nothing.
        """
        assert query.wanted_N is not None
        real_BL = None if query.real_BL is None else query.real_BL.numpy(force=True) != 0
        asked = query.tokens_BL.numpy(force=True), real_BL, query.wanted_N.numpy(force=True)
        packed, where = pack_rows(*asked, blocks_of(self._config, query.block_length))
        return self._from_last(*self._until_last(packed), where)

    @torch.inference_mode()
    def cached(self, query: Query) -> Tensor:
        """Return the same for a pass over some positions of rows in the arena; see `serves`."""
        if not self._goes_on(query):
            self._laid_out = KeptLayout(query, self._config.n_heads, blocks_of(self._config, query.block_length))
        assert self._laid_out is not None
        packed, where = self._laid_out.pack(query)
        return self._from_last(*self._until_last(packed), where)

    def head(self, hidden_ND: Tensor) -> Tensor:
        """Return the logits, (N, V), before they are scaled, of what a pass returns."""
        return self._head(hidden_ND).parts_SMN[0]

    def serves(self, query: Query) -> bool:
        """Return whether the kernels know a pass that reuses; the first time that its cache is why not, log it."""
        if self._goes_on(query):
            return True
        reason = what_bars(query, blocks_of(self._config, query.block_length))
        if reason and reason not in self._logged:
            self._logged.add(reason)
            log.warning("the cache %s: such passes are the plain ones, and not recorded", reason)
        return reason is None and query.wanted_N is not None

    def _goes_on(self, query: Query) -> bool:
        """Return whether a pass that reuses computes the positions that the last such one did."""
        return self._laid_out is not None and query.wanted_N is not None and self._laid_out.fits(query)

    def _from_last(self, x_TD: Tensor, mixed_TD: Tensor, where: np.ndarray) -> Tensor:
        """The final norm's output at some positions, from the residual stream and the heads of the last block."""
        # Launched one by one, for as many positions as there are, while the device computes what was recorded.
        where_N = torch.from_numpy(where).to(x_TD.device, non_blocking=True)
        x, layer = x_TD.index_select(0, where_N), self._layers[-1]
        y = self._feed_forward(x, mixed_TD.index_select(0, where_N), layer)
        out = add_norm(x, y, self._norm, self._config.rms_norm_eps, float8=False)
        assert isinstance(out, Tensor)
        return out

    def _until_last(self, packed: PackedRows | PackedKept) -> tuple[Tensor, Tensor]:
        """Return the residual stream in the last block, and what its heads mix; overwritten by the next call."""
        self.ran_over += packed.shape.positions
        if packed.shape not in self._recorded:
            on_device = packed._replace(told=packed.told.to(self._like.device))
            x_TD, mixed_TD = self._room(packed.shape.positions)
            if packed.shape not in self._seen:
                self._seen.add(packed.shape)
                self._mix(on_device, x_TD, mixed_TD)
                return x_TD, mixed_TD
            self._recorded[packed.shape] = self._record(on_device, x_TD, mixed_TD)
            if len(self._recorded) > MOST_GRAPHS:
                self._recorded.popitem(last=False)
        self._recorded.move_to_end(packed.shape)
        recorded = self._recorded[packed.shape]
        recorded.packed.told.copy_(packed.told, non_blocking=True)
        recorded.graph.replay()
        return recorded.x_TD, recorded.mixed_TD

    def _room(self, positions: int) -> tuple[Tensor, Tensor]:
        """What all passes write to, as `_mix` takes it; where it grows, recorded passes keep what they know."""
        if len(self._written[0]) < positions:
            self._written = [each.new_zeros(positions, each.shape[1]) for each in self._written]
        x_TD, mixed_TD = (each[:positions] for each in self._written)
        return x_TD, mixed_TD

    def _record(self, packed: PackedRows | PackedKept, x_TD: Tensor, mixed_TD: Tensor) -> Recorded:
        if not self._recorded:
            self._pool = torch.cuda.graph_pool_handle()  # one that no graph uses any more can't be used again
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                self._mix(packed, x_TD, mixed_TD)
        except torch.OutOfMemoryError:
            self._recorded.clear()  # so that their pool, which the attempt has filled, is given back
            raise
        return Recorded(packed, graph, x_TD, mixed_TD)

    def _mix(self, packed: PackedRows | PackedKept, x_TD: Tensor, mixed_TD: Tensor) -> None:
        """Fill in the residual stream in the last block, and what the last block's heads mix."""
        y = None
        if self._on_host:
            gather(self._embedding, packed.ids(), x_TD)
        else:
            torch.index_select(self._embedding, 0, packed.ids(), out=x_TD)
        attend = self._attention(packed, mixed_TD)
        for number, layer in enumerate(self._layers):
            [qkv] = layer.qkv(self._normed(x_TD, y, layer.attn_norm)).parts_SMN
            if layer.head_norms is not None:
                norm_heads(qkv, *layer.head_norms, self._config.n_heads, self._config.rms_norm_eps)
            attend(number, qkv)
            if layer is not self._layers[-1]:
                y = self._feed_forward(x_TD, mixed_TD, layer)

    def _attention(self, packed: PackedRows | PackedKept, mixed_TD: Tensor) -> Callable[[int, Tensor], None]:
        """Return what mixes the heads of a block, which has a number, from its queries, keys and values."""
        shape, config = packed.shape, self._config
        reach = Reach(shape.tiles, shape.block_length)
        if isinstance(packed, PackedRows):
            position_T, begin_B = packed.rows()
            sizes = config.n_heads, config.kv_heads
            return lambda _, qkv: attention(qkv, position_T, begin_B, reach, self._rotary, sizes, mixed_TD)
        rows, splits = packed.rows(), packed.shape.splits
        room = splits, len(mixed_TD), config.n_heads, config.head_width + 2
        part = mixed_TD.new_empty(room, dtype=torch.float32) if splits > 1 else None
        return lambda number, qkv: cached_attention(
            qkv, rows, reach, self._rotary, self.arena.memory[number], mixed_TD, part
        )

    def _feed_forward(self, x: Tensor, mixed: Tensor, layer: Layer) -> Product:
        """Add the attention's part to x, and answer the MLP's and the experts', still to be added."""
        h = self._normed(x, layer.attn_out(quantize(mixed) if self._float8 else mixed), layer.ff_norm)
        y = layer.mlp(h) if layer.mlp else None
        if layer.experts is None:
            assert y is not None
            return y
        assert isinstance(h, Tensor)
        part_1MD = layer.experts(h)[None]
        return Product(part_1MD if y is None else torch.cat((y.parts_SMN, part_1MD)))

    def _normed(self, x: Tensor, y: Product | None, weight: Tensor) -> Tensor | Float8:
        return add_norm(x, y, weight, self._config.rms_norm_eps, self._float8)


def layer_of(block: Block, nf4_kernel: str) -> Layer:
    """Return a block's weights, side by side where they see the same input.

    Args:
        block: A block of the network; its projections look into the joined memory afterwards, where there is one.
        nf4_kernel: What multiplies NF4 weights; see `dlmlab.model.loader.load`.
    """
    norms = [norm.weight for norm in (block.attn_norm, block.ff_norm)]
    assert norms[0] is not None
    assert norms[1] is not None
    has_mlp = block.ff_proj is not None
    return Layer(
        norms[0].detach(),
        side_by_side([block.q_proj, block.k_proj, block.v_proj], nf4_kernel, whole=True),
        head_norms_of(block),
        side_by_side([block.attn_out], nf4_kernel),
        norms[1].detach(),
        mlp_of(block.ff_proj, block.up_proj, block.ff_out, nf4_kernel) if has_mlp else None,
        None if block.router is None else block.mixture,
    )


def head_norms_of(block: Block) -> tuple[Tensor, Tensor] | None:
    """Return the weights of the norms of each head's queries and keys; None where heads have none.

    Args:
        block: A block of the network.
    """
    if not block.head_norm:
        return None
    assert block.q_norm is not None
    assert block.k_norm is not None
    assert block.q_norm.weight is not None
    assert block.k_norm.weight is not None
    return block.q_norm.weight.detach(), block.k_norm.weight.detach()


def speed_up(model: LLaDAModelLM, nf4_kernel: str) -> None:
    """Give the model a fast pass.

    Args:
        model: A model on a GPU, whose `fast` is set.
        nf4_kernel: What multiplies NF4 weights; see `dlmlab.model.loader.load`.

    Raises:
        UserError: It can't have one, or Triton doesn't work; nothing is changed then.
    """
    if reason := obstacle(model):
        raise UserError(f"the kernels don't know {reason}: set compile=auto or false")
    probe = torch.zeros(1, 16, dtype=torch.bfloat16, device=model.device)
    try:
        add_norm(probe, None, probe[0], eps=1e-5, float8=False)
    except Exception as error:  # Triton raises what its compiler, or the lack of one, raises
        raise UserError(f"Triton doesn't work here ({error}): set compile=false") from error
    model.fast = Fast(model, nf4_kernel)
