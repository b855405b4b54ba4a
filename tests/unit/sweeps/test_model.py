"""Models: sizes that fit each other, counts that follow from shapes, config.json both ways."""

from math import prod
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps import family as families
from sweeps.errors import GrowpointError
from sweeps.model import Model, dense_indices, from_config, parameters, tensors, to_config
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


@pytest.mark.parametrize("config", [{"mlp_only_layers": [1]}, {"decoder_sparse_step": 2}])
def test_dense_layers_in_between_cannot_be_described(config: dict[str, object]) -> None:
    whole = {**to_config(model("qwen3_moe", dense_layers=0)), **config}
    with pytest.raises(GrowpointError, match="dense layers"):
        from_config(whole)


def test_key_value_heads_default_to_heads() -> None:
    config = to_config(model("mixtral", kv_heads=4))
    del config["num_key_value_heads"], config["head_dim"]
    assert from_config(config) == Model(**model("mixtral", kv_heads=4).model_dump())
