"""New numbers: as many as asked, spread as asked, in the right places, and nothing else touched."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import redrawn
from orchestrator.blocks import Stored, decode, encode
from orchestrator.redrawn import Drawn, Hidden, Redrawn, dimensions, hidden_of
from sweeps.errors import GrowpointError

DTYPES = pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16"])
SIZES = {"expert_hidden": 64, "hidden": 48}


def stored(values: np.ndarray, dtype: str, folder: Path) -> Stored:
    data = encode(values.astype(np.float64 if dtype == "F64" else np.float32), dtype)
    path = folder / "numbers"
    path.write_bytes(b"before" + data + b"after")
    return Stored(path, 6, 6 + len(data), dtype, "some.weight")


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(0.3, 2.0, shape)


@DTYPES
@pytest.mark.parametrize(
    "hidden",
    [
        Hidden((64, 48), 0, 64),
        Hidden((48, 64), 1, 64),
        Hidden((128, 48), 0, 64, parts=2),
        Hidden((48, 128), 1, 64, parts=2, alternating=True),
    ],
    ids=str,
)
def test_chosen_units_are_redrawn_and_all_else_keeps_its_bits(
    hidden: Hidden, dtype: str, tmp_path: Path
) -> None:
    source = stored(normal(*hidden.shape), dtype, tmp_path)
    block = Redrawn(source, hidden, 0.25, 3, "an expert", "key")
    before, after = (np.frombuffer(b.data(), f"V{b.size_bytes // normal(*hidden.shape).size}")
                     .reshape(hidden.shape) for b in (source, block))  # fmt: skip
    changed = (before != after).any(axis=1 - hidden.axis)
    chosen = dimensions(3, "an expert", hidden, 0.25)
    assert len(chosen) == 16
    if hidden.alternating:
        assert changed.tolist() == [unit // 2 in chosen for unit in range(128)]
    else:
        assert changed.tolist() == [unit % 64 in chosen for unit in range(64 * hidden.parts)]
    assert block.data() == block.data()
    assert (block.size_bytes, block.dtype, block.name) == (source.size_bytes, dtype, "some.weight")
    assert block.stored is source


def test_gate_and_up_have_each_their_own_mean_and_spread(tmp_path: Path) -> None:
    """Those of the values replaced, not of the tensor."""
    hidden = Hidden((2048, 256), 0, 1024, parts=2)
    values = np.random.default_rng(0).normal(0, 1, (2048, 256))
    values[:1024] = values[:1024] * 0.5 + 3
    chosen = dimensions(0, "an expert", hidden, 0.5)
    values[1024:][chosen] *= 4
    block = Redrawn(stored(values, "F32", tmp_path), hidden, 0.5, 0, "an expert", "key")
    made = decode(block.data(), "F32").reshape(2048, 256)
    gate, up = made[:1024][chosen], made[1024:][chosen]
    assert gate.mean() == pytest.approx(3, abs=0.01)
    assert gate.std() == pytest.approx(0.5, rel=0.01)
    assert up.mean() == pytest.approx(0, abs=0.05)
    assert up.std() == pytest.approx(4, rel=0.01)
    assert abs(np.corrcoef(gate.ravel(), up.ravel())[0, 1]) < 0.02


@given(share=st.floats(0.0001, 1), size=st.integers(1, 200), owner=st.text(max_size=8))
def test_as_many_units_as_the_share_says(share: float, size: int, owner: str) -> None:
    chosen = dimensions(0, owner, Hidden((size, 3), 0, size), share)
    assert len(set(chosen.tolist())) == len(chosen) == max(1, round(share * size))
    assert chosen.tolist() == sorted(chosen.tolist())
    assert 0 <= chosen.min() <= chosen.max() < size


def test_every_unit_is_chosen_as_often_as_any_other() -> None:
    hidden = Hidden((16, 3), 0, 16)
    chosen = [dimensions(0, f"expert {number}", hidden, 0.25) for number in range(4000)]
    counts = np.bincount(np.concatenate(chosen), minlength=16)
    # 1000 each, with a standard deviation of 27.
    assert abs(counts - 1000).max() < 140


@DTYPES
def test_new_weights_have_the_spread_asked_for(
    dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redrawn, "PIECE", 5000)
    source = stored(normal(130, 100), dtype, tmp_path)
    block = Drawn(source, 0.02, 0, "key")
    values = decode(block.data(), dtype)
    assert len(block.data()) == block.size_bytes == source.size_bytes
    assert values.std() == pytest.approx(0.02, rel=0.03)
    assert abs(values.mean()) < 0.001
    assert block.data() == Drawn(source, 0.02, 0, "key").data()
    for other in (Drawn(source, 0.02, 1, "key"), Drawn(source, 0.02, 0, "other")):
        against = decode(other.data(), dtype)
        assert abs(np.corrcoef(values, against)[0, 1]) < 0.04
    # Neighbouring pieces are drawn apart.
    assert abs(np.corrcoef(values[:5000], values[5000:10000])[0, 1]) < 0.06


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_named(bad: float, tmp_path: Path) -> None:
    values = normal(64, 48)
    values[:, 7] = bad
    block = Redrawn(stored(values, "F32", tmp_path), Hidden((64, 48), 0, 64), 0.5, 0, "e", "key")
    with pytest.raises(GrowpointError, match="not finite") as caught:
        block.data()
    assert "some.weight" in caught.value.text()


def test_shapes_say_where_the_hidden_dimension_lies() -> None:
    assert hidden_of(("expert_hidden", "hidden"), SIZES, False) == Hidden((64, 48), 0, 64)
    assert hidden_of(("hidden", "2*expert_hidden"), SIZES, True) == Hidden(
        (48, 128), 1, 64, parts=2, alternating=True
    )
    for wrong in (("hidden", "hidden"), ("expert_hidden", "expert_hidden"), ("expert_hidden",)):
        with pytest.raises(GrowpointError, match="where an expert's hidden dimension lies"):
            hidden_of(wrong, SIZES, False)
