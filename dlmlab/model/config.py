"""What a checkpoint's config.json says of the network: honoured, or refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from transformers import PretrainedConfig

from dlmlab.errors import UserError
from dlmlab.types import check_number, check_positive_int

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"silu": F.silu, "gelu": F.gelu, "relu": F.relu}

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
    mask_token_id: int = 126336
    eos_token_id: int = 126081
    pad_token_id: int = 126081

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
        if self.d_model % (2 * self.n_heads):
            raise UserError(f"config key d_model={self.d_model} is no even multiple of n_heads={self.n_heads}")
        if self.n_heads % self.kv_heads:
            raise UserError(f"config key n_kv_heads={self.n_kv_heads} does not divide n_heads={self.n_heads}")
        if self.padded_vocab_size < self.vocab_size:
            raise UserError(
                f"config key embedding_size={self.embedding_size} is less than vocab_size={self.vocab_size}"
            )
        for key in ("mask_token_id", "eos_token_id", "pad_token_id"):
            token = getattr(self, key)
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
