"""The families of models, as data: what keys and tensors are called here, how they differ. No code of theirs is run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from dlmlab.errors import UserError
from dlmlab.model.config import LLaDAConfig, NetworkConfig
from dlmlab.types import check_positive_int

Values = dict[str, Any]

STATED = (
    *("vocab_size", "d_model", "n_layers", "n_heads", "max_sequence_length", "activation_type", "block_type", "rope"),
    *("rope_theta", "layer_norm_type", "include_bias", "bias_for_layer_norm", "weight_tying"),
    *("mask_token_id", "eos_token_id", "pad_token_id"),
)
"""Keys that LLaDA's config.json must hold: the published code and ours would assume different values for them."""

SHAPE = {
    "vocab_size": "vocab_size",
    "hidden_size": "d_model",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "num_key_value_heads": "n_kv_heads",
    "hidden_act": "activation_type",
    "max_position_embeddings": "max_sequence_length",
    "rope_theta": "rope_theta",
    "rms_norm_eps": "rms_norm_eps",
    "eos_token_id": "eos_token_id",
}
"""Keys of all families but LLaDA that must be stated, and what they are called here."""
OPTIONAL = {
    "tie_word_embeddings": "weight_tying",
    "attention_dropout": "attention_dropout",
    "mask_token_id": "mask_token_id",
    "pad_token_id": "pad_token_id",
}
MLP = {"intermediate_size": "mlp_hidden_size"}
HEAD = {"head_dim": "head_dim"}

NEUTRAL = frozenset(
    {
        *("_name_or_path", "architectures", "auto_map", "bos_token_id", "dtype", "model_type", "torch_dtype"),
        *("transformers_version", "use_cache", "initializer_range", "max_window_layers", "sliding_window"),
        *("output_router_logits", "router_aux_loss_coef"),
    }
)
"""Keys that don't change what the model computes; `sliding_window` does with `use_sliding_window` alone."""

FIXED: Mapping[str, tuple[Any, ...]] = {"rope_scaling": (None,), "use_sliding_window": (False, None)}
"""Keys of which some values alone are supported."""

OUTER = {
    "wte.weight": "model.embed_tokens.weight",
    "ln_f.weight": "model.norm.weight",
    "ff_out.weight": "lm_head.weight",
}
NORMS = {"attn_norm": "input_layernorm", "ff_norm": "post_attention_layernorm"}
ATTENTION = {f"{each}_proj": f"self_attn.{each}_proj" for each in "qkv"} | {"attn_out": "self_attn.o_proj"}
HEAD_NORMS = {"q_norm": "self_attn.q_norm", "k_norm": "self_attn.k_norm"}
GATED = {"ff_proj": "gate_proj", "up_proj": "up_proj", "ff_out": "down_proj"}
DENSE = {ours: f"mlp.{theirs}" for ours, theirs in GATED.items()}
EXPERTS = {"experts.gate_up": ("gate_proj", "up_proj"), "experts.down": ("down_proj",)}
FUSED = ("q_proj", "k_proj", "v_proj")


@dataclass(frozen=True)
class Family:
    """One family of checkpoints.

    Attributes:
        name: The family's name here.
        architecture: What config.json calls it.
        keys: Config keys that must be stated, with their names here.
        optional: Config keys that may be stated, likewise.
        fixed: Config keys of which some values alone are supported, with these values.
        neutral: Config keys that change nothing.
        own: What the network is like whatever the config says.
        derive: Returns what follows from several keys of a config.json.
        mask_token_id: The mask token's id where config.json does not state it; None where it must.
        end_of_turn: The text of the token that ends an answer beside the end of text; None where there is none.
        special_tokens_checked: Whether a tokenizer without mask and ends is refused.
        outer: Tensors outside the layers, by their names here.
        layer: Modules of a layer, likewise.
        sparse: Those of a layer with experts, in place of them.
        fused: Whether queries, keys and values lie in one tensor, one below the other.
    """

    name: str
    architecture: str
    keys: Mapping[str, str] = field(default_factory=dict)
    optional: Mapping[str, str] = field(default_factory=lambda: OPTIONAL)
    fixed: Mapping[str, tuple[Any, ...]] = field(default_factory=lambda: FIXED)
    neutral: frozenset[str] = NEUTRAL
    own: Mapping[str, Any] = field(default_factory=dict)
    derive: Callable[[Values], Values] = lambda config: {}
    mask_token_id: int | None = None
    end_of_turn: str | None = None
    special_tokens_checked: bool = True
    outer: Mapping[str, str] = field(default_factory=lambda: OUTER)
    layer: Mapping[str, str] = field(default_factory=lambda: NORMS | ATTENTION | DENSE)
    sparse: Mapping[str, str] = field(default_factory=dict)
    fused: bool = False


