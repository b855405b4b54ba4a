"""Growth operators as index maps: onto, of the right length, and what sizes follow."""

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import conf
from sweeps import family as families
from sweeps.errors import GrowpointError
from sweeps.growth import Depth, Width, expert_map, first_occurrences, grown, layer_map
from sweeps.model import Model, from_config, parameters, to_config

FACTORS = st.integers(2, 5)
EDGES = st.integers(0, 4)
LAYERS = st.integers(1, 40)
ORDERS = st.sampled_from(["interpose", "stack"])
WIDER = [name for name in families.known() if "width" not in families.load(name).refuses]


def depths() -> st.SearchStrategy[Depth]:
    return st.builds(Depth, order=ORDERS, factor=FACTORS, keep_first=EDGES, keep_last=EDGES)


def model(family: str = "olmoe", **changes: Any) -> Model:
    described = families.load(family)
    dense = "dense_layers" in described.config or described.dense_list is not None
    sizes = {
        "layers": 6, "hidden": 64, "heads": 4, "kv_heads": 4, "head_dim": 16, "experts": 8,
        "top_k": 2, "expert_hidden": 32, "vocabulary": 128,
        "dense_layers": int(dense), "dense_hidden": 48 * dense,
        "settings": {"n_shared_experts": 1} if "n_shared_experts" in described.settings else {},
    }  # fmt: skip
    return Model(family=family, **{**sizes, **changes})


@given(depth=depths(), layers=LAYERS)
def test_depth_maps_are_onto_and_keep_edges_single(depth: Depth, layers: int) -> None:
    middle = layers - depth.keep_first - depth.keep_last
    assume(middle > 0)
    source = depth.source_of(layers)
    times = Counter(source)
    assert set(times) == set(range(layers))
    assert len(source) == depth.keep_first + middle * depth.factor + depth.keep_last
    for layer in range(layers):
        edge = layer < depth.keep_first or layer >= layers - depth.keep_last
        assert times[layer] == (1 if edge else depth.factor)
    assert source[: depth.keep_first] == tuple(range(depth.keep_first))
    assert source[len(source) - depth.keep_last :] == tuple(range(layers - depth.keep_last, layers))


@given(depth=depths(), layers=LAYERS)
def test_interposed_layers_stay_in_order_stacked_start_again(depth: Depth, layers: int) -> None:
    assume(layers - depth.keep_first - depth.keep_last > 1)
    source = depth.source_of(layers)
    falls = sum(after < before for before, after in pairwise(source))
    assert falls == (0 if depth.order == "interpose" else depth.factor - 1)


@given(factor=FACTORS, experts=st.integers(1, 64))
def test_width_maps_are_onto_and_append_copies(factor: int, experts: int) -> None:
    source = Width(factor=factor).source_of(experts)
    assert len(source) == factor * experts
    assert source[:experts] == tuple(range(experts))
    assert Counter(source) == dict.fromkeys(range(experts), factor)
    assert sum(first_occurrences(source)) == experts
    assert all(first_occurrences(source)[:experts])


@given(layers=st.integers(1, 8), first=st.integers(0, 8), more=EDGES)
def test_growing_no_layer_is_refused(layers: int, first: int, more: int) -> None:
    last = max(0, layers - first) + more
    with pytest.raises(GrowpointError, match="keeps every layer single"):
        Depth(keep_first=first, keep_last=last).source_of(layers)


CHAIN = st.lists(st.one_of(depths(), st.builds(Width, factor=st.integers(2, 3))), max_size=3)


@given(operators=CHAIN)
def test_maps_of_a_chain_have_the_sizes_of_the_grown_model(operators: list[Depth | Width]) -> None:
    before = model(layers=12)
    try:
        after = grown(before, operators)
    except GrowpointError:
        assume(False)
    layers, experts = layer_map(12, operators), expert_map(8, operators)
    assert (after.layers, after.experts) == (len(layers), len(experts))
    assert (set(layers), set(experts)) == (set(range(12)), set(range(8)))
    assert after.top_k / after.experts == before.top_k / before.experts


