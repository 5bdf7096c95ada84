"""One block of the network: attention over the whole row, then a gated MLP or a mixture of experts.

Shape suffixes as in `dlmlab.model.llada`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlmlab.model.config import ACTIVATIONS, LLaDAConfig, NetworkConfig
from dlmlab.model.experts import Experts, Router
from dlmlab.model.rotary import rotate


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
        self.q_proj = linear(config.d_model, width, qkv_bias)
        self.k_proj = linear(config.d_model, kv_width, qkv_bias)
        self.v_proj = linear(config.d_model, kv_width, qkv_bias)
        self.attn_out = linear(width, config.d_model, config.include_bias, residual_of=layer)
        mlp_width = config.mlp_width
        self.router: Router | None = None
        if isinstance(config, NetworkConfig) and config.n_experts and layer not in config.dense_layers:
            self.router, self.experts = Router(config), Experts(config)
            mlp_width = config.shared_width
        self.ff_proj: nn.Linear | None = None
        if mlp_width:
            self.ff_proj = linear(config.d_model, mlp_width, config.include_bias)
            self.up_proj = linear(config.d_model, mlp_width, config.include_bias)
            self.ff_out = linear(mlp_width, config.d_model, config.include_bias, residual_of=layer)

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
            parts.append(self.mixture(h.flatten(0, -2)).view_as(h))
        return torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]

    def mixture(self, h_ND: Tensor) -> Tensor:
        """Return what the chosen experts make of hidden states, (N, D), in a block that has experts.

        Args:
            h_ND: The hidden states, behind the norm.
        """
        assert self.router is not None
        return self.experts(h_ND, *self.router(h_ND))  # type: ignore[no-any-return]

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.residual_dropout) if self.training and self.residual_dropout else x


def norm(config: LLaDAConfig) -> RMSNorm:
    """Return a norm over the model's width."""
    return RMSNorm(config.d_model, config.rms_norm_eps, config.layer_norm_with_affine, config.norm_bias)


def linear(width_in: int, width_out: int, bias: bool, residual_of: int | None = None) -> nn.Linear:
    """Return a projection.

    Args:
        width_in: Columns of what is projected.
        width_out: Columns of the product.
        bias: Whether a bias is added.
        residual_of: The layer, where it writes to the residual stream, which scales its fresh weights; else None.
    """
    layer = nn.Linear(width_in, width_out, bias=bias)
    layer.residual_of = residual_of  # type: ignore[assignment]
    return layer
