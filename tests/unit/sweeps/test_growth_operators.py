"""Operators: what they say is said once, their maps, and names that tell them apart."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from sweeps import config, search
from sweeps.errors import GrowpointError
from sweeps.growth import Depth, Width, first_occurrences, grown, label
from sweeps.schema import asked
from tests.unit.sweeps.test_growth import model

SHARES = st.sampled_from([0.0, 0.25, 0.5, 1 / 3, 0.333333, 1.0])


@st.composite
def onto(draw: st.DrawFn, most: int = 12) -> tuple[int, ...]:
    """A list of source layers that leaves none out."""
    layers = draw(st.integers(1, most))
    more = draw(st.lists(st.integers(0, layers - 1), max_size=most))
    return tuple(draw(st.permutations([*range(layers), *more])))


def depths() -> st.SearchStrategy[Depth]:
    edges, copies = st.integers(0, 2), st.sampled_from(["same", "zeroed"])
    repeated = st.builds(
        Depth,
        order=st.sampled_from(["interpose", "stack"]),
        factor=st.integers(1, 4),
        keep_first=edges,
        keep_last=edges,
        copies=copies,
    )
    return repeated | st.builds(Depth, layers=onto(), copies=copies)


@st.composite
def widths(draw: st.DrawFn) -> Width:
    """A width that says nothing idle."""
    chosen: dict[str, Any] = {
        "factor": draw(st.integers(1, 4)),
        "top_k": draw(st.sampled_from(["scaled", "kept"])),
        "noise": draw(st.sampled_from([0.0, 0.01, 0.1, 0.1000001, 1 / 3, 2.0])),
        "experts": draw(st.sampled_from(["copied", "random", "kept"])),
        "router": draw(st.sampled_from(["copied", "random"])),
        "redrawn": draw(SHARES),
        "order": draw(st.sampled_from(["appended", "interleaved"])),
    }
    try:
        return Width(**chosen)
    except GrowpointError:
        assume(False)
        raise


@given(source=onto())
def test_a_list_of_layers_is_the_map(source: tuple[int, ...]) -> None:
    layers = max(source) + 1
    depth = Depth(layers=source)
    assert depth.source_of(layers) == source
    assert sum(first_occurrences(depth.source_of(layers))) == layers
    assert grown(model(layers=layers), [depth]).layers == len(source)


@given(source=onto(), change=st.integers(-3, 3))
@example(source=(0,), change=1)
def test_a_list_that_is_not_onto_is_refused(source: tuple[int, ...], change: int) -> None:
    layers = max(source) + 1 + change
    assume(change and layers > 0)
    with pytest.raises(GrowpointError, match="every source layer at least once") as caught:
        Depth(layers=source).source_of(layers)
    text = caught.value.help.removeprefix("layers: [").removesuffix("]")
    proposed = tuple(int(word) for word in text.split(","))
    assert Depth(layers=proposed).source_of(layers) == proposed


def test_the_layers_that_are_missing_are_named() -> None:
    with pytest.raises(GrowpointError) as caught:
        Depth(layers=(0, 1, 1, 3, 3, 9)).source_of(6)
    assert dict(caught.value.evidence) == {
        "source": "layers 0-5",
        "missing": "2 4 5",
        "too high": "9",
    }
    assert caught.value.help == "layers: [0, 1, 1, 2, 3, 3, 4, 5]"


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"order": "stack"}, "`order`"),
        ({"factor": 3}, "`factor`"),
        ({"keep_first": 1, "keep_last": 1}, "`keep_first` and `keep_last`"),
    ],
)
def test_a_list_of_layers_leaves_nothing_else_to_say(more: dict[str, Any], named: str) -> None:
    with pytest.raises(GrowpointError, match="names every grown layer") as caught:
        Depth(layers=(0, 1, 1), **more)
    assert named in caught.value.problem


@given(one=depths() | widths(), other=depths() | widths())
@example(one=Width(noise=0.1), other=Width(noise=0.1000001))
@example(one=Depth(layers=(0, 0, 1, 1)), other=Depth())
@example(one=Depth(layers=(0, 1, 2)), other=Depth(layers=(0, 1, 2, 2)))
@example(one=Depth(layers=tuple(range(60)) * 2), other=Depth(layers=(*range(60), *range(60))))
@example(one=Depth(layers=(*[0] * 30, 1)), other=Depth(layers=(*[0] * 29, 1, 1)))
def test_two_operators_never_share_a_name(one: Depth | Width, other: Depth | Width) -> None:
    assert (one.label == other.label) == (one == other)
    assert len(one.label) <= 100


@given(operators=st.lists(depths() | widths(), min_size=1, max_size=3))
def test_names_of_chains_list_their_operators(operators: list[Depth | Width]) -> None:
    assert label(operators).split(" + ") == [operator.label for operator in operators]


def test_names_are_short() -> None:
    assert Depth(layers=(0, 1, 1, 2, 3, 3)).label == "depth x1.5 (0 1 1 2 3 3)"
    assert Depth(layers=(*range(8), *range(4, 12))).label == "depth x1.33 (0-7 4-11)"
    assert Depth(layers=tuple(layer // 2 for layer in range(96))).label.startswith(
        "depth x2 (96 layers, "
    )
    assert Width(experts="random", noise=0).label == "width x2 experts random noise 0"
    assert Width(factor=3, redrawn=0.5, order="interleaved").label == (
        "width x3 redrawn 0.5 interleaved"
    )


@given(width=widths(), experts=st.integers(1, 32))
def test_width_maps_are_onto(width: Width, experts: int) -> None:
    source = width.source_of(experts)
    times = 1 if width.experts == "kept" else width.factor
    assert Counter(source) == dict.fromkeys(range(experts), times)
    if width.order == "interleaved":
        assert source == tuple(sorted(source))
    else:
        assert source[:experts] == tuple(range(experts))


@given(width=widths())
def test_what_an_operator_says_is_what_it_reads(width: Width) -> None:
    assert Width.model_validate(asked(width)) == width
    assert set(width.noisy) <= {"expert", "router"}
    assert bool(width.noisy) <= (width.noise > 0)


@pytest.mark.parametrize(
    ("idle", "named"),
    [
        ({"experts": "kept", "top_k": "kept"}, "`top_k: kept`"),
        ({"experts": "kept", "noise": 0.1}, "`noise`"),
        ({"experts": "kept", "noise": 0}, "`noise`"),
        ({"experts": "kept", "router": "random"}, "`router: random`"),
        ({"experts": "kept", "order": "interleaved"}, "`order: interleaved`"),
        ({"experts": "kept", "redrawn": 0.5}, "`redrawn`"),
        ({"experts": "random", "redrawn": 0.5}, "`redrawn`"),
        ({"experts": "random", "router": "random", "noise": 0.1}, "`noise`"),
    ],
)
def test_what_has_nothing_to_act_on_is_refused(idle: dict[str, Any], named: str) -> None:
    with pytest.raises(GrowpointError, match="nothing to act on") as caught:
        Width(**idle)
    assert named in caught.value.problem
    assert named in caught.value.help


@pytest.mark.parametrize("said", [{"factor": 0}, {"redrawn": 1.5}, {"noise": -1}])
def test_numbers_have_limits(said: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Width(**said)


def test_noise_is_for_what_is_copied() -> None:
    assert Width().noisy == ("expert", "router")
    assert Width(experts="random").noisy == ("router",)
    assert Width(router="random").noisy == ("expert",)
    assert Width(experts="kept").noisy == ()
    assert Width(noise=0).noisy == ()


@pytest.mark.parametrize("name", search.known("growth"))
def test_every_growth_that_is_shipped_can_be_taken(name: str) -> None:
    """As the command line reads it, and each entry grows a model under a name of its own."""
    sweep = config.load("demo", [f"growth={name}", "exclude=[]", "name=shipped"]).sweeps[0][0]
    names = [growth.label for growth in sweep.growth]
    assert len(set(names)) == len(names)
    before = model(layers=4)
    for growth in sweep.growth:
        after = grown(before, growth.operators if growth.kind == "chain" else [growth])
        assert (after.layers, after.experts, after.top_k) > (4, 8, 2)