WIDTHS = st.builds(
    Width,
    factor=FACTORS,
    top_k=st.sampled_from(["scaled", "kept"]),
    order=st.sampled_from(["appended", "interleaved"]),
) | st.builds(Width, factor=FACTORS, experts=st.just("kept"))


@given(depth=depths(), width=WIDTHS)
@pytest.mark.parametrize("family", WIDER)
def test_depth_and_width_commute_on_sizes(family: str, depth: Depth, width: Width) -> None:
    before = model(family, layers=12)
    one, other = held(before, [depth, width]), held(before, [width, depth])
    assert one == other
    assert one is None or parameters(one).total > parameters(before).total


def held(before: Model, operators: list[Depth | Width]) -> Model | None:
    """The grown model; None if its family cannot hold it."""
    try:
        return grown(before, operators)
    except GrowpointError:
        return None


@given(factor=FACTORS)
@pytest.mark.parametrize("family", WIDER)
def test_a_grown_model_is_what_its_config_says(family: str, factor: int) -> None:
    after = grown(model(family), [Width(factor=factor)])
    assert from_config(to_config(after)) == after


@pytest.mark.parametrize("family", sorted({*families.known()} - {*WIDER}))
def test_families_that_cannot_be_wider_say_why(family: str) -> None:
    with pytest.raises(GrowpointError, match="cannot grow by width") as caught:
        grown(model(family), [Width()])
    assert families.load(family).refuses["width"] in dict(caught.value.evidence).values()


def test_experts_and_top_k_grow_together_or_apart() -> None:
    sizes = {
        "both": Width(factor=3),
        "experts alone": Width(factor=3, top_k="kept"),
        "top-k alone": Width(factor=3, experts="kept"),
        "nothing": Width(factor=1),
    }
    made = {name: grown(model(), [width]) for name, width in sizes.items()}
    assert {name: (after.experts, after.top_k) for name, after in made.items()} == {
        "both": (24, 6),
        "experts alone": (24, 2),
        "top-k alone": (8, 6),
        "nothing": (8, 2),
    }
    assert made["nothing"] == model()
    assert parameters(made["top-k alone"]).total == parameters(model()).total


def test_a_token_cannot_use_more_experts_than_there_are() -> None:
    assert grown(model(), [Width(factor=4, experts="kept")]).top_k == 8
    with pytest.raises(GrowpointError, match="more experts than there are") as caught:
        grown(model(), [Width(factor=5, experts="kept")])
    assert caught.value.help.startswith("growth.0.factor=4")


def test_a_network_without_experts_cannot_be_wider() -> None:
    dense = model("deepseek_v3", dense_layers=6)
    assert grown(dense, [Depth()]).dense_layers == 12
    with pytest.raises(GrowpointError, match="no layer with experts"):
        grown(dense, [Width()])


def test_experts_must_divide_into_their_groups() -> None:
    for width in (Width(), Width(order="interleaved"), Width(top_k="kept")):
        with pytest.raises(GrowpointError, match="do not divide into routing groups") as caught:
            grown(model("deepseek_v2", experts=10, settings={"n_group": 4}), [width])
        assert dict(caught.value.evidence)["n_group"] == "4"
    # Top-k alone leaves the groups as they are.
    uneven = model("deepseek_v2", experts=10, settings={"n_group": 4})
    assert grown(uneven, [Width(experts="kept")]).settings["n_group"] == 4


def test_interleaved_copies_stay_in_the_groups_of_their_originals() -> None:
    settings = {"n_group": 4, "topk_group": 2, "topk_method": "group_limited_greedy"}
    before = model("deepseek_v2", settings=settings)
    after = grown(before, [Width(factor=3, order="interleaved")])
    assert after.settings == before.settings
    assert (after.experts, after.top_k) == (24, 6)


