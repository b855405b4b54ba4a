"""Models: sizes that fit each other, counts that follow from shapes, config.json both ways."""

from math import prod
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps import family as families
from sweeps.errors import GrowpointError
from sweeps.layers import can_hold, dense_indices, mapped
from sweeps.model import deepened, from_config, parameters, tensors, to_config
from sweeps.schema import asked, canonical
from tests.unit.sweeps.test_growth import model


@pytest.mark.parametrize("family", families.known())
def test_config_goes_both_ways(family: str) -> None:
    assert from_config(to_config(model(family))) == model(family)


@pytest.mark.parametrize("family", families.known())
def test_tensor_names_are_unique_and_found_again(family: str) -> None:
    described = families.load(family)
    for stacked in (False, True):
        listed = list(tensors(model(family), stacked))
        assert len({tensor.name for tensor in listed}) == len(listed)
        for tensor in listed:
            place = families.place(described, tensor.name)
            assert place is not None
            found = place.section, place.layer, place.expert
            assert found == (tensor.section, tensor.layer, tensor.expert)


@pytest.mark.parametrize("family", families.known())
def test_both_layouts_hold_as_many_numbers(family: str) -> None:
    layouts = (tensors(model(family), stacked) for stacked in (False, True))
    one, other = (sum(prod(tensor.shape) for tensor in layout) for layout in layouts)
    assert one == other


@given(st.integers(1, 5), st.integers(1, 16))
def test_active_parameters_count_top_k_experts(top_k: int, more: int) -> None:
    experts = top_k + more
    found = parameters(model(experts=experts, top_k=top_k))
    each = 6 * 3 * 32 * 64
    assert found.total - found.active == each * (experts - top_k)
    assert found.active - found.multiplied == 128 * 64 + 64 + 6 * (2 * 64 + 2 * 64)


@pytest.mark.parametrize(
    "wrong", [{"top_k": 9}, {"dense_layers": 7}, {"kv_heads": 3}, {"layers": 0}]
)
def test_sizes_that_do_not_fit_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        model(**wrong)


def test_sizes_that_a_family_cannot_say_are_refused() -> None:
    with pytest.raises(GrowpointError, match="heads of hidden / heads"):
        to_config(model(head_dim=8))
    with pytest.raises(GrowpointError, match="no dense layers"):
        parameters(model(dense_layers=1, dense_hidden=32))


def test_missing_sizes_are_named() -> None:
    config = to_config(model())
    del config["num_experts"]
    with pytest.raises(GrowpointError, match="lacks sizes") as caught:
        from_config(config)
    assert "experts" in caught.value.text()


def test_unknown_architectures_are_named() -> None:
    with pytest.raises(GrowpointError, match="`gpt2`") as caught:
        from_config({"model_type": "gpt2"})
    assert "olmoe" in caught.value.text()


def test_settings_at_their_default_are_left_out() -> None:
    config = to_config(model(settings={"norm_topk_prob": True}))
    assert from_config(config).settings == {"norm_topk_prob": True}
    assert from_config({**config, "norm_topk_prob": False}).settings == {}
    assert model(settings={"norm_topk_prob": False}) == model()


@pytest.mark.parametrize(
    ("config", "dense"),
    [
        ({"mlp_only_layers": [0, 1]}, 2),
        ({"decoder_sparse_step": 1}, 0),
        ({"mlp_only_layers": None}, 0),
    ],
)
def test_leading_dense_layers_are_read(config: dict[str, object], dense: int) -> None:
    whole = {**to_config(model("qwen3_moe", dense_layers=0)), **config}
    assert from_config(whole).dense_layers == dense
    assert len(dense_indices(whole, families.load("qwen3_moe"), 6)) == dense