def mixture(config: Values) -> Values:
    """Return the settings of the mixture that LLaDA-MoE's keys describe together."""
    frequency = config.get("moe_layer_freq")
    if not isinstance(frequency, list) or len(frequency) != whole(config, "num_hidden_layers"):
        raise UserError(f"config key moe_layer_freq={frequency!r} is no list of num_hidden_layers numbers")
    dense = [layer for layer, sparse in enumerate(frequency) if not sparse]
    return {
        "dense_layers": dense,
        "mlp_hidden_size": whole(config, "dense_intermediate_size") if dense else None,
        "shared_width": whole(config, "shared_expert_intermediate_size", missing=0),
        **equal_heads(config),
    }


def grouped_mixture(config: Values) -> Values:
    """Return the settings of the mixture that LLaDA2's keys describe together."""
    factor, width = config.get("partial_rotary_factor"), whole(config, "head_dim")
    factor = 1.0 if factor is None else factor
    if not isinstance(factor, int | float) or not 0 < factor <= 1:
        raise UserError(f"config key partial_rotary_factor={factor!r} is not a number above 0, up to 1")
    turned = int(width * factor)
    expert = whole(config, "moe_intermediate_size")
    for key, known in (("rotary_dim", turned), ("moe_shared_expert_intermediate_size", expert)):
        if config.get(key) not in (None, known):
            raise UserError(f"config key {key}={config[key]!r} contradicts the other keys, by which it is {known}")
    return {
        "rotary_width": turned if turned < width else 0,
        "dense_layers": list(range(whole(config, "first_k_dense_replace", missing=0))),
        "shared_width": whole(config, "num_shared_experts", missing=0) * expert,
        "normalize_weights": whole(config, "num_experts_per_tok") > 1,
    }


