"""Checkpoints as their authors publish them: lists, periods left out, scales, layers to predict."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

from orchestrator.checkpoint import entries
from orchestrator.grow import grow
from orchestrator.grow_config import grown_config
from orchestrator.model_class import mismatches
from sweeps.errors import GrowpointError
from sweeps.growth import Depth, Width, grown
from sweeps.model import from_config, to_config
from tests.integration.test_family_exactness import change
from tests.integration.tiny_families import edit, model_of, saved, tiny, weights

ZEROED = Depth(copies="zeroed")


def config_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return found


def without(folder: Path, *keys: str) -> Path:
    config = {key: value for key, value in config_of(folder).items() if key not in keys}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def with_tensors(folder: Path, **more: torch.Tensor) -> Path:
    path = folder / "model.safetensors"
    save_file({**load_file(path), **more}, path, {"format": "pt"})
    return folder


def test_sizes_listed_for_each_layer_stay_lists(tmp_path: Path) -> None:
    source = saved(tiny("hunyuan_v1_moe"), tmp_path / "source")
    edit(source, num_experts=[8] * 3, moe_topk=[2] * 3, num_shared_expert=[1, 2, 3])
    grow(source, tmp_path / "grown", [Depth(), Width(factor=3)], seed=0)
    after = config_of(tmp_path / "grown")
    assert (after["num_experts"], after["moe_topk"]) == ([24] * 6, [6] * 6)
    assert after["num_shared_expert"] == [1, 1, 2, 2, 3, 3]
    grow(source, tmp_path / "deep", [Depth()], seed=0)
    assert config_of(tmp_path / "deep")["moe_topk"] == [2] * 6


def test_layers_without_positions_stay_those(tmp_path: Path) -> None:
    """Llama 4 spaces them evenly unless they are listed: copies would fall out of step."""
    source = saved(tiny("llama4_text", dense_layers=0), tmp_path / "source")
    edit(source, no_rope_layer_interval=2, interleave_moe_layer_step=1)
    without(source, "no_rope_layers", "layer_types", "moe_layers")
    grow(source, tmp_path / "deep", [ZEROED], seed=0)
    after = config_of(tmp_path / "deep")
    assert after["no_rope_layers"] == [1, 1, 0, 0, 1, 1]
    assert change(source, tmp_path / "deep") == 0.0
    described = AutoConfig.for_model(**after)
    full = "full_attention"
    assert [kind == full for kind in described.layer_types] == [False, False, True, True] + 2 * [
        False
    ]


@pytest.mark.parametrize("dense", [(0, 2), (1,)])
def test_spaced_layers_with_experts_become_a_list(dense: tuple[int, ...], tmp_path: Path) -> None:
    source = saved(tiny("llama4_text", dense_layers=dense), tmp_path / "source")
    if dense == (0, 2):
        edit(source, interleave_moe_layer_step=2)
        without(source, "moe_layers")
    grow(source, tmp_path / "deep", [ZEROED], seed=0)
    sparse = [at for at in range(6) if at // 2 not in dense]
    assert config_of(tmp_path / "deep")["moe_layers"] == sparse
    assert change(source, tmp_path / "deep") == 0.0


@pytest.mark.parametrize("name", ["gpt_oss", "qwen3_next"])
def test_kinds_of_attention_that_config_leaves_out_follow_the_map(
    name: str, tmp_path: Path
) -> None:
    mixers = {"qwen3_next": ("linear_attention", "full_attention") * 2}.get(name, ())
    source = saved(tiny(name, layers=4, mixers=mixers), tmp_path / "source")
    kinds = config_of(source)["layer_types"]
    edit(source, full_attention_interval=2, sliding_window=3)
    without(source, "layer_types")
    grow(source, tmp_path / "deep", [ZEROED], seed=0)
    assert config_of(tmp_path / "deep")["layer_types"] == [kind for kind in kinds for _ in "12"]
    assert change(source, tmp_path / "deep") == 0.0


@pytest.mark.parametrize("layers", [8, 16])
def test_periods_that_hold_stay_as_they_are(layers: int, tmp_path: Path) -> None:
    """Jamba's own periods of 8 and 2 survive stacking; nothing else holds them."""
    usual = tiny("jamba", layers=layers, mixers=(), dense_layers=tuple(range(0, layers, 2)))
    config = to_config(usual)
    periods = {
        "attn_layer_period": 8,
        "attn_layer_offset": 4,
        "expert_layer_period": 2,
        "expert_layer_offset": 1,
    }
    source = {**config, **periods}
    assert from_config(source) == usual
    after = grown_config(source, [Depth(order="stack")])
    assert after == {**source, "num_hidden_layers": 2 * layers}
    bare = {key: value for key, value in source.items() if key not in periods}
    assert from_config(bare) == usual
    with pytest.raises(GrowpointError, match="cannot hold the layers") as caught:
        grown_config(source, [Depth()])
    assert "order=stack" in caught.value.help