@pytest.mark.parametrize(
    ("config", "dense"),
    [
        ({"mlp_only_layers": [1]}, (1,)),
        ({"decoder_sparse_step": 2}, (0, 2, 4)),
        ({"decoder_sparse_step": 2, "mlp_only_layers": [1]}, (0, 1, 2, 4)),
        ({"decoder_sparse_step": 3, "mlp_only_layers": [2, 5]}, 6),
    ],
)
def test_dense_layers_in_between_are_listed(config: dict[str, object], dense: object) -> None:
    whole = {**to_config(model("qwen3_moe", dense_layers=0)), **config}
    found = from_config(whole)
    assert found.dense_layers == dense
    assert from_config(to_config(found)) == found


def test_key_value_heads_are_as_many_as_heads_if_the_class_has_no_other_number() -> None:
    config = to_config(model("granitemoe", kv_heads=4))
    del config["num_key_value_heads"]
    assert from_config(config).kv_heads == 4
    config = to_config(model("mixtral", heads=8, kv_heads=8, head_dim=8))
    del config["num_key_value_heads"], config["head_dim"]
    assert from_config(config) == model("mixtral", heads=8, kv_heads=8, head_dim=8)


def test_a_prefix_of_dense_layers_has_one_description() -> None:
    counted = model("qwen3_moe", dense_layers=2)
    assert model("qwen3_moe", dense_layers=(1, 0)) == counted
    assert canonical(asked(model("qwen3_moe", dense_layers=[0, 1]))) == canonical(asked(counted))
    listed = model("qwen3_moe", dense_layers=(1, 3))
    assert listed.dense == {1, 3}
    assert [listed.is_dense(layer) for layer in range(6)] == [False, True, False, True] + [
        False
    ] * 2
    assert [counted.is_dense(layer) for layer in range(3)] == [True, True, False]


