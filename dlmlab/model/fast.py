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
from dataclasses import dataclass
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
from dlmlab.model.pack import KeptShape, Layout, PackedKept, PackedRows, Shape, kept_layout, rows_layout
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


@dataclass
class Recorded:
    """A pass that is recorded, or will be, and the memory that it reads from and writes to; see `Fast._mix`.

    Attributes:
        packed: Its tokens, on the device; the next pass of this shape overwrites them.
        graph: The recording; None where the pass comes for the first time.
        x_TD: The residual stream in the last block.
        mixed_TD: What the last block's heads mix.
        layout: Where the tokens lay the last time; None before the first.
    """

    packed: PackedRows | PackedKept
    graph: torch.cuda.CUDAGraph | None
    x_TD: Tensor
    mixed_TD: Tensor
    layout: Layout | None = None


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
        self._layout: Layout | None = None
        self._seen: set[Shape | KeptShape] = set()
        self._logged: set[str] = set()
        self._recorded: OrderedDict[Shape | KeptShape, Recorded] = OrderedDict()
        self._pool: Any = None
        widths = self._like.shape[1], self._config.n_heads * self._config.head_width
        self._written = [self._like.new_empty(0, width) for width in widths]

    @torch.inference_mode()
    def __call__(self, query: Query) -> Tensor:
        """Return the final norm's output, (N, D), at the positions that a query without a layout names.

        With a store it returns the same of a pass that it `serves`. At positions that don't count it means nothing.
        """
        assert query.wanted_N is not None
        ready = self.ready(query)
        ready.begin()
        return ready.hidden(query.wanted_N)

    @torch.inference_mode()
    def ready(self, query: Query) -> FastPass:
        """Make a pass ready; see `dlmlab.denoiser.AheadDenoiser`."""
        if self._layout is None or not self._layout.fits(query):
            self._layout = self._laid_out(query)
        return FastPass(self, self._layout, self._told(self._layout, query.tokens_BL))

    def _laid_out(self, query: Query) -> Layout:
        block_length = blocks_of(self._config, query.block_length)
        if query.reuse is None:
            return rows_layout(query, block_length)
        return kept_layout(query, self._config.n_heads, block_length)

    def head(self, hidden_ND: Tensor) -> Tensor:
        """Return the logits, (N, V), before they are scaled, of what a pass returns."""
        return self._head(hidden_ND).parts_SMN[0]

    def serves(self, query: Query) -> bool:
        """Return whether the kernels know a pass; the first time that its cache is why not, log it."""
        if query.reuse is None or (self._layout is not None and self._layout.fits(query)):
            return query.layout is None
        reason = what_bars(query, blocks_of(self._config, query.block_length))
        if reason and reason not in self._logged:
            self._logged.add(reason)
            log.warning("the cache %s: such passes are the plain ones, and not recorded", reason)
        return reason is None

    def _told(self, layout: Layout, tokens_BL: Tensor) -> Recorded:
        """Return a pass whose tokens are where it reads them. What the last pass of its shape wrote is lost then."""
        shape = layout.packed.shape
        recorded = self._recorded.get(shape)
        if recorded is None:
            packed = layout.packed._replace(told=torch.empty_like(layout.packed.told, device=self._like.device))
            recorded = Recorded(packed, None, *self._room(shape.positions))
            if shape in self._seen:
                recorded.graph = self._record(recorded)
                self._recorded[shape] = recorded
                if len(self._recorded) > MOST_GRAPHS:
                    self._recorded.popitem(last=False)
        else:
            self._recorded.move_to_end(shape)
        layout.write(tokens_BL, recorded.packed, recorded.layout is layout)
        recorded.layout = layout
        return recorded

    def until_last(self, recorded: Recorded) -> None:
        """Let the device begin a pass, up to what the last block's heads mix."""
        shape = recorded.packed.shape
        self.ran_over += shape.positions
        if recorded.graph is None:
            self._mix(recorded.packed, recorded.x_TD, recorded.mixed_TD)
            self._seen.add(shape)
        else:
            recorded.graph.replay()

    def from_last(self, recorded: Recorded, where: np.ndarray) -> Tensor:
        """Return the final norm's output at some positions of a pass that has begun.

        Args:
            recorded: The pass.
            where: Positions, as indices into its tokens.
        """
        # Launched one by one, for as many positions as there are, while the device computes what was recorded.
        where_N = torch.from_numpy(where).to(self._like.device, non_blocking=True)
        x, layer = recorded.x_TD.index_select(0, where_N), self._layers[-1]
        y = self._feed_forward(x, recorded.mixed_TD.index_select(0, where_N), layer)
        out = add_norm(x, y, self._norm, self._config.rms_norm_eps, float8=False)
        assert isinstance(out, Tensor)
        return out

    def _room(self, positions: int) -> tuple[Tensor, Tensor]:
        """What all passes write to, as `_mix` takes it; where it grows, recorded passes keep what they know."""
        if len(self._written[0]) < positions:
            self._written = [each.new_zeros(positions, each.shape[1]) for each in self._written]
        x_TD, mixed_TD = (each[:positions] for each in self._written)
        return x_TD, mixed_TD

    def _record(self, recorded: Recorded) -> torch.cuda.CUDAGraph:
        if not self._recorded:
            self._pool = torch.cuda.graph_pool_handle()  # one that no graph uses any more can't be used again
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                self._mix(recorded.packed, recorded.x_TD, recorded.mixed_TD)
        except torch.OutOfMemoryError:
            self._recorded.clear()  # so that their pool, which the attempt has filled, is given back
            raise
        return graph

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


class FastPass(NamedTuple):
    """A pass of the kernels that is ready; see `dlmlab.denoiser.Ready`.

    Attributes:
        fast: What computes it.
        layout: Where its tokens lie.
        recorded: The pass itself.
    """

    fast: Fast
    layout: Layout
    recorded: Recorded

    @torch.inference_mode()
    def begin(self) -> None:
        """Let the device begin."""
        self.fast.until_last(self.recorded)

    @torch.inference_mode()
    def hidden(self, wanted_N: Tensor) -> Tensor:
        """Return the final norm's output, (N, D), at these positions."""
        return self.fast.from_last(self.recorded, self.layout.where(wanted_N))


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
