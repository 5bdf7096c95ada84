"""What a checkpoint's config.json says of the network: honoured, or refused by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PretrainedConfig

from dlmlab.errors import UserError
from dlmlab.types import check_number, check_positive_int

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"silu": F.silu, "gelu": F.gelu, "relu": F.relu}

ROUTERS: dict[str, Callable[[Tensor], Tensor]] = {"softmax": lambda x: x.softmax(-1), "sigmoid": torch.sigmoid}

REFUSED: dict[str, tuple[Any, str]] = {
    "alibi": (False, "only rotary positions are supported"),
    "block_group_size": (1, "grouped blocks are not supported"),
    "block_type": ("llama", "only Llama blocks are supported"),
    "layer_norm_type": ("rms", "only RMS norms are supported"),
    "rope": (True, "only rotary positions are supported"),
    "use_cache": (False, "attention in both directions has no key-value cache"),
}
"""Config keys for which one value alone is supported, and why."""

FLAGS = (
    *("rope_full_precision", "layer_norm_with_affine", "attention_layer_norm", "attention_layer_norm_with_affine"),
    *("include_bias", "include_qkv_bias", "input_emb_norm", "scale_logits", "weight_tying"),
)
"""Config keys that are true or false."""

NEUTRAL = {
    "_name_or_path",
    "alibi_bias_max",
    "auto_map",
    "bos_token_id",
    "flash_attention",
    "init_device",
    "model_type",
    "precision",
    "torch_dtype",
}
"""Keys that don't change what the model computes; `auto_map` names code, which is never run.

