"""Growth keeps the function, and every tensor comes from where the maps say."""

from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from orchestrator.checkpoint import entries
from orchestrator.grow import GrowthReport, grow
from sweeps.growth import Depth, Width, grown
from sweeps.model import parameters, tensors
from tests.integration.tiny_families import (
    ALL,
    FAMILIES,
    logits,
    model_of,
    same,
    saved,
    tiny,
    weights,
)

EXACT = Width(noise=0)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tiny("olmoe"), tmp_path_factory.mktemp("olmoe") / "source")


def difference(source: Path, target: Path) -> float:
    """Largest difference of logits, relative to the largest logit."""
    before, after = logits(source), logits(target)
    return float((before - after).abs().max() / before.abs().max())


@pytest.mark.parametrize("factor", [2, 3])
@pytest.mark.parametrize("name", ALL)
def test_width_without_noise_keeps_the_logits(name: str, factor: int, tmp_path: Path) -> None:
    source = saved(tiny(name), tmp_path / "source")
    grow(source, tmp_path / "wide", [Width(factor=factor, noise=0)], seed=0)
    limit = 2e-6 if name == "olmoe" else 1e-5
    assert difference(source, tmp_path / "wide") <= limit


@pytest.mark.parametrize("name", FAMILIES)
def test_width_with_top_k_kept_changes_the_logits(name: str, tmp_path: Path) -> None:
    """The control: the test above would notice a growth that does not keep the function."""
    source = saved(tiny(name), tmp_path / "source")
    grow(source, tmp_path / "wide", [Width(noise=0, top_k="kept")], seed=0)
    assert difference(source, tmp_path / "wide") > 1e-3


@pytest.mark.parametrize("name", FAMILIES)
def test_zeroed_copies_keep_the_logits(name: str, tmp_path: Path) -> None:
    """Up to the last bit: weights are mapped, and kernels follow the file's alignment in memory."""
    source = saved(tiny(name), tmp_path / "source")
    grow(source, tmp_path / "zeroed", [Depth(copies="zeroed")], seed=0)
    grow(source, tmp_path / "plain", [Depth()], seed=0)
    assert difference(source, tmp_path / "zeroed") <= 1e-6
    assert difference(source, tmp_path / "plain") > 1e-3


@pytest.mark.parametrize("stacked", [False, True], ids=["separate", "stacked"])
@pytest.mark.parametrize("name", FAMILIES)
def test_the_grown_file_is_what_was_planned(name: str, stacked: bool, tmp_path: Path) -> None:
    """Names, shapes, parameters, config.json; and transformers finds every tensor it wants."""
    model = tiny(name)
    operators: list[Depth | Width] = [Depth(), Width(factor=3)]
    source = saved(model, tmp_path / "source", stacked=stacked)
    report = grow(source, tmp_path / "grown", operators, seed=0)
    target = grown(model, operators)
    assert report.target == model_of(tmp_path / "grown") == target
    found = {name: entry.shape for name, entry in entries(tmp_path / "grown").items()}
    assert found == {tensor.name: tensor.shape for tensor in tensors(target, stacked)}
    loaded, said = AutoModelForCausalLM.from_pretrained(
        tmp_path / "grown", output_loading_info=True
    )
    assert not any(said[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert sum(p.numel() for p in loaded.parameters()) == parameters(target).total


@pytest.mark.parametrize("name", FAMILIES)
def test_both_layouts_grow_alike(name: str, tmp_path: Path) -> None:
    found = []
    for layout in ("separate", "stacked"):
        source = saved(tiny(name), tmp_path / layout, stacked=layout == "stacked")
        grow(source, tmp_path / f"{layout}-wide", [Depth(), EXACT], seed=0)
        found.append(AutoModelForCausalLM.from_pretrained(tmp_path / f"{layout}-wide").state_dict())
    assert same(*found)


@pytest.mark.parametrize(
    "depth",
    [
        Depth(),
        Depth(factor=3),
        Depth(order="stack"),
        Depth(keep_first=1),
        Depth(order="stack", keep_first=1, keep_last=1),
        Depth(factor=1),
        Depth(layers=(0, 1, 1, 2, 2)),
        Depth(layers=(2, 0, 1, 0)),
    ],
    ids=lambda depth: depth.label,
)
def test_layers_come_from_where_the_map_says(depth: Depth, source: Path, tmp_path: Path) -> None:
    report = grow(source, tmp_path / "deep", [depth], seed=0)
    before, after = weights(source), weights(tmp_path / "deep")
    expected = {name: tensor for name, tensor in before.items() if ".layers." not in name}
    for layer, index in enumerate(depth.source_of(3)):
        prefix = f"model.layers.{index}."
        for name, tensor in before.items():
            if name.startswith(prefix):
                expected[f"model.layers.{layer}." + name.removeprefix(prefix)] = tensor
    assert report.layers == depth.source_of(3)
    assert same(after, expected)


@pytest.mark.parametrize("name", FAMILIES)
def test_depth_and_width_commute(name: str, tmp_path: Path) -> None:
    source = saved(tiny(name), tmp_path / "source")
    grow(source, tmp_path / "one", [Depth(), EXACT], seed=0)
    grow(source, tmp_path / "other", [EXACT, Depth()], seed=0)
    assert same(weights(tmp_path / "one"), weights(tmp_path / "other"))
    noisy = grow(source, tmp_path / "noisy", [Width(), Depth()], seed=0)
    shapes = {name: tensor.shape for name, tensor in weights(tmp_path / "noisy").items()}
    assert shapes == {name: tensor.shape for name, tensor in weights(tmp_path / "one").items()}
    assert noisy.target == model_of(tmp_path / "one")


def test_reports_say_what_was_made(source: Path, tmp_path: Path) -> None:
    report = grow(source, tmp_path / "grown", [Depth(), Width()], seed=0)
    assert isinstance(report, GrowthReport)
    assert report.experts == (*range(8), *range(8))
    assert report.tensors == len(weights(tmp_path / "grown"))
    assert report.bytes == 4 * parameters(report.target).total
