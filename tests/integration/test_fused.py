"""Liger's kernel makes the losses and gradients that pieces make: by Triton's interpreter."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator import fused
from sweeps.cluster import Local, Slurm
from sweeps.errors import GrowpointError
from tests.integration.tiny_corpus import prepared
from tests.integration.tiny_families import saved, tiny
from tests.integration.together import Place, Together

LIGER: dict[str, Any] = {"how": {"liger": True}, "logits": 7 * 300}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Two processes that interpret what a GPU would be given."""
    folder = tmp_path_factory.mktemp("fused")
    corpus, tokens = prepared(folder / "corpus")
    with _interpreting(folder, tokens, 2) as pair:
        yield Place(folder, corpus, tokens, pair)


@pytest.fixture(scope="module")
def single(place: Place) -> Iterator[Together]:
    with _interpreting(place.folder, place.tokens, 1) as one:
        yield one


def _interpreting(folder: Path, tokens: Path, world: int) -> Together:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("TRITON_INTERPRET", "1")
        return Together(folder, tokens, world)


# deepseek_v3 has no router's loss; gpt_oss has biases, and experts of another layout.
@pytest.mark.parametrize(
    ("family", "tied"),
    [("olmoe", False), ("olmoe", True), ("deepseek_v3", False), ("gpt_oss", False)],
)
def test_it_makes_the_same_losses_and_gradients(
    family: str, tied: bool, place: Place, single: Together
) -> None:
    """Weights, moments and losses after three steps, against whole logits."""
    name = f"{family}-{tied}"
    source = saved(tiny(family, vocabulary=300, tied=tied), place.folder / name)
    (came,) = single.train(place.do(3), f"{name}-liger", source, micro_batch_tokens=32, **LIGER)
    assert came["head_loss"] == "liger"
    assert place.alone(place.do(3), f"{name}-whole", 2, source=source).head_loss == "whole"
    place.require_same(f"{name}-liger", f"{name}-whole")


def test_in_bf16_it_differs_by_rounding(place: Place, single: Together) -> None:
    source = place.folder / "init"
    do = place.do(3, precision="bf16")
    (came,) = single.train(do, "liger16", source, micro_batch_tokens=32, **LIGER)
    assert (came["head_loss"], came["precision"]) == ("liger", "bf16")
    place.alone(do, "whole16", 2)
    place.require_same("liger16", "whole16", tolerance=2e-3)


@pytest.mark.parametrize("tied", [False, True])
def test_on_several_ranks(tied: bool, place: Place) -> None:
    name = f"two-{tied}"
    source = saved(tiny("olmoe", vocabulary=300, tied=tied), place.folder / name)
    came = place.both(place.do(3), f"{name}-liger", rows=2, source=source, **LIGER)
    assert [said["head_loss"] for said in came] == ["liger", "liger"]
    place.alone(place.do(3), f"{name}-whole", rows=2, source=source)
    place.require_same(f"{name}-liger", f"{name}-whole")


def test_few_logits_are_left_whole(place: Place, single: Together) -> None:
    source = place.folder / "init"
    (came,) = single.train(place.do(1), "few", source, how={"liger": True})
    assert came["head_loss"] == "whole"


def test_a_cpu_is_refused() -> None:
    with pytest.raises(GrowpointError, match="run on a GPU alone") as caught:
        fused.require("cpu")
    assert caught.value.help == "cluster.liger=false"


def test_a_missing_package_is_told_before_anything_is_launched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fused, "PACKAGE", "liger_of_nobody")
    for cluster in (Local(liger=True), Slurm(partition="p", liger=True)):
        with pytest.raises(GrowpointError, match="not installed") as caught:
            fused.require_installed(cluster)
        assert caught.value.help == "pip install 'growpoint[liger]'"
    fused.require_installed(Local())
    fused.require_installed(Slurm(partition="p", liger=True, python="/elsewhere/python"))
