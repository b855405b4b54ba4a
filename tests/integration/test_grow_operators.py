"""Ablations and baselines of growth: other orders, other copies, and what each leaves alone."""

import inspect
import json
from collections import Counter
from functools import cache
from itertools import pairwise
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from orchestrator.checkpoint import entries
from orchestrator.grow import grow
from orchestrator.grow_config import grown_config
from orchestrator.grow_plan import initializer_range, plan
from orchestrator.planned import Planned
from sweeps import family as families
from sweeps.errors import GrowpointError
from sweeps.growth import Depth, Width, expert_map, first_occurrences, grown, layer_map
from sweeps.model import Model
from tests.integration.tiny_families import (
    ALL,
    FAMILIES,
    edit,
    logits,
    model_of,
    quantised,
    same,
    saved,
    tiny,
    weights,
)

LAYOUTS = pytest.mark.parametrize("stacked", [False, True], ids=["separate", "stacked"])


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tiny checkpoint of a family, made once."""

    @cache
    def made(name: str, stacked: bool = False) -> Path:
        return saved(tiny(name), tmp_path_factory.mktemp("source") / "it", stacked=stacked)

    return made


def refuses_interleaved(name: str) -> bool:
    model = tiny(name)
    family = families.load(model.family)
    values = {**family.settings, **model.settings}
    groups = [values.get(key) for key in family.scaled_by_width]
    return "interleaved" in family.refuses and bool(groups) and int(str(groups[0])) > 1


@pytest.mark.parametrize("name", [*FAMILIES, "deepseek_v2, groups, biases"])
def test_interleaved_copies_keep_the_logits_or_are_refused(
    name: str, sources: Any, tmp_path: Path
) -> None:
    width = Width(noise=0, order="interleaved")
    if refuses_interleaved(name):
        with pytest.raises(GrowpointError, match="interleaved"):
            grow(sources(name), tmp_path / "wide", [width], seed=0)
        assert not list(tmp_path.iterdir())
        return
    grow(sources(name), tmp_path / "wide", [width], seed=0)
    before, after = logits(sources(name)), logits(tmp_path / "wide")
    assert float((before - after).abs().max() / before.abs().max()) <= 1e-5


def test_some_family_refuses_interleaved_copies_and_some_with_groups_does_not() -> None:
    refused = [name for name in ALL if refuses_interleaved(name)]
    assert "deepseek_v3" in refused
    assert "deepseek_v2, groups, biases" not in refused


@pytest.mark.parametrize("name", ["olmoe", "mixtral", "gpt_oss", "granitemoe", "deepseek_v2"])
def test_top_k_alone_changes_config_json_alone(name: str, sources: Any, tmp_path: Path) -> None:
    source = sources(name)
    report = grow(source, tmp_path / "k", [Width(factor=3, experts="kept")], seed=0)
    assert same(weights(source), weights(tmp_path / "k"))
    assert (report.target.experts, report.target.top_k) == (8, 6)
    assert model_of(tmp_path / "k") == report.target
    assert not torch.allclose(logits(source), logits(tmp_path / "k"), atol=1e-3)


def split(folder: Path, model: Model) -> dict[tuple[str, int | None, int | None], torch.Tensor]:
    """Tensors by (kind's name, layer, expert), stacked ones cut into their rows."""
    planned = plan(entries(folder), model, [], 0).tensors
    found = weights(folder)
    parts: dict[tuple[str, int | None, int | None], torch.Tensor] = {}
    for tensor in planned:
        values, place = found[tensor.name], (tensor.kind.template, tensor.layer)
        if tensor.kind.experts_axis is None:
            parts[*place, tensor.expert] = values
        else:
            rows = values.squeeze(0) if values.shape[0] == 1 else values
            parts |= {(*place, row): part for row, part in enumerate(rows)}
    return parts


def kinds(folder: Path, model: Model) -> dict[str, Planned]:
    return {tensor.kind.template: tensor for tensor in plan(entries(folder), model, [], 0).tensors}


@LAYOUTS
@pytest.mark.parametrize("name", FAMILIES)
def test_random_experts_and_rows_are_new_and_nothing_else_is(
    name: str, stacked: bool, sources: Any, tmp_path: Path
) -> None:
    """New weights as a model class draws its own; no bias is drawn, and an expert's starts at 0."""
    source, model = sources(name, stacked), tiny(name)
    width = Width(experts="random", router="random", top_k="kept")
    grow(source, tmp_path / "random", [width], seed=5)
    grow(source, tmp_path / "copied", [Width(noise=0, top_k="kept")], seed=5)
    after = grown(model, [width])
    new, old = split(tmp_path / "random", after), split(tmp_path / "copied", after)
    found = kinds(tmp_path / "copied", after)
    drawn: dict[str, list[torch.Tensor]] = {"expert": [], "router": []}
    for (template, layer, expert), values in new.items():
        kind, copied = found[template].kind, expert is not None and expert >= model.experts
        if copied and kind.is_matrix:
            drawn[kind.section].append(values.flatten())
        elif copied and kind.section == "expert":
            assert not values.any(), template
        else:
            assert torch.equal(values, old[template, layer, expert]), template
    for values in map(torch.cat, drawn.values()):
        # Five standard errors.
        assert float(values.std()) == pytest.approx(0.02, rel=5 / (2 * len(values)) ** 0.5)
        assert abs(float(values.mean())) < 5 * 0.02 / len(values) ** 0.5
        # Sixteen bits of each, and no two experts or rows alike.
        assert len(values.unique()) > 0.5 * min(len(values), 1 << 15)


def test_new_weights_have_the_spread_of_config_json(tmp_path: Path) -> None:
    source = saved(tiny("olmoe"), tmp_path / "source")
    edit(source, initializer_range=0.3)
    grow(source, tmp_path / "wide", [Width(experts="random")], seed=0)
    new = weights(tmp_path / "wide")["model.layers.0.mlp.experts.9.up_proj.weight"]
    assert float(new.std()) == pytest.approx(0.3, rel=0.15)


@pytest.mark.parametrize(
    ("given", "used"), [({}, 0.02), (None, 0.02), ("0.1", 0.02), (-1, 0.02), (0.006, 0.006), (0, 0)]
)
def test_the_spread_of_new_weights_has_a_default(given: Any, used: float) -> None:
    assert initializer_range(given if given == {} else {"initializer_range": given}) == used


def test_the_baselines_can_be_taken_apart(sources: Any, tmp_path: Path) -> None:
    """Random experts keep copied router rows, with their noise; and the other way round."""
    source, copied = sources("olmoe"), weights(sources("olmoe"))
    for part, width in (("experts", Width(experts="random")), ("router", Width(router="random"))):
        grow(source, tmp_path / part, [width], seed=0)
    experts, router = weights(tmp_path / "experts"), weights(tmp_path / "router")
    gate, up = "model.layers.1.mlp.gate.weight", "model.layers.1.mlp.experts.{}.up_proj.weight"
    change = experts[gate][8:] - copied[gate]
    assert float(change.std() / copied[gate].std()) == pytest.approx(0.01, rel=0.2)
    change = router[up.format(8)] - copied[up.format(0)]
    assert float(change.std() / copied[up.format(0)].std()) == pytest.approx(0.01, rel=0.2)
    assert float((experts[up.format(8)] - copied[up.format(0)]).std()) > 0.1
    assert float((router[gate][8:] - copied[gate]).std()) > 0.1


def expert_outputs(folder: Path, layer: int, tokens: torch.Tensor) -> list[torch.Tensor]:
    """What each expert of a layer makes of the same tokens, [tokens, hidden] each."""
    network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    modules = [
        module
        for name, module in network.named_modules()
        if name.endswith(".experts") and f"layers.{layer}." in name
    ]
    assert len(modules) == 1
    module, count = modules[0], model_of(folder).experts
    with torch.no_grad():
        if len(inspect.signature(module.forward).parameters) < 3:
            return list(module(tokens.repeat(count, 1)).view(count, *tokens.shape))
        ones = torch.ones(len(tokens), 1)
        return [module(tokens, ones.long() * expert, ones) for expert in range(count)]


def redrawn_units(new: torch.Tensor, old: torch.Tensor, size: int) -> list[tuple[int, ...]]:
    """The hidden units in which two experts' tensors differ; by both ways to put gate and up."""
    changed = new != old
    axis = next(axis for axis, length in enumerate(changed.shape) if length in (size, 2 * size))
    units = changed.any(dim=1 - axis)
    if len(units) == 2 * size:
        halves, turns = units.view(2, size), units.view(size, 2).T
        both = [half for half in (halves, turns) if torch.equal(half[0], half[1])]
        return [tuple(half[0].nonzero().flatten().tolist()) for half in both]
    return [tuple(units.nonzero().flatten().tolist())]


@LAYOUTS
@pytest.mark.parametrize("name", FAMILIES)
def test_redrawn_copies_differ_in_the_same_hidden_units_everywhere(
    name: str, stacked: bool, tmp_path: Path
) -> None:
    """Two units redrawn in gate, up, and down change an expert's output in at most four directions.

    If they lay elsewhere than the layout says, more units of the output would change: what an
    expert computes is asked of transformers, not of the file.
    """
    model = tiny(name, expert_hidden=24)
    source = saved(model, tmp_path / "source", stacked=stacked)
    grow(source, tmp_path / "redrawn", [Width(noise=0, redrawn=2 / 24)], seed=1)
    grow(source, tmp_path / "exact", [Width(noise=0)], seed=1)
    after = grown(model, [Width()])
    new, old = split(tmp_path / "redrawn", after), split(tmp_path / "exact", after)
    units: dict[tuple[int | None, int], set[tuple[int, ...]]] = {}
    count: Counter[tuple[int | None, int]] = Counter()
    for (template, layer, expert), values in new.items():
        if torch.equal(values, old[template, layer, expert]):
            continue
        assert expert is not None, template
        found = redrawn_units(values, old[template, layer, expert], 24)
        units[layer, expert] = units.get((layer, expert), {*found}) & {*found}
        count[layer, expert] += int((values != old[template, layer, expert]).sum())
    sparse = [layer for layer in range(model.layers) if not model.is_dense(layer)]
    assert set(units) == {(layer, expert) for layer in sparse for expert in range(8, 16)}
    assert all(len(same) == 1 and len(min(same)) == 2 for same in units.values())
    assert set(count.values()) == {2 * 3 * model.hidden}
    assert len({min(same) for same in units.values()}) > 4
    tokens = torch.randn(64, model.hidden, generator=torch.Generator().manual_seed(0))
    outputs = expert_outputs(tmp_path / "redrawn", sparse[-1], tokens)
    for expert in range(8):
        difference = outputs[8 + expert] - outputs[expert]
        assert 1 <= int(torch.linalg.matrix_rank(difference, rtol=1e-4)) <= 4


@pytest.mark.parametrize("name", ["olmoe", "gpt_oss"])
def test_wholly_redrawn_and_random_experts_have_nothing_of_the_original(
    name: str, sources: Any, tmp_path: Path
) -> None:
    source, model = sources(name), tiny(name)
    grow(source, tmp_path / "redrawn", [Width(noise=0, redrawn=1)], seed=1)
    grow(source, tmp_path / "exact", [Width(noise=0)], seed=1)
    after = grown(model, [Width()])
    new, old = split(tmp_path / "redrawn", after), split(tmp_path / "exact", after)
    found = kinds(tmp_path / "exact", after)
    shares = [
        float((values == old[template, layer, expert]).float().mean())
        for (template, layer, expert), values in new.items()
        if found[template].kind.section == "expert" and found[template].kind.is_matrix
        if expert is not None and expert >= model.experts
    ]
    assert shares
    assert max(shares) < 0.01


def test_both_layouts_redraw_the_same_hidden_units(sources: Any, tmp_path: Path) -> None:
    chosen = []
    for stacked in (False, True):
        target = tmp_path / str(stacked)
        grow(sources("olmoe", stacked), target, [Depth(), Width(noise=0, redrawn=0.25)], seed=2)
        state = AutoModelForCausalLM.from_pretrained(target).state_dict()
        down = state["model.layers.3.mlp.experts.down_proj"]
        chosen.append((down[8:] != down[:8]).any(dim=1))
    assert torch.equal(*chosen)
    assert (chosen[0].sum(dim=1) == 4).all()
    # Each expert has units of its own.
    assert len({tuple(row.tolist()) for row in chosen[0]}) > 4


@st.composite
def exact_chains(draw: st.DrawFn) -> tuple[list[Depth | Width], list[Depth | Width]]:
    """Depths and widths in two orders, each kind's own order kept: at most two of each."""
    edge, copies = st.integers(0, 1), st.sampled_from(["same", "zeroed"])
    depth = st.builds(
        Depth,
        order=st.sampled_from(["interpose", "stack"]),
        factor=st.integers(1, 3),
        keep_first=edge,
        keep_last=edge,
        copies=copies,
    ) | st.builds(
        Depth, layers=st.sampled_from([(0, 1, 1, 2, 2), (0, 0, 1, 2), (2, 1, 0, 0)]), copies=copies
    )
    width = st.builds(
        Width,
        factor=st.integers(1, 3),
        noise=st.just(0.0),
        order=st.sampled_from(["appended", "interleaved"]),
        top_k=st.sampled_from(["scaled", "kept"]),
    )
    deep: list[Depth | Width] = [*draw(st.lists(depth, min_size=1, max_size=2))]
    wide: list[Depth | Width] = [*draw(st.lists(width, min_size=1, max_size=2))]
    turns = draw(st.permutations([True] * len(deep) + [False] * len(wide)))
    left = {True: iter(deep), False: iter(wide)}
    return [*deep, *wide], [next(left[turn]) for turn in turns]


def bytes_of(tensor: Planned) -> list[tuple[Any, ...]]:
    """Where all bytes of a tensor come from, and what is done to them."""
    found = []
    for block in tensor.blocks:
        done: list[object] = []
        at: Any = block
        while hasattr(at, "of"):
            done.append((type(at).__name__, getattr(at, "by", None)))
            at = at.of
        found.append((at.file, at.start, at.end, *done))
    return found


@pytest.mark.parametrize("stacked", [False, True], ids=["separate", "stacked"])
@pytest.mark.parametrize(
    "name", ["olmoe", "deepseek_v2, groups, biases", "deepseek_v3", "gpt_oss", "qwen3_next"]
)
@given(chains=exact_chains())
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_depth_and_width_commute_tensor_by_tensor(
    name: str,
    stacked: bool,
    chains: tuple[list[Depth | Width], list[Depth | Width]],
    sources: Any,
) -> None:
    """Without noise: the same bytes under the same names, and the same config.json."""
    source, model = sources(name, stacked), tiny(name)
    config = json.loads((source / "config.json").read_text())
    made: list[object] = []
    for operators in chains:
        try:
            planned = plan(entries(source), model, operators, 0)
        except GrowpointError:
            made.append(None)
            continue
        tensors = {t.name: (t.dtype, t.shape, bytes_of(t)) for t in planned.tensors}
        made.append((tensors, grown_config(config, operators)))
    assert made[0] == made[1]


@pytest.mark.parametrize("name", ["olmoe", "gpt_oss", "deepseek_v2"])
def test_a_chain_of_two_scales_in_one_lineage(name: str, sources: Any, tmp_path: Path) -> None:
    """17B to 35B to 70B: depth, then width, as two growths of two checkpoints, and back."""
    deeper, wider = Depth(), Width(noise=0)
    grow(sources(name), tmp_path / "deep", [deeper], seed=0)
    grow(tmp_path / "deep", tmp_path / "deep_wide", [wider], seed=0)
    grow(sources(name), tmp_path / "wide", [wider], seed=0)
    grow(tmp_path / "wide", tmp_path / "wide_deep", [deeper], seed=0)
    assert same(weights(tmp_path / "deep_wide"), weights(tmp_path / "wide_deep"))
    one, other = (
        json.loads((tmp_path / folder / "config.json").read_text())
        for folder in ("deep_wide", "wide_deep")
    )
    assert one == other


@LAYOUTS
def test_copies_come_from_where_the_maps_say(stacked: bool, sources: Any, tmp_path: Path) -> None:
    """Experts, router rows, and layers, after several growths in both orders of copies."""
    operators: list[Depth | Width] = [
        Width(noise=0, order="interleaved"),
        Depth(layers=(0, 1, 1, 2, 0)),
        Width(noise=0, factor=3),
    ]
    source, model = sources("qwen2_moe", stacked), tiny("qwen2_moe")
    report = grow(source, tmp_path / "grown", operators, seed=0)
    layers, experts = layer_map(3, operators), expert_map(8, operators)
    assert (report.layers, report.experts) == (layers, experts)
    before, after = split(source, model), split(tmp_path / "grown", grown(model, operators))
    for (template, layer, expert), values in after.items():
        index = None if layer is None else layers[layer]
        origin = None if expert is None else experts[expert]
        assert torch.equal(values, before[template, index, origin]), (template, layer, expert)
    assert len(after) > len(before)


def test_files_hold_originals_of_a_layer_before_their_copies(sources: Any) -> None:
    """So that each set is one stretch of the source, copied at once."""
    operators: list[Depth | Width] = [Width(noise=0, order="interleaved", factor=3)]
    found = plan(entries(sources("olmoe")), tiny("olmoe"), operators, 0).tensors
    original = first_occurrences(expert_map(8, operators))
    placed = [
        (tensor.layer, not original[tensor.expert])
        for tensor in found
        if tensor.expert is not None and tensor.layer is not None
    ]
    assert all(one <= other for one, other in pairwise(placed))
    assert {copied for _, copied in placed} == {True, False}


def with_unknown(folder: Path) -> Path:
    path = folder / "model.safetensors"
    more = {
        "model.layers.1.mlp.novelty.weight": torch.full((3,), 1.0),
        "model.layers.2.mlp.novelty.weight": torch.full((3,), 2.0),
        "novel_norm.weight": torch.full((5,), 3.0),
    }
    save_file({**load_file(path), **more}, path, {"format": "pt"})
    return folder


def test_unknown_tensors_are_named_or_follow_their_layers(tmp_path: Path) -> None:
    source, model = with_unknown(saved(tiny("olmoe"), tmp_path / "source")), tiny("olmoe")
    with pytest.raises(GrowpointError, match="does not know 3 ") as caught:
        plan(entries(source), model, [Depth()], 0)
    assert "novel_norm.weight" in caught.value.text()
    assert "--allow-unknown" in caught.value.help
    made = plan(entries(source), model, [Depth(), Width()], 0, allow_unknown=True)
    found = {tensor.name: tensor for tensor in made.tensors if "novel" in tensor.name}
    assert sorted(found) == [
        *(f"model.layers.{layer}.mlp.novelty.weight" for layer in (2, 3, 4, 5)),
        "novel_norm.weight",
    ]
    values = {
        name: {
            torch.frombuffer(bytearray(b.data()), dtype=torch.float32)[0].item() for b in t.blocks
        }
        for name, t in found.items()
    }
    assert values["model.layers.3.mlp.novelty.weight"] == {1.0}
    assert values["model.layers.4.mlp.novelty.weight"] == {2.0}
    assert sorted(made.unknown) == [
        "model.layers.1.mlp.novelty.weight",
        "model.layers.2.mlp.novelty.weight",
        "novel_norm.weight",
    ]
    others = [tensor for tensor in made.tensors if "novel" not in tensor.name]
    assert [t.name for t in others] == [
        t.name for t in plan(entries(saved(model, Path(mkdtemp(dir=tmp_path)) / "plain")), model,
                             [Depth(), Width()], 0).tensors
    ]  # fmt: skip


def test_unknown_tensors_of_layers_that_are_not_there_are_refused(tmp_path: Path) -> None:
    source = saved(tiny("olmoe"), tmp_path / "source")
    path = source / "model.safetensors"
    save_file({**load_file(path), "model.layers.7.novelty": torch.ones(2)}, path, {"format": "pt"})
    with pytest.raises(GrowpointError, match="does not know 1 ") as caught:
        plan(entries(source), tiny("olmoe"), [Depth()], 0, allow_unknown=True)
    assert "model.layers.7.novelty" in caught.value.text()


@pytest.mark.parametrize(
    ("width", "named"),
    [
        (Width(), "noise"),
        (Width(noise=0, redrawn=0.5), "redrawn"),
        (Width(noise=0, experts="random"), "at random"),
        (Width(experts="random", router="random"), "at random"),
    ],
    ids=lambda value: value.label if isinstance(value, Width) else value,
)
def test_arithmetic_on_quantised_experts_is_refused(
    width: Width, named: str, tmp_path: Path
) -> None:
    source = quantised(saved(tiny("deepseek_v3"), tmp_path / "source"))
    with pytest.raises(GrowpointError, match=named) as caught:
        grow(source, tmp_path / "grown", [width], seed=0)
    assert "noise: 0" in caught.value.help
    assert "bf16" in caught.value.help
    assert list(tmp_path.iterdir()) == [source]
    # What leaves the numbers of experts alone works: a router is not quantised.
    for number, fine in enumerate([Width(noise=0), Width(noise=0, router="random")]):
        grow(source, tmp_path / f"fine{number}", [fine], seed=0)