@pytest.mark.parametrize("family", ["deepseek_v3", "glm4_moe", "dots1"])
def test_groups_scored_by_two_experts_cannot_be_interleaved(family: str) -> None:
    grouped = model(family, settings={"n_group": 4, "topk_group": 2})
    with pytest.raises(GrowpointError, match="cannot hold interleaved copies") as caught:
        grown(grouped, [Width(order="interleaved")])
    assert "best two" in caught.value.text()
    single = model(family, settings={"n_group": 1, "topk_group": 1})
    assert grown(single, [Width(order="interleaved")]).experts == 16


@given(first=WIDTHS, second=WIDTHS, layers=st.integers(2, 12))
def test_maps_of_widths_compose(first: Width, second: Width, layers: int) -> None:
    before = model(layers=layers, experts=4, top_k=1)
    try:
        after = grown(before, [first, second])
    except GrowpointError:
        assume(False)
    source = expert_map(4, [first, second])
    inner = first.source_of(4)
    assert source == tuple(inner[index] for index in second.source_of(len(inner)))
    assert len(source) == after.experts


def test_zeroed_copies_are_refused_where_they_do_not_keep_the_function(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(families.CONFIG_FOLDER_VARIABLE, str(tmp_path))
    (tmp_path / "family").mkdir()
    text = (conf.FOLDER / "family/olmoe.yaml").read_text().replace("olmoe", "adding")
    (tmp_path / "family/adding.yaml").write_text(text + "refuses: {zeroed: experts add more}\n")
    assert grown(model("adding"), [Depth(), Width()]).layers == 12
    with pytest.raises(GrowpointError, match="zeroed copies") as caught:
        grown(model("adding"), [Depth(copies="zeroed")])
    assert caught.value.help == "copies: same"


def test_routing_groups_and_scales_follow_the_width() -> None:
    before = model("deepseek_v3", settings={"n_group": 4, "topk_group": 2})
    after = grown(before, [Width(factor=3)])
    # Twelve groups of the same size; 12 is not deepseek_v3's default, so it is stated.
    assert (after.settings["n_group"], after.settings["topk_group"]) == (12, 6)
    assert "routed_scaling_factor" not in after.settings
    settings = {"norm_topk_prob": False, "routed_scaling_factor": 3.0}
    unnormalised = grown(model("deepseek_v3", settings=settings), [Width()])
    assert unnormalised.settings["routed_scaling_factor"] == 1.5
    # At deepseek_v3's defaults (8 groups, 4 chosen) the grown settings are left out.
    assert grown(before, [Width()]).settings == {}


def test_dense_layers_must_stay_first() -> None:
    before = model("deepseek_v3")
    assert grown(before, [Depth()]).dense_layers == 2
    with pytest.raises(GrowpointError, match="cannot hold") as caught:
        grown(before, [Depth(order="stack")])
    assert "1 dense, 5 expert, 1 dense, 5 expert layers" in caught.value.text()
    assert grown(before, [Depth(order="stack", keep_first=1)]).dense_layers == 1


def test_labels_tell_operators_apart() -> None:
    operators: list[Depth | Width] = [
        Depth(), Depth(factor=3), Depth(order="stack"), Depth(keep_first=1), Depth(copies="zeroed"),
        Width(), Width(factor=3), Width(noise=0), Width(top_k="kept"),
    ]  # fmt: skip
    assert len({operator.label for operator in operators}) == len(operators)


def test_a_family_can_refuse_an_operator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(families.CONFIG_FOLDER_VARIABLE, str(tmp_path))
    (tmp_path / "family").mkdir()
    text = (conf.FOLDER / "family/olmoe.yaml").read_text().replace("olmoe", "fixed")
    text += "refuses: {width: its router always takes two experts}\n"
    (tmp_path / "family/fixed.yaml").write_text(text)
    assert grown(model("fixed"), [Depth()]).layers == 12
    with pytest.raises(GrowpointError, match="fixed cannot grow by width") as caught:
        grown(model("fixed"), [Depth(), Width()])
    assert "always takes two experts" in caught.value.text()