def test_tied_embeddings_are_read_under_the_key_of_the_hub(tmp_path: Path) -> None:
    source = saved(tiny("lfm2_moe", tied=True), tmp_path / "source")
    edit(without(source, "tie_word_embeddings"), tie_embedding=True)
    grow(source, tmp_path / "grown", [ZEROED, Width(noise=0)], seed=0)
    assert model_of(tmp_path / "grown").tied
    assert "tie_word_embeddings" not in config_of(tmp_path / "grown")
    assert change(source, tmp_path / "grown") <= 1e-5


@pytest.mark.parametrize(
    ("name", "prefix"), [("qwen3_next", "mtp.layers.0."), ("ernie4_5_moe", "model.mtp_block.0.")]
)
def test_layers_that_only_predict_ahead_are_left_out(
    name: str, prefix: str, tmp_path: Path
) -> None:
    source = saved(tiny(name), tmp_path / "source")
    ahead = {f"{prefix}mlp.gate.weight": torch.ones(8, 32), f"{prefix}norm": torch.ones(32)}
    with_tensors(source, **ahead)
    edit(source, num_nextn_predict_layers=1)
    report = grow(source, tmp_path / "grown", [ZEROED, Width(noise=0)], seed=0)
    assert {*report.dropped} == ahead.keys()
    assert not ahead.keys() & weights(tmp_path / "grown").keys()
    assert change(source, tmp_path / "grown") <= 1e-5


def scaled(folder: Path) -> Path:
    """Block scales beside every 8-bit matrix of the layers, as DeepSeek-V3 is published."""
    path = folder / "model.safetensors"
    found = load_file(path)
    for name, tensor in [*found.items()]:
        if "_proj" in name and tensor.ndim == 2:
            found[name] = tensor.to(torch.float8_e4m3fn)
            found[f"{name}_scale_inv"] = torch.rand(1, 1)
    for name in [name for name in found if "layers.2." in name]:
        found[name.replace("layers.2.", "layers.3.")] = found[name].clone()
    found["model.layers.3.eh_proj.weight"] = torch.ones(32, 64)
    save_file(found, path, {"format": "pt"})
    edit(folder, num_nextn_predict_layers=1, quantization_config={"quant_method": "fp8"})
    return folder


def blocks(folder: Path) -> Path:
    """Experts in packed 4-bit blocks with scales, as gpt-oss is published."""
    path = folder / "model.safetensors"
    found = load_file(path)
    for name in [name for name in found if name.endswith(("gate_up_proj", "down_proj"))]:
        rows = found.pop(name).shape[-1]
        found[f"{name}_blocks"] = torch.randint(0, 255, (8, rows, 1, 16), dtype=torch.uint8)
        found[f"{name}_scales"] = torch.randint(0, 255, (8, rows, 1), dtype=torch.uint8)
    save_file(found, path, {"format": "pt"})
    return folder


def origin(name: str) -> str:
    """The source's tensor of a network that is twice as deep and twice as wide."""
    layered = re.sub(r"layers\.(\d+)", lambda found: f"layers.{int(found[1]) // 2}", name)
    return re.sub(r"experts\.(\d+)", lambda found: f"experts.{int(found[1]) % 8}", layered)


@pytest.mark.parametrize(("name", "publish"), [("deepseek_v3", scaled), ("gpt_oss", blocks)])
def test_quantised_checkpoints_grow_by_their_bytes(
    name: str, publish: Callable[[Path], Path], tmp_path: Path
) -> None:
    source = publish(saved(tiny(name), tmp_path / "source"))
    operators: list[Depth | Width] = [Depth(), Width(noise=0)]
    grow(source, tmp_path / "grown", operators, seed=0)
    config = config_of(tmp_path / "grown")
    assert from_config(config) == grown(tiny(name), operators)
    found = {name: entry.shape for name, entry in entries(tmp_path / "grown").items()}
    assert mismatches(found, config) == []
    before, after = weights(source), weights(tmp_path / "grown")
    for name, tensor in after.items():
        same = before[origin(name)].view(torch.uint8)
        assert torch.equal(tensor.view(torch.uint8)[: len(same)], same)
    with pytest.raises(GrowpointError, match="quantised"):
        grow(source, tmp_path / "noisy", [Width()], seed=0)