@pytest.mark.parametrize("wrong", [{"dense_layers": (6,)}, {"dense_layers": (-1,)}])
def test_dense_layers_lie_within_the_network(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        model("qwen3_moe", **wrong)


def test_mixers_are_the_familys_pattern_unless_given() -> None:
    usual = model("qwen3_next")
    assert usual.mixers[:4] == ("linear_attention",) * 3 + ("full_attention",)
    assert len(usual.mixers) == usual.layers == 6
    words = ("full_attention",) * 6
    assert to_config(model("qwen3_next", mixers=words))["layer_types"] == [*words]
    with pytest.raises(ValueError, match="one for each"):
        model("qwen3_next", mixers=words[:3])
    with pytest.raises(GrowpointError, match="no layers of this kind"):
        to_config(model("qwen3_next", mixers=("mamba",) * 6))
    with pytest.raises(GrowpointError, match="no layers of this kind"):
        to_config(model("olmoe", mixers=("mamba",) * 6))


def test_settings_cannot_say_what_layers_are() -> None:
    with pytest.raises(GrowpointError, match="settings cannot say") as caught:
        to_config(model("qwen3_moe", settings={"decoder_sparse_step": 2}))
    assert "decoder_sparse_step" in caught.value.text()


def test_sizes_listed_for_each_layer_are_read_if_they_agree() -> None:
    config = to_config(model("hunyuan_v1_moe"))
    listed = {**config, "num_experts": [8] * 6, "moe_topk": [2] * 6}
    assert from_config(listed) == model("hunyuan_v1_moe")
    with pytest.raises(GrowpointError, match="whose sizes differ") as caught:
        from_config({**listed, "moe_topk": [2, 2, 2, 2, 2, 4]})
    assert "moe_topk" in caught.value.text()


@pytest.mark.parametrize(
    ("family", "absent", "dense"),
    [("deepseek_v3", "first_k_dense_replace", 3), ("lfm2_moe", "num_dense_layers", 2)],
)
def test_a_missing_key_means_the_classs_default(family: str, absent: str, dense: int) -> None:
    config = to_config(model(family))
    del config[absent]
    assert from_config(config).dense_layers == dense


@pytest.mark.parametrize(
    ("changed", "dense"),
    [
        ({"moe_layer_start_index": 3}, 3),
        ({"moe_layer_end_index": 4}, (0, 5)),
        ({"moe_layer_interval": 2}, (0, 2, 4)),
        ({"moe_layer_interval": 2, "moe_layer_start_index": 2}, (0, 1, 2, 4)),
        ({"moe_layer_start_index": 0, "moe_layer_end_index": 0}, (1, 2, 3, 4, 5)),
        ({"moe_layer_start_index": 6}, 6),
    ],
)
def test_starts_ends_and_intervals_go_both_ways(changed: dict[str, int], dense: object) -> None:
    found = from_config({**to_config(model("ernie4_5_moe")), **changed})
    assert found.dense_layers == dense
    assert from_config(to_config(found)) == found


DENSE = st.sets(st.integers(0, 7))


@given(dense=DENSE, family=st.sampled_from(["qwen3_moe", "llama4_text", "qwen3_next"]))
def test_families_with_lists_hold_any_layers(dense: set[int], family: str) -> None:
    described = model(family, layers=8, dense_layers=tuple(dense))
    assert described.dense == dense
    assert from_config(to_config(described)) == described
    names = {tensor.name for tensor in tensors(described) if tensor.section == "router"}
    assert {int(name.split(".")[2]) for name in names} == set(range(8)) - dense


@given(
    dense=DENSE, attention=DENSE, family=st.sampled_from(["jamba", "ernie4_5_moe", "deepseek_v3"])
)
def test_families_with_periods_hold_what_their_config_can_say(
    dense: set[int], attention: set[int], family: str
) -> None:
    """Either config.json gives the very same network back, or it is refused."""
    words = tuple("attention" if layer in attention else "mamba" for layer in range(8))
    mixers = words if family == "jamba" else ()
    described = model(family, layers=8, dense_layers=tuple(dense), mixers=mixers)
    if can_hold(described.dense, 8, mixers, families.load(family)):
        assert from_config(to_config(described)) == described
    else:
        with pytest.raises(GrowpointError, match="can describe these layers"):
            to_config(described)


@given(
    source=st.lists(st.integers(0, 5), min_size=1, max_size=14),
    family=st.sampled_from(families.known()),
)
def test_deepened_networks_have_the_layers_of_their_sources(source: list[int], family: str) -> None:
    before = model(family)
    dense, mixers = mapped(before.dense, before.mixers, source)
    if not can_hold(dense, len(source), mixers, families.load(family)):
        with pytest.raises(GrowpointError, match="cannot hold the layers"):
            deepened(before, source)
        return
    after = deepened(before, source)
    assert after.layers == len(source)
    assert [after.is_dense(at) for at in range(len(source))] == [*map(before.is_dense, source)]
    assert after.mixers == tuple(before.mixers[layer] for layer in source if before.mixers)
    assert from_config(to_config(after)) == after


@pytest.mark.parametrize(
    ("family", "sizes", "way"),
    [
        ("deepseek_v3", {"dense_layers": 1}, "growth.0.keep_first=1"),
        (
            "jamba",
            {"dense_layers": (0, 2, 4), "mixers": ("mamba", "mamba", "attention") * 2},
            "growth.0.order=stack",
        ),
    ],
)
def test_what_a_family_cannot_hold_is_refused_with_what_it_can(
    family: str, sizes: dict[str, Any], way: str
) -> None:
    before = model(family, settings={}, **sizes)
    twice = [layer for layer in range(6) for _ in range(2)]
    source = [*range(6)] * 2 if family == "deepseek_v3" else twice
    with pytest.raises(GrowpointError, match="cannot hold the layers") as caught:
        deepened(before, source)
    assert caught.value.help.startswith(way)
    first = 1 if "keep_first" in way else 0
    held = [*range(first), *twice[2 * first :]] if first else [*range(6)] * 2
    assert deepened(before, held).layers == len(held)
