"""Noise: on copies only, as asked, and a function of seed and name alone."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from orchestrator.grow import grow
from sweeps.family import load
from sweeps.growth import Depth, Width, grown, label
from sweeps.model import tensors
from tests.integration.tiny_families import FAMILIES, as_dtype, same, saved, tiny, weights

EXACT = Width(noise=0)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tiny("olmoe"), tmp_path_factory.mktemp("olmoe") / "source")


CHAINS: list[list[Depth | Width]] = [
    [Width(noise=0.1), Depth()],
    [Depth(), Width(noise=0.1)],
    [Width(noise=0.1), Width(noise=0.2, factor=3)],
    [Width(noise=0.1, order="interleaved"), Width(redrawn=0.3), Depth(layers=(0, 1, 1, 2))],
    [Depth(), Width(redrawn=0.5, noise=0), Width(noise=0.1, order="interleaved")],
    [Width(experts="random"), Depth(copies="zeroed"), Width(router="random")],
    [Width(experts="random", router="random"), Width(noise=0.1), Width(experts="kept")],
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("stacked", [False, True], ids=["separate", "stacked"])
@pytest.mark.parametrize("chain", CHAINS, ids=label)
def test_a_chain_is_its_operators_one_after_the_other(
    chain: Sequence[Depth | Width], stacked: bool, dtype: torch.dtype, tmp_path: Path
) -> None:
    """Bit for bit, with noise and rounding at every step."""
    source = as_dtype(saved(tiny("olmoe"), tmp_path / "source", stacked=stacked), dtype)
    grow(source, tmp_path / "at_once", chain, seed=3)
    folder = source
    for number, operator in enumerate(chain):
        grow(folder, tmp_path / f"step{number}", [operator], seed=3)
        folder = tmp_path / f"step{number}"
    assert same(weights(tmp_path / "at_once"), weights(folder))


@pytest.mark.parametrize("name", FAMILIES)
def test_noise_is_on_copies_of_experts_and_routers_only(name: str, tmp_path: Path) -> None:
    model, family = tiny(name, expert_hidden=64), load(tiny(name).family)
    source = saved(model, tmp_path / "source")
    grow(source, tmp_path / "wide", [Width(noise=0.1)], seed=0)
    grow(source, tmp_path / "exact", [EXACT], seed=0)
    noisy, exact = weights(tmp_path / "wide"), weights(tmp_path / "exact")
    shares: list[float] = []
    for tensor in tensors(grown(model, [EXACT])):
        change = noisy[tensor.name] - exact[tensor.name]
        is_weight = tensor.section in ("expert", "router") and exact[tensor.name].shape[0] > 1
        is_weight &= len(tensor.shape) == (3 if "{expert}" not in str(family.expert) else 2) or (
            tensor.section == "router" and len(tensor.shape) == 2
        )
        if not is_weight:
            assert not change.any(), tensor.name
        elif tensor.expert is not None:
            assert change.any() == (tensor.expert >= model.experts), tensor.name
            if tensor.expert >= model.experts:
                shares.append(float(change.std() / exact[tensor.name].std()))
        else:
            assert not change[: model.experts].any(), tensor.name
            assert change[model.experts :].flatten(1).any(dim=1).all(), tensor.name
            shares.append(float(change[model.experts :].std() / exact[tensor.name].std()))
    assert shares
    assert sum(shares) / len(shares) == pytest.approx(0.1, rel=0.02)


@pytest.mark.parametrize(
    "width",
    [Width(factor=3), Width(factor=3, experts="random", router="random")],
    ids=lambda width: width.label,
)
def test_no_two_draws_are_alike(width: Width, source: Path, tmp_path: Path) -> None:
    """Copies must be able to become different: every copy has noise of its own."""
    grow(source, tmp_path / "grown", [Depth(), width], seed=0)
    grow(source, tmp_path / "exact", [Depth(), Width(factor=3, noise=0)], seed=0)
    noisy, exact = weights(tmp_path / "grown"), weights(tmp_path / "exact")
    rows = [
        row / row.std()
        for name in noisy
        for row in (noisy[name] - exact[name]).flatten(1 if noisy[name].ndim > 1 else 0)
        if row.ndim and row.any()
    ]
    heads = {tuple(row[:8].mul(100).round().tolist()) for row in rows}
    assert len(heads) == len(rows) > 1000


@pytest.mark.parametrize(
    "width",
    [Width(), Width(noise=0, redrawn=0.5), Width(experts="random"), Width(router="random")],
    ids=lambda width: width.label,
)
def test_what_is_drawn_depends_on_the_seed_alone(
    width: Width, source: Path, tmp_path: Path
) -> None:
    for name, seed, size in (("a", 1, 10**9), ("b", 1, 20_000), ("c", 1, 1), ("d", 2, 10**9)):
        grow(source, tmp_path / name, [Depth(), width], seed=seed, shard_bytes=size)
    a, b, c, d = (weights(tmp_path / name) for name in "abcd")
    assert same(a, b)
    assert same(a, c)
    assert not same(a, d)
    assert len(list((tmp_path / "a").glob("*.safetensors"))) == 1
    assert len(list((tmp_path / "c").glob("*.safetensors"))) == len(a)


def test_two_growths_are_the_same_files(source: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        grow(source, tmp_path / name, [Depth(), Width()], seed=1, shard_bytes=50_000)
    a, b = ((tmp_path / name / "manifest.json").read_bytes() for name in "ab")
    assert a == b
