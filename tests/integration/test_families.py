"""What conf/family says of each architecture is what transformers builds, writes and reads."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig

from orchestrator.checkpoint import entries
from sweeps import family as families
from sweeps.errors import GrowpointError
from sweeps.layers import structural_keys
from sweeps.model import Model, from_config, parameters, tensors, to_config
from tests.integration.tiny_families import ALL, DESCRIBED, REFUSED, network, saved, tiny

EVERY = [*ALL, *REFUSED]


def on_disk(folder: Path) -> dict[str, tuple[int, ...]]:
    return {name: entry.shape for name, entry in entries(folder).items()}


@pytest.mark.parametrize("stacked", [False, True], ids=["separate", "stacked"])
@pytest.mark.parametrize("name", EVERY)
def test_names_and_shapes_are_those_on_disk(name: str, stacked: bool, tmp_path: Path) -> None:
    model = tiny(name)
    folder = saved(model, tmp_path / "checkpoint", stacked=stacked)
    assert on_disk(folder) == {tensor.name: tensor.shape for tensor in tensors(model, stacked)}


@pytest.mark.parametrize("name", EVERY)
def test_the_saved_config_gives_the_model_back(name: str, tmp_path: Path) -> None:
    model = tiny(name)
    network(model).config.save_pretrained(tmp_path)
    assert from_config(json.loads((tmp_path / "config.json").read_text())) == model


@pytest.mark.parametrize("name", EVERY)
def test_parameters_are_counted_as_torch_counts_them(name: str) -> None:
    model = tiny(name)
    counted = sum(parameter.numel() for parameter in network(model).parameters())
    assert parameters(model).total == counted


@pytest.mark.parametrize("name", DESCRIBED)
def test_defaults_are_those_of_the_model_class(name: str) -> None:
    """A key that a config.json leaves out means the class's default: ours must be the same."""
    family = families.load(name)
    defaults = AutoConfig.for_model(family.model_type).to_dict()
    stated = family.settings.keys() - family.derived.keys()
    assert {key: defaults.get(key, "absent") for key in stated} == {
        key: family.settings[key] for key in stated
    }


def test_settings_that_follow_from_sizes_are_computed() -> None:
    rank = "mamba.dt_proj.weight"
    for hidden in (32, 40):
        sizes: dict[str, Any] = {
            "hidden": hidden,
            "head_dim": hidden // 4,
            "mixers": ("mamba",) * 3,
        }
        model = tiny("jamba", settings={}, **sizes)
        of_class = AutoConfig.for_model(**to_config(model)).mamba_dt_rank
        shapes = {tensor.shape for tensor in tensors(model) if tensor.name.endswith(rank)}
        assert shapes == {(2 * hidden, of_class)}
        assert tiny("jamba", settings={"mamba_dt_rank": of_class}, **sizes) == model
        assert tiny("jamba", settings={"mamba_dt_rank": of_class + 1}, **sizes) != model


def described(config: dict[str, Any]) -> Model | None:
    """What config.json describes; None if we cannot tell."""
    try:
        return from_config(config)
    except GrowpointError:
        return None


@pytest.mark.parametrize("name", EVERY)
def test_keys_left_out_mean_what_the_class_takes(name: str) -> None:
    """Whichever key is left out, we say what transformers would build, or nothing."""
    config = to_config(tiny(name))
    family = families.of_model_type(config["model_type"])
    keys = {key for keys in family.config.values() for key in keys} | structural_keys(family)
    for key in {*keys, *family.defaults, *family.settings} & config.keys():
        without = {other: value for other, value in config.items() if other != key}
        with suppress(StrictDataclassError):  # nor does the class take every rest
            of_class = AutoConfig.for_model(**without).to_dict()
            assert described(without) in (None, described(of_class)), key


@pytest.mark.parametrize("name", DESCRIBED)
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
