"""Growth at noise 0 keeps what every family computes, through files and the model class.

In single precision and on logits of the order of one, what is left are roundings: at most 1e-5, or
1e-5 of the largest logit where that is above one.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from orchestrator.grow import grow
from sweeps import family as families
from sweeps.family import Family
from sweeps.growth import Depth, Width
from tests.integration.tiny_families import ALL, FAMILIES, PERIODIC, REFUSED, saved, tiny

EXACT = Width(noise=0)
EVERY = [*ALL, *REFUSED]


def depth_of(name: str, **changes: Any) -> Depth:
    """The depth growth that the family's config.json can hold."""
    return Depth(order="stack" if name in PERIODIC else "interpose", **changes)


def logits(folder: Path) -> torch.Tensor:
    """[2, 24, vocabulary], from weights that are copied to aligned memory.

    Weights in a mapped file lie as the file has them, and kernels differ by alignment: the same
    numbers at another place can give another last bit.
    """
    made = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    for tensor in (*made.parameters(), *made.buffers()):
        tensor.data = tensor.data.clone()
    tokens = torch.randint(0, 64, (2, 24), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found: torch.Tensor = made(tokens).logits
    return found


def change(source: Path, target: Path) -> float:
    """Largest change of a logit, as a share of the largest one if that is above one."""
    before = logits(source)
    assert 0.3 < before.abs().max() < 10
    return float((before - logits(target)).abs().max() / before.abs().max().clamp(min=1))


@pytest.mark.parametrize("name", EVERY)
def test_zeroed_copies_change_no_bit(name: str, tmp_path: Path) -> None:
    source = saved(tiny(name), tmp_path / "source")
    grow(source, tmp_path / "deep", [depth_of(name, copies="zeroed")], seed=0)
    assert change(source, tmp_path / "deep") == 0.0


@pytest.mark.parametrize("factor", [2, 3])
@pytest.mark.parametrize("name", ALL)
def test_wider_and_deeper_networks_compute_the_same(name: str, factor: int, tmp_path: Path) -> None:
    """Twice as deep, then wider: the function is kept by each operator, and so by both."""
    source = saved(tiny(name), tmp_path / "source")
    operators: list[Depth | Width] = [
        depth_of(name, copies="zeroed"),
        Width(factor=factor, noise=0),
    ]
    grow(source, tmp_path / "grown", operators, seed=0)
    assert change(source, tmp_path / "grown") <= 1e-5


@pytest.mark.parametrize("name", ALL)
def test_more_experts_with_the_same_top_k_compute_something_else(name: str, tmp_path: Path) -> None:
    """The control: the limit above is far below what a growth does that keeps nothing."""
    source = saved(tiny(name), tmp_path / "source")
    grow(source, tmp_path / "wide", [Width(noise=0, top_k="kept")], seed=0)
    assert change(source, tmp_path / "wide") > 1e-3


def tied(folder: Path, family: Family) -> Path:
    """Give the second of each pair of neighbouring experts the router row and bias of the first."""
    path = folder / "model.safetensors"
    found = load_file(path)
    for name, tensor in found.items():
        place = families.place(family, name)
        if place and place.section == "router":
            rows = tensor.T if tensor.shape[0] == 1 else tensor
            rows[1::2] = rows[::2].clone()
    save_file(found, path, {"format": "pt"})
    return folder


@pytest.mark.parametrize("name", FAMILIES)
def test_experts_of_equal_score_are_chosen_alike(name: str, tmp_path: Path) -> None:
    """A token's two experts have one score: their four copies are chosen, and none of a third."""
    source = tied(saved(tiny(name), tmp_path / "source"), families.load(name))
    grow(source, tmp_path / "wide", [EXACT], seed=0)
    assert change(source, tmp_path / "wide") <= 1e-5


@pytest.mark.parametrize("name", FAMILIES)
def test_copies_of_copies_are_chosen_alike(name: str, tmp_path: Path) -> None:
    """After one growth every score is there twice, also at the edge of the top-k."""
    source = saved(tiny(name), tmp_path / "source")
    grow(source, tmp_path / "once", [EXACT], seed=0)
    grow(tmp_path / "once", tmp_path / "twice", [EXACT], seed=0)
    assert change(source, tmp_path / "twice") <= 1e-5
