"""A tiny random network of every family, as transformers makes and saves it."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from sweeps import family as families
from sweeps.model import Model, Setting, from_config, to_config

# Settings whose defaults are too large for a tiny network, or unset.
SETTINGS: dict[str, dict[str, Setting]] = {
    "deepseek_v2": {
        "q_lora_rank": 12,
        "kv_lora_rank": 8,
        "qk_nope_head_dim": 8,
        "qk_rope_head_dim": 4,
    },
    "deepseek_v3": {
        "q_lora_rank": 12,
        "kv_lora_rank": 8,
        "qk_nope_head_dim": 8,
        "qk_rope_head_dim": 4,
        "n_group": 2,
        "topk_group": 1,
    },
    "dots1": {"n_shared_experts": 1},
    "qwen2_moe": {"shared_expert_intermediate_size": 24},
    "granitemoeshared": {"shared_intermediate_size": 24},
    "qwen3_next": {
        "shared_expert_intermediate_size": 24,
        "linear_key_head_dim": 4,
        "linear_value_head_dim": 2,
        "linear_num_key_heads": 1,
        "linear_num_value_heads": 2,
    },
    "jamba": {"mamba_d_state": 4, "mamba_d_conv": 3, "mamba_dt_rank": 6},
    "longcat_flash": {
        "zero_expert_num": 2,
        "ffn_hidden_size": 24,
        "q_lora_rank": 12,
        "kv_lora_rank": 8,
        "qk_nope_head_dim": 8,
        "qk_rope_head_dim": 4,
    },
}

# Sizes of a family or variant, where layers differ in more than a dense first one.
SIZES: dict[str, dict[str, Any]] = {
    "qwen3_next": {"mixers": ("linear_attention", "full_attention", "linear_attention")},
    "lfm2_moe": {"mixers": ("conv", "full_attention", "conv")},
    # Only layers of one kind can be interposed, and the class needs one with attention.
    "jamba": {"mixers": ("attention",) * 3},
    "jamba, two periods": {
        "layers": 4,
        "dense_layers": (0, 2),
        "mixers": ("mamba", "mamba", "attention", "mamba"),
    },
    "qwen3_moe, dense in between": {"dense_layers": (0, 2)},
    "qwen3_next, dense in between": {"dense_layers": (1,)},
    "llama4_text, dense in between": {"dense_layers": (0, 2)},
    "ernie4_5_moe, every other": {"layers": 4, "dense_layers": (0, 2)},
}

# Further variants of a family, whose tensors or routing differ from its defaults.
VARIANTS: dict[str, tuple[str, dict[str, Setting]]] = {
    "olmoe, normalised": ("olmoe", {"norm_topk_prob": True, "attention_bias": True}),
    "qwen2_moe, normalised, plain": ("qwen2_moe", {"norm_topk_prob": True, "qkv_bias": False}),
    "qwen3_moe, normalised, biases": (
        "qwen3_moe",
        {"norm_topk_prob": True, "attention_bias": True},
    ),
    "deepseek_v2, whole queries": ("deepseek_v2", {"q_lora_rank": None}),
    "deepseek_v2, groups, biases": (
        "deepseek_v2",
        {
            "topk_method": "group_limited_greedy",
            "n_group": 4,
            "topk_group": 2,
            "routed_scaling_factor": 3.0,
            "attention_bias": True,
        },
    ),
    "deepseek_v3, not normalised": ("deepseek_v3", {"norm_topk_prob": False}),
    "ernie4_5_moe, biases": ("ernie4_5_moe", {"use_bias": True}),
    "gpt_oss, no biases": ("gpt_oss", {"attention_bias": False}),
    "granitemoe, biases": ("granitemoe", {"attention_bias": True}),
    "deepseek_v2, biases": ("deepseek_v2", {"mlp_bias": True, "attention_bias": True}),
    "glm4_moe, normalised queries": ("glm4_moe", {"use_qk_norm": True, "attention_bias": True}),
    "dots1, normalised": ("dots1", {"norm_topk_prob": True}),
    "granitemoeshared, biases, none shared": (
        "granitemoeshared",
        {"attention_bias": True, "shared_intermediate_size": 0},
    ),
    "hunyuan_v1_moe, biases": ("hunyuan_v1_moe", {"attention_bias": True}),
    "llama4_text, biases": ("llama4_text", {"attention_bias": True, "use_qk_norm": False}),
    "llama4_text, dense in between": ("llama4_text", {}),
    "qwen3_moe, dense in between": ("qwen3_moe", {}),
    "qwen3_next, dense in between": ("qwen3_next", {"attention_bias": True}),
    "qwen3_next, not normalised": ("qwen3_next", {"norm_topk_prob": False}),
    "ernie4_5_moe, every other": ("ernie4_5_moe", {}),
    "lfm2_moe, not normalised": (
        "lfm2_moe",
        {"norm_topk_prob": False, "routed_scaling_factor": 2.0, "conv_bias": True},
    ),
    "lfm2_moe, no bias that selects": ("lfm2_moe", {"use_expert_bias": False}),
    "jamba, two periods": ("jamba", {"mamba_proj_bias": True, "mamba_conv_bias": False}),
}
# Those whose config.json can only say periods: their layers are stacked, not interposed.
PERIODIC = ("jamba, two periods", "ernie4_5_moe, every other")
# Those that can be grown in every way; the others are described for what they can do.
DESCRIBED = families.known()
FAMILIES = [name for name in DESCRIBED if "width" not in families.load(name).refuses]
REFUSED = [name for name in DESCRIBED if name not in FAMILIES]
ALL = [*FAMILIES, *VARIANTS]


def tiny(name: str, **changes: Any) -> Model:
    """A tiny Model of a family or variant; the first of three layers is dense if that can be."""
    family, more = VARIANTS.get(name, (name, {}))
    described = families.load(family)
    dense = "dense_hidden" in described.config
    sizes: dict[str, Any] = {
        "layers": 3,
        "hidden": 32,
        "heads": 4,
        "kv_heads": 4 if "q_lora_rank" in described.settings else 2,
        "head_dim": 8,
        "experts": 8,
        "top_k": 2,
        "expert_hidden": 16,
        "vocabulary": 64,
        "positions": 64,
        "dense_layers": int(dense),
        "dense_hidden": 24 if dense else 0,
        "settings": {**SETTINGS.get(family, {}), **more},
        **SIZES.get(family, {}),
        **SIZES.get(name, {}),
    }
    return Model(family=family, **{**sizes, **changes})


def network(model: Model, seed: int = 0) -> PreTrainedModel:
    """A network with weights large enough that routing and biases matter."""
    torch.manual_seed(seed)
    made: PreTrainedModel = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(**to_config(model)), dtype=torch.float32
    )
    with torch.no_grad():
        for name, tensor in [*made.named_parameters(), *made.named_buffers()]:
            if "inv_freq" not in name:
                mean = 1.0 if "norm" in name and tensor.ndim == 1 else 0.0
                tensor.normal_(mean, 0.15)
    return made.eval()


def saved(model: Model, folder: Path, seed: int = 0, stacked: bool = False) -> Path:
    """The network as `save_pretrained` writes it."""
    network(model, seed).save_pretrained(folder, save_original_format=not stacked)
    return folder


def logits(folder: Path) -> torch.Tensor:
    """Single-precision logits of a checkpoint for fixed tokens, [2, 24, vocabulary]."""
    made = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokens = torch.randint(0, 64, (2, 24), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found: torch.Tensor = made(tokens).logits
    return found


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            found |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return found


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def model_of(folder: Path) -> Model:
    return from_config(json.loads((folder / "config.json").read_text()))


def as_dtype(folder: Path, dtype: torch.dtype) -> Path:
    path = folder / "model.safetensors"
    converted = {name: tensor.to(dtype) for name, tensor in load_file(path).items()}
    save_file(converted, path, {"format": "pt"})
    return folder


def edit(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def quantised(folder: Path) -> Path:
    path = folder / "model.safetensors"
    found = load_file(path)
    for name in [name for name in found if ".experts." in name]:
        found[name] = found[name].to(torch.float8_e4m3fn)
        found[name.replace(".weight", ".weight_scale_inv")] = torch.full((1, 1), 0.5)
    save_file(found, path, {"format": "pt"})
    return folder
