"""What conf/family says of each architecture is what transformers builds, writes and reads."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from orchestrator.checkpoint import entries
from sweeps import family as families
from sweeps.model import Model, from_config, parameters, tensors, to_config
from tests.integration.tiny_families import ALL, FAMILIES, network, saved, tiny


def on_disk(folder: Path) -> dict[str, tuple[int, ...]]:
    return {name: entry.shape for name, entry in entries(folder).items()}


@pytest.mark.parametrize("stacked", [False, True], ids=["separate", "stacked"])
@pytest.mark.parametrize("name", ALL)
def test_names_and_shapes_are_those_on_disk(name: str, stacked: bool, tmp_path: Path) -> None:
    model = tiny(name)
    folder = saved(model, tmp_path / "checkpoint", stacked=stacked)
    assert on_disk(folder) == {tensor.name: tensor.shape for tensor in tensors(model, stacked)}


@pytest.mark.parametrize("name", ALL)
def test_the_saved_config_gives_the_model_back(name: str, tmp_path: Path) -> None:
    model = tiny(name)
    network(model).config.save_pretrained(tmp_path)
    assert from_config(json.loads((tmp_path / "config.json").read_text())) == model


@pytest.mark.parametrize("name", ALL)
def test_parameters_are_counted_as_torch_counts_them(name: str) -> None:
    model = tiny(name)
    counted = sum(parameter.numel() for parameter in network(model).parameters())
    assert parameters(model).total == counted


@pytest.mark.parametrize("name", FAMILIES)
def test_defaults_are_those_of_the_model_class(name: str) -> None:
    """A key that a config.json leaves out means the class's default: ours must be the same."""
    family = families.load(name)
    defaults = AutoConfig.for_model(family.model_type).to_dict()
    assert {key: defaults.get(key, "absent") for key in family.settings} == family.settings


@pytest.mark.parametrize("name", FAMILIES)
def test_tied_networks_have_no_head_on_disk(name: str, tmp_path: Path) -> None:
    model = tiny(name, tied=True)
    folder = saved(model, tmp_path / "checkpoint")
    assert on_disk(folder) == {tensor.name: tensor.shape for tensor in tensors(model)}
    counted = sum(parameter.numel() for parameter in network(model).parameters())
    assert parameters(model).total == counted


def test_qwen3_is_read_under_the_key_of_the_hub_and_that_of_transformers() -> None:
    config = to_config(tiny("qwen3_moe"))
    hub = {**config, "num_experts": 8}
    hub.pop("num_local_experts", None)
    saved_by_transformers = {**hub, "num_local_experts": hub["num_experts"]}
    del saved_by_transformers["num_experts"]
    assert from_config(hub) == from_config(saved_by_transformers) == tiny("qwen3_moe")


COLUMNS = """layers hidden heads kv_heads experts top_k expert_hidden vocabulary
    dense_layers dense_hidden"""


def published(family: str, sizes: str) -> Model:
    numbers: dict[str, Any] = dict(zip(COLUMNS.split(), map(int, sizes.split()), strict=True))
    return Model(family=family, head_dim=128, **numbers)


# Sizes of public checkpoints, and their authors' counts in billions: all, used for a token.
PUBLISHED = {
    "OLMoE-1B-7B": ("olmoe", "16 2048 16 16 64 8 1024 50304 0 0", 6.9, 1.3),
    "Mixtral-8x7B": ("mixtral", "32 4096 32 8 8 2 14336 32000 0 0", 46.7, 12.9),
    "Qwen1.5-MoE-A2.7B": ("qwen2_moe", "24 2048 16 16 60 4 1408 151936 0 5632", 14.3, 2.7),
    "Qwen3-30B-A3B": ("qwen3_moe", "48 2048 32 4 128 8 768 151936 0 6144", 30.5, 3.3),
    "DeepSeek-V3": ("deepseek_v3", "61 7168 128 128 256 8 2048 129280 3 18432", 671, 37),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes_have_the_published_counts(name: str) -> None:
    family, sizes, total, active = PUBLISHED[name]
    found = parameters(published(family, sizes))
    assert found.total / 1e9 == pytest.approx(total, rel=0.005)
    assert found.active / 1e9 == pytest.approx(active, rel=0.03)
