"""LLaDA (arXiv:2502.09992): a Llama-like transformer whose attention sees both directions; and its relatives.

Modules carry the names of LLaDA's checkpoints, so that those load as they are; what other families call them is said in
`dlmlab.model.family`. Shape suffixes as in `dlmlab.types`, and H heads, E width of a head.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers import initialization as init
from transformers.modeling_outputs import MaskedLMOutput

from dlmlab.denoiser import Layout, Query
from dlmlab.errors import UserError
from dlmlab.model.attention import attention_bias, bias_of
from dlmlab.model.cached import KeyValueStore, cached_pass
from dlmlab.model.config import ACTIVATIONS, LLaDAConfig, NetworkConfig
from dlmlab.model.experts import Experts, Router
from dlmlab.model.family import FAMILIES
from dlmlab.model.features import FeatureStore, feature_pass
from dlmlab.model.rotary import rotary_tables, rotate
from dlmlab.policy import FEATURES, FINAL_BLOCKS, KEPT, KEYS_AND_VALUES, FeatureReuse

if TYPE_CHECKING:
    from dlmlab.model.arena import Slot
    from dlmlab.model.fast import Fast


class RMSNorm(nn.Module):
    """Root-mean-square norm, computed in float32 (arXiv:1910.07467)."""

    def __init__(self, width: int, eps: float, affine: bool, bias: bool) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width)) if affine else None
        self.bias = nn.Parameter(torch.zeros(width)) if affine and bias else None

    def forward(self, x: Tensor) -> Tensor:
        x = F.rms_norm(x, x.shape[-1:], self.weight, self.eps)
        return x if self.bias is None else x + self.bias


class Block(nn.Module):
    """Attention over the whole row, then a gated MLP, each behind a norm and added to the residual stream."""

    def __init__(self, config: LLaDAConfig, layer: int) -> None:
        super().__init__()
        self.width, self.head_norm = config.head_width, config.head_norm
        self.groups = config.n_heads // config.kv_heads
        self.act = ACTIVATIONS[config.activation_type]
        self.attention_dropout = config.attention_dropout
        self.residual_dropout = config.residual_dropout

        width, kv_width = config.n_heads * config.head_width, config.kv_heads * config.head_width
        qkv_bias = config.include_bias or config.include_qkv_bias
        self.attn_norm = norm(config)
        self.ff_norm = norm(config)
        self.q_norm: RMSNorm | None = None
        self.k_norm: RMSNorm | None = None
        if config.attention_layer_norm:
            affine = config.attention_layer_norm_with_affine
            self.q_norm = RMSNorm(width, config.rms_norm_eps, affine, config.norm_bias)
            self.k_norm = RMSNorm(kv_width, config.rms_norm_eps, affine, config.norm_bias)
        elif config.head_norm:
            self.q_norm = RMSNorm(config.head_width, config.rms_norm_eps, affine=True, bias=False)
            self.k_norm = RMSNorm(config.head_width, config.rms_norm_eps, affine=True, bias=False)
        self.q_proj = linear(config, config.d_model, width, qkv_bias)
        self.k_proj = linear(config, config.d_model, kv_width, qkv_bias)
        self.v_proj = linear(config, config.d_model, kv_width, qkv_bias)
        self.attn_out = linear(config, width, config.d_model, config.include_bias, residual_of=layer)
        mlp_width = config.mlp_width
        self.router: Router | None = None
        if isinstance(config, NetworkConfig) and config.n_experts and layer not in config.dense_layers:
            self.router, self.experts = Router(config), Experts(config)
            mlp_width = config.shared_width
        self.ff_proj: nn.Linear | None = None
        if mlp_width:
            self.ff_proj = linear(config, config.d_model, mlp_width, config.include_bias)
            self.up_proj = linear(config, config.d_model, mlp_width, config.include_bias)
            self.ff_out = linear(config, mlp_width, config.d_model, config.include_bias, residual_of=layer)

    def forward(
        self,
        x: Tensor,
        cos_L1E: Tensor,
        sin_L1E: Tensor,
        bias: Tensor | None,
        where_N: Tensor | None = None,
    ) -> Tensor:
        """Return the residual stream behind the block, (B, L, D); (N, D) where only some positions are asked for.

        Args:
            x: The residual stream before the block, (B, L, D).
            cos_L1E: Cosines of the positions' angles; see `LLaDAModel.angles`.
            sin_L1E: Their sines.
            bias: What hides padding and later blocks; see `attention_bias`.
            where_N: The positions that are asked for, as indices into B × L; None asks for all.
        """
        q_BHLE, k_BHLE, v_BHLE = (each.transpose(1, 2) for each in self.heads(x, cos_L1E, sin_L1E))
        mixed = self.mix(q_BHLE, k_BHLE, v_BHLE, bias)
        if where_N is not None:
            mixed, x = (each.flatten(0, 1).index_select(0, where_N) for each in (mixed, x))
        return self.finish(x, mixed)

    def heads(self, x: Tensor, cos_L1E: Tensor, sin_L1E: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the heads' queries, keys and values, (…, L, H, E); the first two are rotated.

        Args:
            x: The residual stream before the block, (…, L, D).
            cos_L1E: Cosines of the positions' angles; see `LLaDAModel.angles`.
            sin_L1E: Their sines.
        """
        h = self.attn_norm(x)
        q, k, v = self.q_proj(h), self.k_proj(h), self.v_proj(h)
        if self.head_norm:
            q, k = (each.unflatten(-1, (-1, self.width)) for each in (q, k))
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = (each.view(*h.shape[:-1], -1, self.width) for each in (q, k, v))
        return rotate(q, cos_L1E, sin_L1E), rotate(k, cos_L1E, sin_L1E), v

    def mix(self, q_BHLE: Tensor, k_BHLE: Tensor, v_BHLE: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return what the heads' queries gather of all keys' values, (B, L, H × E).

        Args:
            q_BHLE: Rotated queries; there may be fewer of them than keys.
            k_BHLE: Rotated keys, of as many heads or, under grouped-query attention, fewer.
            v_BHLE: The keys' values.
            bias: What is added to the scores, see `attention_bias`; None where everything is seen.
        """
        if self.groups > 1:
            k_BHLE = k_BHLE.repeat_interleave(self.groups, dim=1)
            v_BHLE = v_BHLE.repeat_interleave(self.groups, dim=1)
        dropout = self.attention_dropout if self.training else 0.0
        mixed_BHLE = F.scaled_dot_product_attention(q_BHLE, k_BHLE, v_BHLE, attn_mask=bias, dropout_p=dropout)
        return mixed_BHLE.transpose(1, 2).flatten(2)

    def finish(self, x: Tensor, mixed: Tensor) -> Tensor:
        """Return the residual stream behind the block, (…, D).

        Args:
            x: The residual stream before the block, (…, D).
            mixed: What the block's heads have gathered there, (…, H × E).
        """
        x = x + self._drop(self.attn_out(mixed))
        return x + self._drop(self.feed(x))

    def feed(self, x: Tensor) -> Tensor:
        """Return what the MLP adds to (…, D), the experts' mixture, or both together where one MLP sees every token."""
        h = self.ff_norm(x)
        parts: list[Tensor] = []
        if self.ff_proj is not None:
            parts.append(self.ff_out(self.act(self.ff_proj(h)) * self.up_proj(h)))
        if self.router is not None:
            h_ND = h.flatten(0, -2)
            parts.append(self.experts(h_ND, *self.router(h_ND)).view_as(h))
        return torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.residual_dropout) if self.training and self.residual_dropout else x


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
            self.transformer["ff_out"] = linear(config, config.d_model, config.padded_vocab_size, config.include_bias)
        self._rotary: tuple[Tensor, Tensor] | None = None

    def forward(
        self,
        input_ids_BL: Tensor,
        attention_mask_BL: Tensor | None = None,
        where_N: Tensor | None = None,
        block_length: int | None = None,
        layout: Layout | None = None,
    ) -> Tensor:
        x_BLD = self.embed(input_ids_BL)
        if layout is not None:
            cos, sin = self.angles(x_BLD, layout.position_BL.to(x_BLD.device))
            bias: Tensor | None = bias_of(~layout.seen_BLL.to(x_BLD.device), x_BLD)
        else:
            length = self.check_length(input_ids_BL)
            cos, sin = self.angles(x_BLD, slice(length))
            block_length = (block_length or self.config.block_size) if self.config.block_size else 0
            bias = attention_bias(attention_mask_BL, length, block_length, x_BLD)
        *blocks, last = self.transformer["blocks"].children()
        for block in blocks:
            x_BLD = block(x_BLD, cos, sin, bias)
        return self.transformer["ln_f"](last(x_BLD, cos, sin, bias, where_N))  # type: ignore[no-any-return]

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
    for `hidden` (see `dlmlab.model.fast`).
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
        self.identify: Callable[[], str] = unsaved
        self.post_init()  # type: ignore[no-untyped-call]

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over the weights' files, read when first asked for; a description where there are none."""
        return self.identify()

    @property
    def device(self) -> torch.device:
        """Return the embedding's device. transformers would look through all parameters, at every step."""
        weight: Tensor = self.model.transformer["wte"].weight
        return weight.device

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
        ids_BL, real_BL, wanted_N, reuse, block_length, layout = query
        if reuse is not None:
            if self.fast is not None and self.fast.serves(query):
                return self.fast.cached(query)
            if isinstance(reuse.hooks[0], FeatureReuse):
                return feature_pass(self.model, query)
            return cached_pass(self.model, query, self.head)
        if self.fast is not None and wanted_N is not None and layout is None:
            self.model.check_length(ids_BL)
            return self.fast(ids_BL, real_BL, wanted_N)
        asked = (ids_BL, real_BL, wanted_N)
        sent = (each if each is None else each.to(self.device, non_blocking=True) for each in asked)
        return self.model(*sent, block_length, layout)  # type: ignore[no-any-return]

    def new_store(self, positions: int, kept: str = KEYS_AND_VALUES) -> KeyValueStore | Slot:
        """Return an empty store for a row; a slot of the arena where the fast pass can use it.

        Args:
            positions: How many positions the row has.
            kept: What is kept of them, one of those that the model `keeps`.
        """
        if self.fast is not None and kept == KEYS_AND_VALUES:
            return self.fast.arena.take(positions)
        kind = FeatureStore if kept == FEATURES else KeyValueStore
        return kind(self.config, positions, like=self.model.transformer["wte"].weight)

    def head(self, hidden_ND: Tensor) -> Tensor:
        """Logits (N, V) of final-norm outputs, for any leading shape."""
        transformer = self.model.transformer
        if self.config.weight_tying:
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


def norm(config: LLaDAConfig) -> RMSNorm:
    """Return a norm over the model's width."""
    return RMSNorm(config.d_model, config.rms_norm_eps, config.layer_norm_with_affine, config.norm_bias)


def linear(config: LLaDAConfig, width_in: int, width_out: int, bias: bool, residual_of: int | None = None) -> nn.Linear:
    """Return a projection.

    Args:
        config: The network's; it isn't read.
        width_in: Columns of what is projected.
        width_out: Columns of the product.
        bias: Whether a bias is added.
        residual_of: The layer, where it writes to the residual stream, which scales its fresh weights; else None.
    """
    layer = nn.Linear(width_in, width_out, bias=bias)
    layer.residual_of = residual_of  # type: ignore[assignment]
    return layer


def shifted(query: Query) -> Query:
    """The query for what stands left of the positions that are wanted; a row's first position has no left one."""
    if query.wanted_N is None:
        return query
    left_N = query.wanted_N - (query.wanted_N % query.tokens_BL.shape[1] > 0).long()
    return query._replace(wanted_N=left_N)