No other key with an underscore is taken: transformers follows some, such as `_attn_implementation`, to code on the hub.
"""


class LLaDAConfig(PretrainedConfig):
    """The keys of a LLaDA checkpoint's config.json; the defaults are what the published checkpoints say.

    Raises UserError, naming the key, for a value out of range, a feature that is not supported and a key that is
    not known.
    """

    model_type = "llada"

    vocab_size: int = 126464
    embedding_size: int | None = None
    d_model: int = 4096
    n_layers: int = 32
    n_heads: int = 32
    n_kv_heads: int | None = None
    multi_query_attention: bool | None = None
    mlp_hidden_size: int | None = None
    mlp_ratio: int = 4
    max_sequence_length: int = 4096
    activation_type: str = "silu"
    block_type: str = "llama"
    block_group_size: int = 1
    alibi: bool = False
    rope: bool = True
    rope_theta: float = 500000.0
    rope_full_precision: bool = True
    layer_norm_type: str = "rms"
    layer_norm_with_affine: bool = True
    rms_norm_eps: float = 1e-5
    bias_for_layer_norm: bool | None = False
    attention_layer_norm: bool = False
    attention_layer_norm_with_affine: bool = True
    include_bias: bool = False
    include_qkv_bias: bool = False
    input_emb_norm: bool = False
    scale_logits: bool = False
    weight_tying: bool = False
    attention_dropout: float = 0.0
    residual_dropout: float = 0.0
    embedding_dropout: float = 0.0
    init_fn: str = "mitchell"
    init_std: float = 0.02
    init_cutoff_factor: float | None = None
    use_cache: bool = False
    mask_token_id: int | None = 126336
    eos_token_id: int = 126081
    pad_token_id: int = 126081

    # What no LLaDA has, and a key of no LLaDA's config; see NetworkConfig.
    family = "llada"
    head_norm = False
    rotary_width = 0
    logits_shift = False
    block_size = 0
    canvas = "fixed"
    n_experts = 0

    def __post_init__(self, **kwargs: Any) -> None:
        for key, value in kwargs.items():
            tied = key == "tie_word_embeddings" and value == self.weight_tying
            if not (value is None or tied or key in NEUTRAL):
                raise UserError(f"config key {key}={value!r} cannot be honoured: only LLaDA's own keys are known")
        super().__post_init__(**kwargs)  # type: ignore[no-untyped-call]
        for key, (supported, reason) in REFUSED.items():
            if getattr(self, key) != supported:
                raise UserError(f"config key {key}={getattr(self, key)!r}: {reason}; it must be {supported!r}")
        self._check_values()

    def _check_values(self) -> None:
        for key in ("vocab_size", "d_model", "n_layers", "n_heads", "mlp_ratio", "max_sequence_length"):
            check_positive_int(f"config key {key}", getattr(self, key))
        for key in ("embedding_size", "n_kv_heads", "mlp_hidden_size"):
            if getattr(self, key) is not None:
                check_positive_int(f"config key {key}", getattr(self, key))
        for key in ("attention_dropout", "residual_dropout", "embedding_dropout"):
            check_number(f"config key {key}", getattr(self, key), low=0.0, high=1.0)
        for key in ("rope_theta", "rms_norm_eps"):
            check_number(f"config key {key}", getattr(self, key), low=0.0)
        for key in FLAGS:
            if not isinstance(getattr(self, key), bool):
                raise UserError(f"config key {key}={getattr(self, key)!r} is neither true nor false")
        if self.activation_type not in ACTIVATIONS:
            raise UserError(
                f"config key activation_type={self.activation_type!r} is not one of {', '.join(ACTIVATIONS)}"
            )
        self._check_heads()
        if self.n_heads % self.kv_heads:
            raise UserError(f"config key n_kv_heads={self.n_kv_heads} does not divide n_heads={self.n_heads}")
        if self.padded_vocab_size < self.vocab_size:
            raise UserError(
                f"config key embedding_size={self.embedding_size} is less than vocab_size={self.vocab_size}"
            )
        for key in ("mask_token_id", "eos_token_id", "pad_token_id"):
            self._check_token(key, getattr(self, key))

    def _check_heads(self) -> None:
        if self.d_model % (2 * self.n_heads):
            raise UserError(f"config key d_model={self.d_model} is no even multiple of n_heads={self.n_heads}")

    def _check_token(self, key: str, token: object) -> None:
        if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < self.padded_vocab_size:
            raise UserError(f"config key {key}={token!r} is not a token id below {self.padded_vocab_size}")

    @property
    def head_width(self) -> int:
        return self.d_model // self.n_heads

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values: fewer than `n_heads` under grouped-query attention."""
        if self.n_kv_heads is not None:
            if self.multi_query_attention and self.n_kv_heads != 1:
                raise UserError(f"config key multi_query_attention=True contradicts n_kv_heads={self.n_kv_heads}")
            return self.n_kv_heads
        return 1 if self.multi_query_attention else self.n_heads

    @property
    def mlp_width(self) -> int:
        return self.mlp_ratio * self.d_model if self.mlp_hidden_size is None else self.mlp_hidden_size

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the embedding and of the head: the vocabulary, rounded up where the checkpoint says so."""
        return self.embedding_size or self.vocab_size

    @property
    def norm_bias(self) -> bool:
        return self.include_bias if self.bias_for_layer_norm is None else self.bias_for_layer_norm


class NetworkConfig(LLaDAConfig):
    """The network of another family, in LLaDA's words and some more; `dlmlab.model.family` makes it of a config.json.

    `mask_token_id` may be None: there is no decoding then. Without experts, what describes them has no effect.

    Attributes:
        family: The family's name.
        head_dim: Width of a head.
        head_norm: Whether queries and keys are normed, each head by itself.
        rotary_width: How much of each head is turned by its position; 0 is all.
        logits_shift: Whether the output at position i is the prediction for position i + 1.
        block_size: Positions of a block, unless a caller says otherwise: a position sees its own block and those before
            it. 0 where each sees all.
        canvas: How the family generates, `fixed` or `growing`.
        other_end_ids: Tokens that end an answer beside `eos_token_id`.
        n_experts: Experts of each layer but the dense ones; 0 for none at all.
        dense_layers: The layers without experts, counted from 0.
        experts_per_token: How many of a layer's experts see a token.
        expert_width: Width of an expert's MLP.
        shared_width: Width of an MLP that sees every token beside the experts; 0 for none.
        router: What makes weights of the router's scores, `softmax` or `sigmoid`.
        router_bias: Whether a number for each expert is added to the weights.
        bias_only_selects: Whether that number plays a part in the choice of experts alone.
        normalize_weights: Whether the weights of the chosen experts are made to sum to 1.
        routed_scale: What the weights are multiplied by in the end.
        groups: Groups of equal size that the experts are in.
        groups_per_token: Experts are chosen among those of so many groups, whose two best have the highest sums.
    """

    model_type = "dlmlab"

    family: str = ""
    head_dim: int = 128
    head_norm: bool = False
    rotary_width: int = 0
    logits_shift: bool = False
    block_size: int = 0
    canvas: str = "fixed"
    other_end_ids: list[int] = field(default_factory=list)
    n_experts: int = 0
    dense_layers: list[int] = field(default_factory=list)
    experts_per_token: int = 1
    expert_width: int = 1
    shared_width: int = 0
    router: str = "softmax"
    router_bias: bool = False
    bias_only_selects: bool = False
    normalize_weights: bool = False
    routed_scale: float = 1.0
    groups: int = 1
    groups_per_token: int = 1

    @property
    def head_width(self) -> int:
        return self.head_dim

    def _check_values(self) -> None:
        super()._check_values()
        for token in self.other_end_ids:
            self._check_token("eos_token_id", token)
        check_number("config key routed_scale", self.routed_scale, low=0.0)
        if self.n_experts:
            self._check_experts()

    def _check_heads(self) -> None:
        check_positive_int("config key head_dim", self.head_dim)
        if self.head_dim % 2 or self.rotary_width % 2 or self.rotary_width > self.head_dim:
            raise UserError(
                f"config key head_dim={self.head_dim}, of which {self.rotary_width} are turned: both must be even"
            )

    def _check_token(self, key: str, token: object) -> None:
        if not (key == "mask_token_id" and token is None):
            super()._check_token(key, token)

    def _check_experts(self) -> None:
        for key in ("n_experts", "experts_per_token", "expert_width", "groups", "groups_per_token"):
            check_positive_int(f"config key {key}", getattr(self, key))
        if self.router not in ROUTERS:
            raise UserError(f"config key router={self.router!r} is not one of {', '.join(ROUTERS)}")
        if self.groups > 1 and (self.n_experts % self.groups or self.n_experts // self.groups < 2):
            raise UserError(
                f"config key groups={self.groups} leaves no groups of two or more of {self.n_experts} experts"
            )
        among = self.n_experts // self.groups * min(self.groups, self.groups_per_token)
        if self.experts_per_token > among:
            raise UserError(f"config key experts_per_token={self.experts_per_token} is more than {among}, the choice")
