"""Lineages: maps found back from grown sizes, growths of stages, and what cannot be read."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import lineage
from orchestrator.lineage import Step
from sweeps.errors import GrowpointError
from sweeps.growth import Depth, Width, expert_map, layer_map
from sweeps.schema import asked

OPERATORS = st.one_of(
    st.builds(
        Depth,
        order=st.sampled_from(["interpose", "stack"]),
        factor=st.integers(1, 3),
        keep_first=st.integers(0, 1),
        keep_last=st.integers(0, 1),
    ),
    st.builds(Width, factor=st.integers(1, 3), order=st.sampled_from(["appended", "interleaved"])),
)


@given(st.lists(OPERATORS, max_size=4), st.integers(3, 6), st.integers(1, 6))
def test_the_sizes_after_growth_give_the_maps_back(
    operators: list[Depth | Width], layers: int, experts: int
) -> None:
    steps = [Step((operator,), seed) for seed, operator in enumerate(operators)]
    wanted = layer_map(layers, operators), expert_map(experts, operators)
    found = lineage.maps(steps, len(wanted[0]), len(wanted[1]))
    assert (found.layers, found.experts) == wanted


def test_a_list_of_layers_gives_its_map_back() -> None:
    steps = [Step((Depth(layers=(0, 1, 1, 2)),), 0), Step((Depth(),), 0)]
    assert lineage.maps(steps, 8, 2).layers == (0, 0, 1, 1, 1, 1, 2, 2)


def test_sizes_that_no_growth_left_are_refused() -> None:
    with pytest.raises(GrowpointError, match="layers do not come from the growths"):
        lineage.maps([Step((Depth(),), 0)], 5, 4)
    with pytest.raises(GrowpointError, match="experts do not come from the growths"):
        lineage.maps([Step((Width(factor=3),), 0)], 5, 4)


def test_maps_are_drawn_within_lines() -> None:
    assert lineage.drawn((0, 0, 1, 1, 2, 2, 3, 3)) == ["0 0 1 1 2 2 3 3"]
    long = lineage.drawn(tuple(range(192)) * 2, 70)
    assert max(map(len, long)) <= 70
    assert " ".join(long).split() == [str(n) for n in [*range(192), *range(192)]]


def stage(store: Path, name: str, after: str | None, **do: object) -> Path:
    folder = store / "runs" / name / "checkpoint"
    folder.mkdir(parents=True)
    (folder.parent / "stage.json").write_text(json.dumps({"after": after, "do": do}))
    return folder


def test_a_trained_stage_has_the_growths_of_those_before_it(tmp_path: Path) -> None:
    stage(tmp_path, "init-1", None, kind="init")
    grown = stage(tmp_path, "grow-1", "init-1", kind="grow", operators=[{"kind": "depth"}])
    stage(tmp_path, "train-1", "grow-1", kind="train")
    wide = Width(noise=0)
    stage(tmp_path, "grow-2", "train-1", kind="grow", operators=[asked(wide)], seed=3)
    last = stage(tmp_path, "train-2", "grow-2", kind="train")
    found = lineage.steps(last)
    assert [each.what for each in found] == [((Depth(),), 0), ((wide,), 3)]
    # What growth recorded itself goes before what was asked.
    item = {"source": "x", "source_sha256": "ab", "operators": [asked(Depth())], "seed": 7}
    (grown / "growth.json").write_text(json.dumps([item]))
    assert [each.seed for each in lineage.steps(last)] == [7, 3]
    assert lineage.steps(last)[0].source_sha256 == "ab"


@pytest.mark.parametrize(
    "item",
    [
        {},
        {"source": "x", "source_sha256": "", "operators": [{"kind": "sideways"}], "seed": 0},
        {"source": "x", "source_sha256": "", "operators": None, "seed": 0},
        "words",
    ],
)
def test_a_growth_that_says_nothing_is_an_error(tmp_path: Path, item: object) -> None:
    (tmp_path / "growth.json").write_text(json.dumps([item]))
    with pytest.raises(GrowpointError, match="lineage cannot be read"):
        lineage.steps(tmp_path)