def equal_heads(config: Values) -> Values:
    """Return the width of a head where no key states it."""
    if config.get("head_dim") is not None:
        return {}
    width, heads = whole(config, "hidden_size"), whole(config, "num_attention_heads")
    if width % heads:
        raise UserError(f"config key hidden_size={width} is no multiple of num_attention_heads={heads}")
    return {"head_dim": width // heads}


def trained_blocks(config: Values) -> Values:
    """SDAR's blocks: of four positions where no key says it, as in most of its checkpoints."""
    return {"block_size": whole(config, "block_size", missing=4)}


def whole(config: Values, key: str, missing: int | None = None) -> int:
    """Return a key's value, a positive integer. Raises UserError for anything else.

    Args:
        config: The keys of a config.json.
        key: The key that is read.
        missing: What is returned where the value is null, 0 or not there; with None such a value is refused.
    """
    value = config.get(key)
    if missing is not None and value in (None, 0):
        return missing
    check_positive_int(f"config key {key}", value)
    return int(value)  # type: ignore[arg-type]


FAMILIES = {
    each.name: each
    for each in (
        Family("llada", "LLaDAModelLM", end_of_turn="<|eot_id|>", special_tokens_checked=False),
        Family(  # arXiv:2606.25331; Llama's layout
            "illada",
            "ILLaDAForCausalLM",
            keys={**SHAPE, **MLP},
            optional={**OPTIONAL, **HEAD, "resid_pdrop": "residual_dropout"},
            fixed={**FIXED, "attention_bias": (False,), "mlp_bias": (False,), "layer_norm_eps": (None,)},
            own={"canvas": "growing"},
            derive=equal_heads,
            mask_token_id=5,
        ),
        Family(  # arXiv:2508.15487, and Dream-Coder and DiffuCoder; Qwen2's layout
            "dream",
            "DreamModel",
            keys={**SHAPE, **MLP},
            own={"include_qkv_bias": True, "logits_shift": True},
            derive=equal_heads,
            end_of_turn="<|im_end|>",
        ),
        Family(  # arXiv:2510.06303, and TraDo; Qwen3's layout
            "sdar",
            "SDARForCausalLM",
            keys={**SHAPE, **MLP, **HEAD},
            optional={**OPTIONAL, "block_size": "block_size"},
            fixed={**FIXED, "attention_bias": (False,)},
            neutral=NEUTRAL.union(
                ("attn_implementation", "debug", "ep_size", "fuse_cross_entropy", "micro_forward", "skip_checkpoint"),
                ("use_deepep",),
            ),
            own={"head_norm": True, "canvas": "growing"},
            derive=trained_blocks,
            end_of_turn="<|im_end|>",
            layer={**NORMS, **ATTENTION, **HEAD_NORMS, **DENSE},
        ),
        Family(  # arXiv:2509.24389; the published code takes no notice of norm_topk_prob
            "llada_moe",
            "LLaDAMoEModelLM",
            keys={
                **SHAPE,
                "expert_intermediate_size": "expert_width",
                "num_experts": "n_experts",
                "num_experts_per_tok": "experts_per_token",
                "qk_layernorm": "head_norm",
                "moe_router_score_function": "router",
                "moe_router_enable_expert_bias": "router_bias",
            },
            fixed={
                **FIXED,
                "attention_bias": (False,),
                "clip_qkv": (None,),
                "partial_rotary_factor": (1,),
                "router_num_group": (None,),
                "router_topk_group": (None,),
                "routed_scaling_factor": (1,),
            },
            neutral=NEUTRAL.union(
                ("dense_intermediate_size", "moe_layer_freq", "norm_topk_prob", "shared_expert_intermediate_size")
            ),
            derive=mixture,
            mask_token_id=156895,
            layer={**NORMS, **ATTENTION, **HEAD_NORMS, **DENSE},
            sparse={
                "router": "mlp.gate",
                "router.bias": "mlp.expert_bias",
                "experts": "mlp.experts.{}",
                **{ours: f"shared_expert.{theirs}" for ours, theirs in GATED.items()},
            },
        ),
        Family(  # LLaDA2.0, arXiv:2512.15745, and LLaDA2.1
            "llada2",
            "LLaDA2MoeModelLM",
            keys={
                **SHAPE,
                **MLP,
                **HEAD,
                "moe_intermediate_size": "expert_width",
                "num_experts": "n_experts",
                "num_experts_per_tok": "experts_per_token",
                "n_group": "groups",
                "topk_group": "groups_per_token",
                "routed_scaling_factor": "routed_scale",
                "use_qk_norm": "head_norm",
                "use_qkv_bias": "include_qkv_bias",
            },
            optional={**OPTIONAL, "embedding_dropout": "embedding_dropout"},
            fixed={
                **FIXED,
                "use_bias": (False,),
                "norm_head": (False,),
                "norm_softmax": (False,),
                "norm_topk_prob": (True,),
                "score_function": ("sigmoid",),
                "router_dtype": ("fp32",),
                "use_rmsnorm": (True,),
                "moe_router_enable_expert_bias": (True,),
                "output_dropout": (0,),
            },
            neutral=NEUTRAL.union(
                ("first_k_dense_replace", "num_shared_experts", "partial_rotary_factor", "rotary_dim"),
                ("moe_shared_expert_intermediate_size",),
            ),
            own={
                "block_size": 32,
                "canvas": "growing",
                "router": "sigmoid",
                "router_bias": True,
                "bias_only_selects": True,
            },
            derive=grouped_mixture,
            mask_token_id=156895,
            outer={**OUTER, "wte.weight": "model.word_embeddings.weight"},
            layer={
                **NORMS,
                **DENSE,
                **dict.fromkeys(FUSED, "attention.query_key_value"),
                "q_norm": "attention.query_layernorm",
                "k_norm": "attention.key_layernorm",
                "attn_out": "attention.dense",
            },
            sparse={
                "router": "mlp.gate",
                "router.bias": "mlp.gate.expert_bias",
                "experts": "mlp.experts.{}",
                **{ours: f"mlp.shared_experts.{theirs}" for ours, theirs in GATED.items()},
            },
            fused=True,
        ),
    )
}


def of(config: Mapping[str, Any], where: str) -> Family:
    """Return the family of a config.json; LLaDA's where it names none. Raises UserError for one that is not known.

    Args:
        config: The keys of the config.json; `architectures` names the family.
        where: What an error calls the file.
    """
    named = config.get("architectures") or [FAMILIES["llada"].architecture]
    for family in FAMILIES.values():
        if named == [family.architecture]:
            return family
    known = ", ".join(f"{family.architecture} ({family.name})" for family in FAMILIES.values())
    raise UserError(f"{where} describes architectures={named!r}, which is not one of {known}")


def network_config(config: Mapping[str, Any], where: str, ends: Mapping[str, Any] | None = None) -> LLaDAConfig:
    """Return the network that a config.json describes. Raises UserError, naming a key that is missing or refused.

    Args:
        config: The keys of the config.json.
        where: What an error calls the file.
        ends: The keys of generation_config.json, whose tokens end an answer too; None where there is no such file.
    """
    family = of(config, where)
    if family.name == "llada":
        return llada_config(config, where)
    if missing := [key for key in family.keys if config.get(key) is None]:
        raise UserError(f"{where} does not state {', '.join(missing)}: add what the model was trained with")
    for key, value in config.items():
        check_key(family, key, value)
    names = {**family.keys, **family.optional}
    values = {names[key]: value for key, value in config.items() if key in names and value is not None}
    values = {**values, **tokens(family, config, ends or {}, where), **family.own, **family.derive(dict(config))}
    try:
        return NetworkConfig(family=family.name, **values)
    except UserError as error:
        raise UserError(*(in_their_words(line, names) for line in error.args)) from error


def llada_config(config: Mapping[str, Any], where: str) -> LLaDAConfig:
    """Return the network of a config.json that is LLaDA's own. Raises UserError as `network_config` does.

    Args:
        config: The keys of the config.json, all of which must be LLaDA's.
        where: What an error calls the file.
    """
    if config.get("model_type") != "llada":
        raise UserError(f"{where} describes model_type={config.get('model_type')!r}, not llada: fetch it again")
    if missing := [key for key in STATED if key not in config]:
        raise UserError(f"{where} does not state {', '.join(missing)}: add what the model was trained with")
    return LLaDAConfig(**config)


def check_key(family: Family, key: str, value: Any) -> None:
    """Raise UserError where a config key's value can't be honoured.

    Args:
        family: The family whose keys are known.
        key: The key of a config.json.
        value: Its value there; null is always taken.
    """
    if key in family.fixed:
        if value not in family.fixed[key] and value is not None:
            only = " or ".join(map(repr, family.fixed[key]))
            raise UserError(f"config key {key}={value!r} is not supported for {family.name}: it must be {only}")
    elif not (value is None or key in family.keys or key in family.optional or key in family.neutral):
        raise UserError(f"config key {key}={value!r} cannot be honoured: {family.name} has no such key here")


def tokens(family: Family, config: Mapping[str, Any], ends: Mapping[str, Any], where: str) -> Values:
    """Return the special tokens' ids. Raises UserError where the mask token must be stated and isn't.

    Args:
        family: The family, which may know the mask token where config.json doesn't state it.
        config: The keys of a config.json.
        ends: The keys of generation_config.json, whose tokens end an answer too; empty where there is none.
        where: What an error calls config.json.
    """
    mask = config.get("mask_token_id")
    if mask is None:
        if family.mask_token_id is None:
            raise UserError(f"{where} does not state mask_token_id: add the id that stands for a missing token")
        mask = family.mask_token_id if family.mask_token_id < config["vocab_size"] else None
    eos, *more = [*listed(config["eos_token_id"]), *listed(ends.get("eos_token_id"))]
    pad = config.get("pad_token_id")
    return {
        "mask_token_id": mask,
        "eos_token_id": eos,
        "other_end_ids": [each for each in dict.fromkeys(more) if each != eos],
        "pad_token_id": eos if pad is None else pad,
    }


def listed(ids: Any) -> list[Any]:
    """Return one id, several or none as a list."""
    return ids if isinstance(ids, list) else [] if ids is None else [ids]


def in_their_words(line: str, names: Mapping[str, str]) -> str:
    """Return an error about one of our keys as an error about a key of the family's config.json.

    Args:
        line: The error's line.
        names: Our names of config keys, by the family's.
    """
    for theirs, ours in names.items():
        line = line.replace(f"config key {ours}=", f"config key {theirs}=")
    return line


class Source(NamedTuple):
    """Where a parameter lies in a checkpoint: tensors one below the other, of which `rows` from `begin` on are it."""

    names: tuple[str, ...]
    begin: int = 0


def source(config: LLaDAConfig, name: str) -> Source:
    """Return where one of the network's parameters lies in a checkpoint of its family.

    Args:
        config: The network's, which names the family.
        name: The parameter's name in the network, such as `model.transformer.blocks.0.q_proj.weight`.
    """
    family = FAMILIES[config.family]
    inner = name.removeprefix("model.transformer.")
    if not isinstance(config, NetworkConfig):
        return Source((name,))
    if not inner.startswith("blocks."):
        return Source((family.outer[inner],))
    layer, _, part = inner.removeprefix("blocks.").partition(".")
    sparse = bool(config.n_experts) and int(layer) not in config.dense_layers
    names = {**family.layer, **family.sparse} if sparse else family.layer
    prefix = f"model.layers.{layer}."
    if part in EXPERTS:
        each = [names["experts"].format(expert) for expert in range(config.n_experts)]
        return Source(tuple(f"{prefix}{expert}.{leaf}.weight" for expert in each for leaf in EXPERTS[part]))
    if part in names:
        return Source((prefix + names[part],))
    module, _, leaf = part.rpartition(".")
    begin = 0
    if family.fused and module in FUSED:
        heads = (0, config.n_heads, config.n_heads + config.kv_heads)[FUSED.index(module)]
        begin = heads * config.head_width
    return Source((f"{prefix}{names[module]}.{leaf}",), begin)
