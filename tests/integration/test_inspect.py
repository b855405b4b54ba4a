"""Norms and updates of checkpoints, against what torch computes of the same tensors."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from orchestrator import norms, opened, slices, updates
from orchestrator.grow import grow
from orchestrator.norms import Profile
from orchestrator.opened import Opened
from orchestrator.store import Store
from orchestrator.updates import Trained
from sweeps.errors import GrowpointError
from sweeps.growth import Depth, Width
from tests.integration.tiny_families import as_dtype, saved, tiny, weights

Weights = dict[str, torch.Tensor]
EXACT = Width(noise=0)


def look(*folders: Path) -> list[Opened]:
    return opened.opened([str(folder) for folder in folders], Store(Path()))


def profile(folder: Path) -> Profile:
    (each,) = look(folder)
    return norms.profile(each.found, each.family, each.block)


def changed(source: Path, target: Path, change: Callable[[Weights], Weights]) -> Path:
    """A copy of a checkpoint of one file, with other weights."""
    target.mkdir(parents=True)
    (target / "config.json").write_bytes((source / "config.json").read_bytes())
    found = {name: tensor.clone() for name, tensor in weights(source).items()}
    save_file(change(found), target / "model.safetensors", {"format": "pt"})
    return target


def rms(tensor: torch.Tensor) -> float:
    return float(tensor.double().square().mean().sqrt())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_norms_are_those_of_the_tensors(tmp_path: Path, dtype: torch.dtype) -> None:
    source = as_dtype(saved(tiny("deepseek_v3"), tmp_path / "source"), dtype)
    found, tensors = profile(source), weights(source)
    mlp, attention = "model.layers.1.mlp", "model.layers.1.self_attn"
    experts = [rms(t) for n, t in tensors.items() if n.startswith(f"{mlp}.experts.")]
    assert len(experts) == 8 * 3
    assert found.layers[1]["experts"] == pytest.approx(np.mean(experts), rel=1e-9)
    shared = [rms(t) for n, t in tensors.items() if n.startswith(f"{mlp}.shared_experts.")]
    assert found.layers[1]["shared"] == pytest.approx(np.mean(shared), rel=1e-9)
    assert found.layers[1]["router"] == pytest.approx(rms(tensors[f"{mlp}.gate.weight"]), rel=1e-9)
    projections = [rms(t) for n, t in tensors.items() if n.startswith(attention) and t.ndim == 2]
    assert found.layers[1]["attention"] == pytest.approx(np.mean(projections), rel=1e-9)
    dense = [rms(t) for n, t in tensors.items() if n.startswith("model.layers.0.mlp.")]
    assert found.layers[0]["dense"] == pytest.approx(np.mean(dense), rel=1e-9)
    assert "experts" not in found.layers[0]
    assert found.outside["head"] == pytest.approx(rms(tensors["lm_head.weight"]), rel=1e-9)


@pytest.mark.parametrize("family", ["olmoe", "qwen2_moe", "deepseek_v3"])
def test_both_layouts_have_one_profile(tmp_path: Path, family: str) -> None:
    separate = profile(saved(tiny(family), tmp_path / "separate"))
    stacked = profile(saved(tiny(family), tmp_path / "stacked", stacked=True))
    assert stacked.layers.keys() == separate.layers.keys()
    for layer, groups in separate.layers.items():
        assert stacked.layers[layer] == pytest.approx(groups, rel=1e-12)


@pytest.mark.parametrize("family", ["gpt_oss", "granitemoe"])
def test_gate_and_up_in_one_tensor_are_two_matrices(tmp_path: Path, family: str) -> None:
    source = saved(tiny(family), tmp_path / "source")

    def louder(found: Weights) -> Weights:
        for name in found:
            if "gate_up_proj" in name and "bias" not in name:
                found[name][..., ::2] *= 100
            elif "input_linear" in name:
                found[name][:, : found[name].shape[1] // 2] *= 100
        return found

    before = profile(source)
    after = profile(changed(source, tmp_path / "louder", louder))
    # Of gate, up and down, one is a hundred times as large: (100 + 1 + 1) / 3.
    for layer, groups in before.layers.items():
        assert after.layers[layer]["experts"] / groups["experts"] == pytest.approx(34, rel=0.15)


@pytest.mark.parametrize("piece", [1, 7, 100, 1000])
def test_the_size_of_pieces_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    source = saved(tiny("gpt_oss"), tmp_path / "source")
    whole = profile(source)
    monkeypatch.setattr(norms, "PIECE", piece)
    assert profile(source).layers.keys() == whole.layers.keys()
    for layer, groups in profile(source).layers.items():
        assert groups == pytest.approx(whole.layers[layer], rel=1e-12)


def test_growth_repeats_the_profile(tmp_path: Path) -> None:
    source = saved(tiny("olmoe"), tmp_path / "source")
    before = profile(source).layers
    for order in ("interpose", "stack"):
        deep = Depth(order=order)
        grow(source, tmp_path / order, [deep, EXACT], seed=0)
        (each,) = look(tmp_path / order)
        origin = deep.source_of(3)
        after = profile(tmp_path / order).layers
        for layer, index in enumerate(origin):
            assert after[layer] == pytest.approx(before[index], rel=1e-12)
        told = opened.facts(each)
        assert told["layer_map"] == list(origin)
        assert told["expert_map"] == [*range(8), *range(8)]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_named(tmp_path: Path, bad: float) -> None:
    source = saved(tiny("olmoe"), tmp_path / "source")
    name = "model.layers.1.mlp.experts.3.up_proj.weight"

    def spoil(found: Weights) -> Weights:
        found[name][2, 5] = bad
        return found

    found = profile(changed(source, tmp_path / "bad", spoil))
    assert found.not_finite == [name]
    assert not np.isfinite(found.layers[1]["experts"])
    assert np.isfinite([found.layers[0]["experts"], found.layers[1]["attention"]]).all()


def test_unknown_tensors_are_named(tmp_path: Path) -> None:
    source = saved(tiny("olmoe"), tmp_path / "source")
    more = changed(source, tmp_path / "more", lambda found: {**found, "extra": torch.ones(3)})
    assert profile(more).unknown == ["extra"]
    assert profile(more).layers == profile(source).layers


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
@pytest.mark.parametrize("scales", ["blocks", "rows", "one", "none"])
def test_eight_bit_weights_count_with_their_scales(
    tmp_path: Path, dtype: torch.dtype, scales: str
) -> None:
    source = saved(tiny("deepseek_v3"), tmp_path / "source")
    name = "model.layers.1.mlp.experts.0.up_proj.weight"  # [16, 32]
    sizes = {"blocks": (2, 4), "rows": (16, 1), "one": (1,), "none": (1,)}
    scale = torch.rand(sizes[scales], generator=torch.Generator().manual_seed(0)) + 0.5
    whole = {
        "blocks": lambda: scale.repeat_interleave(8, 0).repeat_interleave(8, 1),
        "rows": lambda: scale,
        "one": lambda: scale,
        "none": lambda: torch.ones(1),
    }[scales]()
    exact: Weights = {}

    def quantise(found: Weights) -> Weights:
        found[name] = found[name].to(dtype)
        exact.update({**found, name: found[name].double() * whole})
        return found if scales == "none" else {**found, f"{name}_scale_inv": scale}

    folder = changed(source, tmp_path / "eight", quantise)
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"weight_block_size": [8, 8]}
    (folder / "config.json").write_text(json.dumps(config))
    experts = [rms(t) for n, t in exact.items() if n.startswith("model.layers.1.mlp.experts.")]
    assert profile(folder).layers[1]["experts"] == pytest.approx(np.mean(experts), rel=1e-6)
    assert not profile(folder).unknown


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_every_eight_bit_number_is_read(dtype: torch.dtype) -> None:
    from orchestrator import eightbit

    data = bytes(range(256))
    wanted = torch.frombuffer(bytearray(data), dtype=torch.uint8).view(dtype).float().numpy()
    name = {torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2"}[dtype]
    np.testing.assert_array_equal(eightbit.decode(data, name), wanted)


def test_packed_and_whole_numbers_are_refused_by_name(tmp_path: Path) -> None:
    source = saved(tiny("gpt_oss"), tmp_path / "source")
    name = "model.layers.0.mlp.experts.down_proj"

    def pack(found: Weights) -> Weights:
        del found[name]
        packed = torch.zeros(8, 4, 1, 16, dtype=torch.uint8)
        return {**found, f"{name}_blocks": packed, f"{name}_scales": packed[..., 0].clone()}

    with pytest.raises(GrowpointError, match="four-bit") as caught:
        profile(changed(source, tmp_path / "packed", pack))
    assert caught.value.evidence[0][1].startswith(name)
    whole = "lm_head.weight"
    with pytest.raises(GrowpointError, match="type I8 cannot be read") as caught:
        profile(
            changed(source, tmp_path / "whole", lambda f: {**f, whole: f[whole].to(torch.int8)})
        )
    assert caught.value.evidence[0] == ("tensor", whole)


def trained(source: Path, target: Path, seed: int, by: float = 1.0) -> Path:
    """A lineage that learnt something at random."""
    generator = torch.Generator().manual_seed(seed)

    def learn(found: Weights) -> Weights:
        return {
            name: found[name] + by * torch.randn(found[name].shape, generator=generator)
            for name in sorted(found)
        }

    return changed(source, target, learn)


def cosines(*folders: Path) -> dict[tuple[str, str], float]:
    ends = look(*folders)
    found = updates.compare(Trained(ends[0], ends[1]), Trained(ends[2], ends[3]))
    return {key: sums.cosine for key, sums in updates.pooled(found.updates).items()}


def test_a_lineage_is_parallel_to_itself_and_opposite_to_its_reverse(tmp_path: Path) -> None:
    source = saved(tiny("deepseek_v3"), tmp_path / "source")
    after = trained(source, tmp_path / "after", 0)
    same = cosines(source, after, source, after)
    assert {group for group, _ in same} == {*slices.GROUPS, "all"}
    assert same == pytest.approx(dict.fromkeys(same, 1.0), rel=1e-12)
    assert cosines(source, after, after, source) == pytest.approx(dict.fromkeys(same, -1.0))


def test_what_is_learnt_at_random_is_orthogonal(tmp_path: Path) -> None:
    source = saved(tiny("olmoe"), tmp_path / "source")
    one, other = (trained(source, tmp_path / str(seed), seed) for seed in (1, 2))
    found = cosines(source, one, source, other)
    # The standard deviation of such a cosine is 1 / sqrt(numbers).
    assert abs(found["experts", "all"]) < 5 / (3 * 8 * 3 * 16 * 32) ** 0.5


def test_a_lineage_that_did_not_move_has_no_direction(tmp_path: Path) -> None:
    source = saved(tiny("olmoe"), tmp_path / "source")
    after = trained(source, tmp_path / "after", 0)
    assert np.isnan(list(cosines(source, source, source, after).values())).all()


@pytest.mark.parametrize(
    "operators", [[Depth()], [Depth(order="stack")], [EXACT], [EXACT, Depth()]]
)
@pytest.mark.parametrize("stacked", [False, True])
def test_copies_are_compared_with_their_original(
    tmp_path: Path, operators: list[Depth | Width], stacked: bool
) -> None:
    source = saved(tiny("qwen2_moe"), tmp_path / "source", stacked=stacked)
    after = trained(source, tmp_path / "after", 0)
    grow(source, tmp_path / "grown", operators, seed=0)
    # Growth copies what was learnt: every copy moved just as its original did.
    grow(after, tmp_path / "grown-after", operators, seed=0)
    found = cosines(source, after, tmp_path / "grown", tmp_path / "grown-after")
    assert found == pytest.approx(dict.fromkeys(found, 1.0), abs=1e-6)
    assert ("experts", "copy") in found
    assert ("embedding", "copy") not in found
    # The other way round is the same question.
    turned = cosines(tmp_path / "grown", tmp_path / "grown-after", source, after)
    assert turned == pytest.approx(found, abs=1e-12)
    deep = any(isinstance(operator, Depth) for operator in operators)
    assert (("attention", "copy") in found) == deep


def test_two_growths_of_one_source_meet_in_it(tmp_path: Path) -> None:
    source = saved(tiny("olmoe"), tmp_path / "source")
    after = trained(source, tmp_path / "after", 0)
    ends = []
    for name, operators in (("deep", [Depth()]), ("wide", [EXACT])):
        for start in (source, after):
            ends.append(tmp_path / f"{name}-{start.name}")
            grow(start, ends[-1], operators, seed=0)
    found = cosines(*ends)
    assert found == pytest.approx(dict.fromkeys(found, 1.0), abs=1e-6)


def test_lineages_that_share_no_network_are_refused(tmp_path: Path) -> None:
    source = saved(tiny("olmoe"), tmp_path / "source")
    after = trained(source, tmp_path / "after", 0)
    larger = saved(tiny("olmoe", layers=4), tmp_path / "larger")
    with pytest.raises(GrowpointError, match="do not come from one network"):
        cosines(source, after, larger, larger)
    with pytest.raises(GrowpointError, match="not the same network"):
        cosines(source, larger, source, after)
    stacked = saved(tiny("olmoe"), tmp_path / "stacked", stacked=True)
    with pytest.raises(GrowpointError, match="no counterpart"):
        cosines(source, after, stacked, stacked)


def moments(folder: Path, named: Weights) -> None:
    kinds = ("exp_avg", "exp_avg_sq")
    tensors = {f"{kind}.{name}": t.clone() for name, t in named.items() for kind in kinds}
    save_file(tensors, folder / "optimizer.safetensors")


def test_first_moments_are_compared_where_both_ends_have_them(tmp_path: Path) -> None:
    source = saved(tiny("olmoe"), tmp_path / "source")
    after = trained(source, tmp_path / "after", 0)
    grow(source, tmp_path / "grown", [Depth()], seed=0)
    last = trained(tmp_path / "grown", tmp_path / "last", 1)
    (last / "growth.json").write_bytes((tmp_path / "grown/growth.json").read_bytes())
    ends = look(source, after, tmp_path / "grown", last)
    pairs = Trained(*ends[:2]), Trained(*ends[2:])
    assert updates.compare(*pairs).without_moments == ("after", "last")
    # Optimizers name weights as modules do: experts stacked.
    stacked = weights(saved(tiny("olmoe"), tmp_path / "stacked", stacked=True))
    moments(after, stacked)
    assert updates.compare(*pairs).without_moments == ("last",)
    deep: Weights = {}
    for name, tensor in stacked.items():
        head, layers, rest = name.partition("layers.")
        layer, _, tail = rest.partition(".")
        for copy, sign in ((0, 1.0), (1, -1.0)) if layers else ():
            deep[f"{head}layers.{2 * int(layer) + copy}.{tail}"] = sign * tensor
        if not layers:
            deep[name] = tensor
    moments(last, deep)
    found = updates.compare(*pairs)
    assert not found.without_moments
    assert found.moments.keys() == found.updates.keys()
    for part, sums in found.moments.items():
        assert sums.cosine == pytest.approx(-1.0 if part.is_copy else 1.0)
        assert sums.numbers == found.updates[part].numbers


def test_a_damaged_optimizer_state_is_an_error(tmp_path: Path) -> None:
    source = saved(tiny("olmoe"), tmp_path / "source")
    after = trained(source, tmp_path / "after", 0)
    (after / "optimizer.safetensors").write_bytes(b"short")
    with pytest.raises(GrowpointError, match="damaged"):
        cosines(source, after, source, after)


def test_quantised_weights_have_no_updates(tmp_path: Path) -> None:
    source = as_dtype(saved(tiny("olmoe"), tmp_path / "source"), torch.float8_e5m2)
    with pytest.raises(GrowpointError, match="from their rounding"):
        cosines(source, source, source, source)


def test_memory_is_bounded(tmp_path: Path) -> None:
    """Not even one tensor is in memory at once."""
    import tracemalloc

    source = saved(tiny("olmoe"), tmp_path / "source")
    embedding = {"model.embed_tokens.weight": torch.randn(128 * 4096, 32)}
    large = changed(source, tmp_path / "large", lambda found: {**found, **embedding})
    (each,) = look(large)
    tracemalloc.start()
    norms.profile(each.found, each.family)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    size = load_file(large / "model.safetensors")["model.embed_tokens.weight"].nbytes
    assert size > 2 * 30e6
    assert peak < 30e6
