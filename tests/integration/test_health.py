"""How training fares after growth: loads of experts, the jump of the loss, copies growing apart."""

from pathlib import Path

import pytest
import torch

from orchestrator import grow, health, models
from orchestrator.loads import Loads, balance
from sweeps.growth import Width, expert_map
from tests.integration.tiny_families import FAMILIES, network, saved, tiny

TOKENS = torch.randint(0, 64, (2, 24), generator=torch.Generator().manual_seed(1))
# It computes all experts for each token, and no choice is handed out.
SHOWS_NOTHING = {"llama4_text"}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_choice_of_the_router_is_counted(name: str, tmp_path: Path) -> None:
    model = tiny(name)
    made = models.load(saved(model, tmp_path / name))
    loads = Loads(made)
    with torch.no_grad(), loads.counted():
        made(input_ids=TOKENS, use_cache=False)
    counts = loads.counts()
    if name in SHOWS_NOTHING:
        assert counts is None
        return
    assert counts is not None
    assert counts.shape[1] == model.experts
    assert (counts.sum(dim=1) == TOKENS.numel() * model.top_k).all()
    loads.clear()
    assert loads.counts() is None


def test_passes_of_one_batch_add_up() -> None:
    made = network(tiny("olmoe"))
    loads = Loads(made)
    with torch.no_grad():
        with loads.counted():
            made(input_ids=TOKENS, use_cache=False)
        whole = loads.counts()
        loads.clear()
        for part in TOKENS.split(1):
            with loads.counted():
                made(input_ids=part, use_cache=False)
            made(input_ids=part, use_cache=False)  # what nobody asked to count
    parts = loads.counts()
    assert whole is not None
    assert parts is not None
    assert torch.equal(whole, parts)


def test_balance_by_hand() -> None:
    counts = torch.tensor([[4, 4, 4, 4], [16, 0, 0, 0]])
    assert balance(counts) == {"expert_load": 2.5, "idle_experts": 3}
    assert balance(None) == {"expert_load": None, "idle_experts": None}


def line(tokens: int, loss: float) -> dict[str, float]:
    return {"tokens": tokens, "loss": loss}


def test_the_jump_is_the_highest_loss_on_the_way_back() -> None:
    source = [line(100, 5.0), line(200, 3.0)]
    branch = [line(10, 3.5), line(20, 4.0), line(30, 2.9), line(40, 6.0)]
    assert health.jump(source, branch) == (3.0, 1.0, 30)


def test_without_a_jump_the_first_line_is_the_way_back() -> None:
    assert health.jump([line(200, 3.0)], [line(10, 2.5), line(20, 9.0)]) == (3.0, 0.0, 10)


def test_a_loss_that_does_not_come_back_has_no_way_back() -> None:
    assert health.jump([line(200, 3.0)], [line(10, 3.5), line(20, 3.1)]) == (3.0, 0.5, None)
    assert health.jump([], [line(10, 3.5)]) is None


@pytest.mark.parametrize("name", ["olmoe", "gpt_oss"])  # experts apart, and stacked
def test_copies_are_alike_until_noise_parts_them(name: str, tmp_path: Path) -> None:
    source = saved(tiny(name), tmp_path / "source")
    found = {}
    for noise in (0.0, 0.1, 1.0):
        width = Width(factor=2, noise=noise)
        grow.grow(source, tmp_path / f"grown{noise}", (width,), 0)
        source_of = expert_map(8, (width,))
        found[noise] = health.alikeness(tmp_path / f"grown{noise}", source_of)
    # Noise of α standard deviations on weights of mean 0: a cosine of 1 / √(1 + α²).
    assert found[0.0] == pytest.approx(1.0, abs=1e-6)
    assert found[0.1] == pytest.approx(0.995, abs=0.002)
    assert found[1.0] == pytest.approx(0.707, abs=0.05)


def test_where_nothing_was_copied_there_is_nothing_to_compare(tmp_path: Path) -> None:
    assert health.alikeness(saved(tiny("olmoe"), tmp_path / "source"), tuple(range(8))) is None
