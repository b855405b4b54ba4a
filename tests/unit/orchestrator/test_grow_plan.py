"""Planning from headers alone: frugal, and without the libraries that only arithmetic needs."""

import gc
import subprocess
import sys
import tracemalloc
from math import prod
from pathlib import Path

import pytest

from orchestrator.checkpoint import Entry
from orchestrator.grow_plan import plan
from sweeps.errors import GrowpointError
from sweeps.growth import Depth, Width, grown
from sweeps.model import Model, tensors
from tests.unit.sweeps.test_growth import model

FILE = Path("model.safetensors")


def headers(of: Model, dtype: str = "BF16") -> dict[str, Entry]:
    """What the headers of a checkpoint would say; no byte of it is there."""
    found, at = {}, 0
    for tensor in tensors(of):
        end = at + 2 * prod(tensor.shape)
        found[tensor.name] = Entry(FILE, dtype, tensor.shape, at, end)
        at = end
    return found


def held(found: dict[str, Entry], before: Model, operators: list[Depth | Width]) -> float:
    """Bytes that a plan holds for each tensor of the result."""
    gc.collect()
    tracemalloc.start()
    planned = plan(found, before, operators, 0)
    gc.collect()
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return size / len(planned.tensors)


def test_plans_are_small() -> None:
    """Growth of 700 billion parameters plans 359 thousand tensors: 170 bytes each are 61 MB."""
    before = model(layers=8, experts=64)
    found = headers(before)
    assert held(found, before, [Depth(), Width(noise=0)]) < 170
    # Noise on a copy is a block of its own, with the key it is drawn by.
    assert held(found, before, [Depth(), Width()]) < 350


@pytest.mark.parametrize("module", ["sweeps.growth", "orchestrator.grow_plan"])
def test_planning_loads_nothing_for_arithmetic(module: str) -> None:
    heavy = "[name for name in ('numpy', 'torch', 'pandas') if name in sys.modules]"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys, {module}; print({heavy})"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_planned_names_and_shapes_are_those_of_the_grown_model() -> None:
    before = model("qwen2_moe", layers=3)
    operators: list[Depth | Width] = [Depth(layers=(0, 1, 1, 2)), Width(order="interleaved")]
    planned = plan(headers(before), before, operators, 0).tensors
    expected = {tensor.name: tensor.shape for tensor in tensors(grown(before, operators))}
    assert {tensor.name: tensor.shape for tensor in planned} == expected
    assert len(planned) == len(expected)
    assert all(tensor.size_bytes == 2 * prod(tensor.shape) for tensor in planned)


def test_tensors_that_do_not_fit_config_json_are_named() -> None:
    before = model()
    found = headers(before)
    name = "model.layers.2.mlp.experts.3.up_proj.weight"
    found[name] = found[name]._replace(shape=(31, 64))
    with pytest.raises(GrowpointError, match="does not fit its config") as caught:
        plan(found, before, [Depth()], 0)
    evidence = dict(caught.value.evidence)
    assert (evidence["tensor"], evidence["shape"]) == (name, "[31, 64]")
    assert evidence["expected"] == "[32, 64]"
    del found[name]
    with pytest.raises(GrowpointError, match="lacks 1 tensors") as caught:
        plan(found, before, [Depth()], 0)
    assert name in caught.value.text()


def test_packed_experts_grow_with_their_scales() -> None:
    """As gpt-oss lies on the hub: four-bit numbers in blocks, with scales, and biases in bf16."""
    before = model("gpt_oss")
    found = headers(before)
    for name in [name for name in found if name.endswith(("gate_up_proj", "down_proj"))]:
        rows, at = found[name].shape[2], found.pop(name).start
        found[f"{name}_blocks"] = Entry(FILE, "U8", (8, rows, 2, 16), at, at + 8 * rows * 32)
        found[f"{name}_scales"] = Entry(FILE, "U8", (8, rows, 2), at, at + 8 * rows * 2)
    planned = plan(found, before, [Depth(), Width(noise=0, factor=3)], 0).tensors
    shapes = {tensor.name: tensor.shape for tensor in planned}
    assert len(planned) == 2 * len(found) - 3
    for layer in range(12):
        experts = f"model.layers.{layer}.mlp.experts."
        assert shapes[f"{experts}gate_up_proj_blocks"] == (24, 64, 2, 16)
        assert shapes[f"{experts}down_proj_scales"] == (24, 64, 2)
        assert shapes[f"{experts}down_proj_bias"] == (24, 64)
    for width in (Width(), Width(noise=0, redrawn=0.5), Width(noise=0, experts="random")):
        with pytest.raises(GrowpointError, match="quantised") as caught:
            plan(found, before, [width], 0)
        assert dict(caught.value.evidence)["dtype"] == "U8"
