"""LLaDA (arXiv:2502.09992): a Llama-like transformer whose attention sees both directions; and its relatives.

Modules carry the names of LLaDA's checkpoints, so that those load as they are; what other families call them is said in
`dlmlab.model.family`. Shape suffixes as in `dlmlab.types`, and H heads, E width of a head.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers import initialization as init
from transformers.modeling_outputs import MaskedLMOutput

from dlmlab.denoiser import Layout, Query, Ready
from dlmlab.errors import UserError
from dlmlab.model.attention import AttentionMaps, attention_bias, bias_of, blocks_of
from dlmlab.model.block import Block, RMSNorm, linear, norm
from dlmlab.model.cached import KeyValueStore, cached_pass
from dlmlab.model.config import LLaDAConfig, NetworkConfig
from dlmlab.model.experts import Experts, Router
from dlmlab.model.family import FAMILIES
from dlmlab.model.features import FeatureStore, feature_pass
from dlmlab.model.rotary import rotary_tables
from dlmlab.policy import FEATURES, FINAL_BLOCKS, KEPT, KEYS_AND_VALUES, FeatureReuse

if TYPE_CHECKING:
    from dlmlab.model.arena import Slot
    from dlmlab.model.fast import Fast


class LLaDAModel(nn.Module):
    """The transformer under its head; `transformer` only gives the tensors their published names."""

    def __init__(self, config: LLaDAConfig) -> None:
        super().__init__()
        self.config = config
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(config.padded_vocab_size, config.d_model),
                "blocks": nn.ModuleList(Block(config, layer) for layer in range(config.n_layers)),
                "ln_f": norm(config),
            }
        )
        if not config.weight_tying:
            self.transformer["ff_out"] = linear(config.d_model, config.padded_vocab_size, config.include_bias)
        self._rotary: tuple[Tensor, Tensor] | None = None

    def forward(
        self,
        input_ids_BL: Tensor,
        attention_mask_BL: Tensor | None = None,
        where_N: Tensor | None = None,
        block_length: int | None = None,
        layout: Layout | None = None,
        maps: AttentionMaps | None = None,
    ) -> Tensor:
        x_BLD = self.embed(input_ids_BL)
        if layout is not None:
            cos, sin = self.angles(x_BLD, layout.position_BL.to(x_BLD.device))
            bias: Tensor | None = bias_of(~layout.seen_BLL.to(x_BLD.device), x_BLD)
        else:
            length = self.check_length(input_ids_BL)
            cos, sin = self.angles(x_BLD, slice(length))
            bias = attention_bias(attention_mask_BL, length, blocks_of(self.config, block_length), x_BLD)
        blocks: list[Any] = list(self.transformer["blocks"].children())
        for left, block in zip(range(len(blocks), 0, -1), blocks, strict=True):
            if maps is not None and left <= maps.layers:
                q_BLHE, k_BLHE, _ = block.heads(x_BLD, cos, sin)
                maps.add(q_BLHE, k_BLHE, bias)
            x_BLD = block(x_BLD, cos, sin, bias, where_N if left == 1 else None)
        return self.transformer["ln_f"](x_BLD)  # type: ignore[no-any-return]

    @property
    def like(self) -> Tensor:
        """Return the head's matrix, (V, D), which has the device and the dtype that the network computes in."""
        owner: Any = self.transformer["wte" if self.config.weight_tying else "ff_out"]
        return owner.weight  # type: ignore[no-any-return]

    def embed(self, input_ids: Tensor) -> Tensor:
        """Token ids of any shape to (…, D)."""
        config = self.config
        x: Tensor = self.transformer["wte"](input_ids)
        if config.input_emb_norm:
            x = x * config.d_model**0.5
        if self.training and config.embedding_dropout:
            x = F.dropout(x, config.embedding_dropout)
        return x

    def angles(self, x: Tensor, positions: slice | Tensor) -> tuple[Tensor, Tensor]:
        """Return cosines and sines of positions' angles, (…, 1, E), in the precision that the config asks for.

        Args:
            x: Gives the device, and the dtype where the config doesn't ask for full precision.
            positions: Positions in their rows, as a slice or as indices of any shape.
        """
        cos, sin = (table[positions] for table in self.rotary(x.device))
        return (cos, sin) if self.config.rope_full_precision else (cos.to(x.dtype), sin.to(x.dtype))

    def check_length(self, input_ids_BL: Tensor) -> int:
        """L. Raises UserError where it is more than the model's context."""
        length = input_ids_BL.shape[1]
        if length > self.config.max_sequence_length:
            raise UserError(f"{length} tokens are more than the model's context of {self.config.max_sequence_length}")
        return length

    def rotary(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Cosines and sines of every position's angles: float32, (max_sequence_length, 1, E), built once for a device.

        A plain attribute, not a buffer: `model.to(torch.bfloat16)` would round a buffer. The sines of the
        first half are negated, as `rotate` wants them.
        """
        if self._rotary is None or self._rotary[0].device != device:
            with torch.inference_mode(False):  # or a model that was asked before could not be trained after
                self._rotary = rotary_tables(self.config, device)
        return self._rotary


class LLaDAModelLM(PreTrainedModel):
    """LLaDA with its head. `hidden` and `head` apart let a caller compute logits only where it needs them.

    A config alone gives fresh weights; `save_pretrained` writes them in LLaDA's layout. `tokenizer` is the
    checkpoint's, or None; `commit` the hub's, where the weights come from there. `fast`, where there is one, stands in
    for `hidden` (see `dlmlab.model.fast`). Stores keep keys and values in `kv_cache_dtype`; None is the model's own.
    """

    config_class = LLaDAConfig
    base_model_prefix = "model"
    _no_split_modules = ["Block"]  # noqa: RUF012 (transformers replaces it on the instance)
    _supports_sdpa = True

    def __init__(self, config: LLaDAConfig) -> None:
        super().__init__(config)
        self.config: LLaDAConfig = config
        self.keeps = frozenset(kept for kept in KEPT if kept != FINAL_BLOCKS or config.block_size)
        self.model = LLaDAModel(config)
        self.tokenizer: PreTrainedTokenizerBase | None = None
        self.commit: str | None = None
        self.fast: Fast | None = None
        self.kv_cache_dtype: torch.dtype | None = None
        self.identify: Callable[[], str] = unsaved
        self._plainly_over = 0
        self.post_init()  # type: ignore[no-untyped-call]

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over the weights' files, read when first asked for; a description where there are none."""
        return self.identify()

    @property
    def device(self) -> torch.device:
        """Return the head's device. transformers would look through all parameters, at every step."""
        like: Tensor = self.model.like
        return like.device

    @property
    def ran_over(self) -> int:
        """Return how many positions all passes so far ran over, with padding and what shapes were rounded up by."""
        return self._plainly_over + (self.fast.ran_over if self.fast is not None else 0)

    @property
    def packs_rows(self) -> bool:
        """See `dlmlab.denoiser.Denoiser`."""
        return self.fast is not None

    @property
    def greedy_kernel(self) -> bool:
        """See `dlmlab.denoiser.Denoiser`."""
        return self.fast is not None

    @property
    def works_ahead(self) -> bool:
        """See `dlmlab.denoiser.Denoiser`."""
        return self.fast is not None

    @property
    def lays_out(self) -> bool:
        """See `dlmlab.denoiser.Denoiser`. A shifted prediction comes from the left, where a token beside has no own."""
        return not (self.config.logits_shift or self.config.block_size)

    @cached_property
    def end_token_ids(self) -> tuple[int, ...]:
        """Return the tokens that end an answer: the end of text and, where the tokenizer has one, the end of turn."""
        config, end_of_turn = self.config, FAMILIES[self.config.family].end_of_turn
        more = config.other_end_ids if isinstance(config, NetworkConfig) else []
        turn = self.tokenizer.get_vocab().get(end_of_turn) if self.tokenizer and end_of_turn else None
        return tuple(dict.fromkeys(end for end in (config.eos_token_id, *more, turn) if end is not None))

    def hidden(self, query: Query) -> Tensor:
        """What predicts the tokens at the positions that are wanted, (N, D); the final norm's output, (B, L, D), where
        none are named.

        Where logits are shifted, the prediction for a position is the output one to the left of it. What the last
        block computes for other positions is left out. Padding may be on any side.

        Raises UserError for a row longer than the model's context.
        """
        if self.config.logits_shift:
            query = shifted(query)
        if query.wanted_N is not None and self.fast is not None and self.fast.serves(query):
            self.model.check_length(query.tokens_BL)
            return self.fast(query)
        if query.reuse is None:
            return self.plain(query)
        self._plainly_over += query.tokens_BL.numel()
        if isinstance(query.reuse.hooks[0], FeatureReuse):
            return feature_pass(self.model, query)
        return cached_pass(self.model, query, self.head)

    def ready(self, query: Query) -> ReadyPass:
        """See `dlmlab.denoiser.AheadDenoiser`."""
        fast = self.fast
        return ReadyPass(self, query, fast.ready(query) if fast is not None and fast.serves(query) else None)

    def plain(self, query: Query, maps: AttentionMaps | None = None) -> Tensor:
        """Return what `hidden` does, by PyTorch's own operations; the query is shifted already, and has no store.

        Args:
            query: The pass.
            maps: Takes the last layers' attention on the way.
        """
        self._plainly_over += query.tokens_BL.numel()
        asked = query.tokens_BL, query.real_BL, query.wanted_N
        sent = (each if each is None else each.to(self.device, non_blocking=True) for each in asked)
        return self.model(*sent, query.block_length, query.layout, maps)  # type: ignore[no-any-return]

    def hidden_and_attention(self, query: Query, position_BK: Tensor, layers: float) -> tuple[Tensor, Tensor]:
        """Return what `hidden` returns, and the attention between some positions, by the plain pass on a GPU too.

        See `dlmlab.denoiser.AttentionDenoiser`.

        Args:
            query: The pass, without a store.
            position_BK: K positions of each row, as indices into rows × L.
            layers: How many of the last layers count; below 1 their share.
        """
        number = self.config.n_layers
        layers = min(int(layers), number) if layers >= 1 else number - int(number * (1 - layers))
        maps = AttentionMaps(position_BK.to(self.device), query.tokens_BL.shape[1], layers)
        return self.plain(shifted(query) if self.config.logits_shift else query, maps), maps.mean_BKK

    def new_store(self, positions: int, kept: str = KEYS_AND_VALUES) -> KeyValueStore | Slot:
        """Return an empty store for a row; a slot of the arena where the fast pass can use it.

        Args:
            positions: How many positions the row has.
            kept: What is kept of them, one of those that the model `keeps`.
        """
        if self.fast is not None and kept in (KEYS_AND_VALUES, FINAL_BLOCKS):
            return self.fast.arena.take(positions)
        if kept == FEATURES:
            return FeatureStore(self.config, positions, self.model.like)
        return KeyValueStore(self.config, positions, self.model.like, self.kv_cache_dtype)

    def head(self, hidden_ND: Tensor) -> Tensor:
        """Logits (N, V) of final-norm outputs, for any leading shape."""
        transformer = self.model.transformer
        if self.fast is not None and hidden_ND.ndim == 2:
            logits_NV = self.fast.head(hidden_ND)
        elif self.config.weight_tying:
            logits_NV = F.linear(hidden_ND, transformer["wte"].weight)
        else:
            logits_NV = transformer["ff_out"](hidden_ND)
        return logits_NV / math.sqrt(self.config.d_model) if self.config.scale_logits else logits_NV

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, block_length: int | None = None
    ) -> MaskedLMOutput:
        """Return logits (B, L, V) as the network puts them out, not shifted; at padded positions they mean nothing.

        Args:
            input_ids: Token ids, (B, L).
            attention_mask: 0 at padding, (B, L); None where there is none.
            block_length: Length of the blocks where attention is block-causal; None takes the trained one.
        """
        query = Query(input_ids, attention_mask, block_length=block_length)
        return MaskedLMOutput(logits=self.head(self.hidden(query)))

    def get_input_embeddings(self) -> nn.Module:
        embedding: nn.Module = self.model.transformer["wte"]
        return embedding

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Fresh weights as the published code draws them (`init_fn` mitchell or normal)."""
        config = self.config
        if isinstance(module, RMSNorm):
            if module.weight is not None:
                init.ones_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, Router | Experts):
            for parameter in module.parameters():
                init.normal_(parameter, std=config.init_std)
        elif isinstance(module, nn.Linear | nn.Embedding):
            residual_of = getattr(module, "residual_of", None)
            if config.init_fn == "mitchell":
                fan_in = module.in_features if isinstance(module, nn.Linear) else config.d_model
                std, cutoff = fan_in**-0.5, 3.0
                if residual_of is not None:
                    std /= math.sqrt(2 * (residual_of + 1))
            elif config.init_fn == "normal":
                std, cutoff = config.init_std, config.init_cutoff_factor or math.inf
                if residual_of is not None:
                    std /= math.sqrt(2 * config.n_layers)
            else:
                raise UserError(f"config key init_fn={config.init_fn!r}: fresh weights are mitchell or normal")
            init.trunc_normal_(module.weight, std=std, a=-cutoff * std, b=cutoff * std)
            if isinstance(module, nn.Linear) and module.bias is not None:
                init.zeros_(module.bias)


def unsaved() -> str:
    """Return the fingerprint of weights that come from no file."""
    return "unsaved weights"


class ReadyPass(NamedTuple):
    """A pass that is ready; see `dlmlab.denoiser.Ready`. One that the kernels don't know begins when it is asked.

    Attributes:
        model: What computes it.
        query: The pass.
        kernels: The pass, where the kernels know it.
    """

    model: LLaDAModelLM
    query: Query
    kernels: Ready | None

    def begin(self) -> None:
        """Let the device begin."""
        if self.kernels is not None:
            self.kernels.begin()

    def hidden(self, wanted_N: Tensor) -> Tensor:
        """Return what `LLaDAModelLM.hidden` does at these positions, (N, D)."""
        if self.kernels is None:
            return self.model.hidden(self.query._replace(wanted_N=wanted_N))
        length = self.query.tokens_BL.shape[1]
        return self.kernels.hidden(left_of(wanted_N, length) if self.model.config.logits_shift else wanted_N)


def shifted(query: Query) -> Query:
    """The query for what stands left of the positions that are wanted."""
    if query.wanted_N is None:
        return query
    return query._replace(wanted_N=left_of(query.wanted_N, query.tokens_BL.shape[1]))


def left_of(wanted_N: Tensor, length: int) -> Tensor:
    """Return what stands left of positions; a row's first position has no left one.

    Args:
        wanted_N: Indices into rows × length.
        length: Positions of a row.
    """
    return wanted_N - (wanted_N % length > 0).long()
