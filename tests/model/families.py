"""Small random checkpoints of every family, written in the published layout from transformers' own backbones.

Those compute what the published code does, which transformers 5 can't run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor

from tests.model.helpers import randomized

VOCABULARY, MASK, EOS = 96, 95, 94
BLOCK = 4

COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_act": "silu",
    "max_position_embeddings": 128,
    "rope_theta": 10000.0,
    "rms_norm_eps": 1e-6,
    "rope_scaling": None,
    "tie_word_embeddings": False,
    "eos_token_id": EOS,
    "pad_token_id": EOS,
    "mask_token_id": MASK,
    "torch_dtype": "bfloat16",
}
MIXTURE = {"num_experts": 8, "num_experts_per_tok": 3}

CONFIGS: dict[str, dict[str, Any]] = {
    "illada": COMMON
    | {"architectures": ["ILLaDAForCausalLM"], "model_type": "illada", "intermediate_size": 112}
    | {"tie_word_embeddings": True, "attention_bias": False, "mlp_bias": False},
    "dream": COMMON | {"architectures": ["DreamModel"], "model_type": "Dream", "intermediate_size": 112},
    "sdar": COMMON
    | {"architectures": ["SDARForCausalLM"], "model_type": "sdar", "intermediate_size": 112, "head_dim": 24}
    | {"block_size": BLOCK, "attention_bias": False},
    "llada_moe": COMMON
    | MIXTURE
    | {"architectures": ["LLaDAMoEModelLM"], "model_type": "llada", "expert_intermediate_size": 24}
    | {"dense_intermediate_size": 112, "moe_layer_freq": [0, 1, 1], "moe_router_enable_expert_bias": False}
    | {"moe_router_score_function": "softmax", "qk_layernorm": True, "shared_expert_intermediate_size": None},
    "llada2": COMMON
    | MIXTURE
    | {"architectures": ["LLaDA2MoeModelLM"], "model_type": "llada2_moe", "intermediate_size": 96, "head_dim": 16}
    | {"moe_intermediate_size": 24, "num_shared_experts": 1, "first_k_dense_replace": 1, "n_group": 4, "topk_group": 2}
    | {"routed_scaling_factor": 2.5, "partial_rotary_factor": 0.5, "use_qk_norm": True, "use_qkv_bias": False},
}
NAMES = sorted(CONFIGS)


def backbone_of(name: str, config: Mapping[str, Any]) -> Any:
    """Transformers' model that computes what a family's published code does."""
    keys = {**config, "rope_parameters": {"rope_type": "default", "rope_theta": config["rope_theta"]}}
    for key in ("architectures", "model_type", "rope_theta", "rope_scaling", "torch_dtype", "mask_token_id"):
        keys.pop(key, None)
    build: dict[str, Callable[[], Any]] = {
        "illada": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**keys)),
        "dream": lambda: transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**keys)),
        "sdar": lambda: transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**keys)),
        "llada_moe": lambda: transformers.Qwen3MoeForCausalLM(
            transformers.Qwen3MoeConfig(
                **keys,
                head_dim=config["hidden_size"] // config["num_attention_heads"],
                intermediate_size=config["dense_intermediate_size"],
                moe_intermediate_size=config["expert_intermediate_size"],
                mlp_only_layers=[layer for layer, sparse in enumerate(config["moe_layer_freq"]) if not sparse],
                norm_topk_prob=False,
            )
        ),
        "llada2": lambda: transformers.Glm4MoeForCausalLM(
            transformers.Glm4MoeConfig(
                **{key: value for key, value in keys.items() if key not in ("num_experts", "num_shared_experts")},
                n_routed_experts=config["num_experts"],
                n_shared_experts=config["num_shared_experts"],
                norm_topk_prob=True,
            )
        ),
    }
    torch.manual_seed(0)
    model = build[name]()
    model.config._attn_implementation = "eager"
    with torch.no_grad():
        chosen = [buffer for name, buffer in model.named_buffers() if "correction_bias" in name]
        for tensor in (*model.parameters(), *chosen):
            randomized(tensor)
            tensor.mul_(3 if tensor.dim() > 1 else 1)  # or every token would be nearly as likely
    return model.eval()


def published(name: str, model: Any, config: Mapping[str, Any]) -> dict[str, Tensor]:
    """The backbone's tensors by their published names."""
    found = dict(model.state_dict())
    if config["tie_word_embeddings"]:
        del found["lm_head.weight"]
    if name in ("illada", "dream", "sdar"):
        return found
    tensors: dict[str, Tensor] = {}
    for key, tensor in found.items():
        prefix, _, leaf = key.rpartition(".experts.")
        if leaf == "gate_up_proj":
            for expert, part in enumerate(tensor):
                gate, up = part.chunk(2)
                tensors[f"{prefix}.experts.{expert}.gate_proj.weight"] = gate
                tensors[f"{prefix}.experts.{expert}.up_proj.weight"] = up
        elif leaf == "down_proj":
            tensors |= {f"{prefix}.experts.{expert}.down_proj.weight": part for expert, part in enumerate(tensor)}
        else:
            tensors[key] = tensor
    return fused(tensors) if name == "llada2" else tensors


def fused(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Glm4Moe's tensors by LLaDA2's names."""
    names = {
        "self_attn.o_proj": "attention.dense",
        "self_attn.q_norm": "attention.query_layernorm",
        "self_attn.k_norm": "attention.key_layernorm",
        "gate.e_score_correction_bias": "gate.expert_bias",
        "embed_tokens": "word_embeddings",
    }
    renamed: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        if "q_proj" in key:
            parts = [tensors[key.replace("q_proj", f"{each}_proj")] for each in "qkv"]
            renamed[key.replace("self_attn.q_proj", "attention.query_key_value")] = torch.cat(parts)
        elif "k_proj" not in key and "v_proj" not in key:
            for theirs, ours in names.items():
                key = key.replace(theirs, ours)
            renamed[key] = tensor
    return renamed


def save_family(folder: Path, name: str, **changes: Any) -> Any:
    """Write a small checkpoint of a family, and return the backbone with its weights."""
    config = CONFIGS[name] | changes
    folder.mkdir(parents=True, exist_ok=True)
    model = backbone_of(name, config)
    tensors = {key: tensor.contiguous().clone() for key, tensor in published(name, model, config).items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    return model
