"""Headers are held against the model class: what is missing, misshapen or unknown is named."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from orchestrator.checkpoint import entries
from orchestrator.grow import grow
from orchestrator.model_class import main, mismatches
from sweeps.errors import GrowpointError
from sweeps.growth import Depth, Width, grown
from sweeps.model import tensors, to_config
from tests.integration.tiny_families import ALL, PERIODIC, REFUSED, edit, quantised, saved, tiny

Shapes = dict[str, tuple[int, ...]]


def shapes(name: str, stacked: bool = False, **changes: Any) -> Shapes:
    return {tensor.name: tensor.shape for tensor in tensors(tiny(name, **changes), stacked)}


@pytest.mark.parametrize("stacked", [False, True], ids=["separate", "stacked"])
@pytest.mark.parametrize("name", [*ALL, *REFUSED])
def test_what_a_family_describes_fits_its_class(name: str, stacked: bool) -> None:
    assert mismatches(shapes(name, stacked), to_config(tiny(name))) == []


@pytest.mark.parametrize("name", ALL)
def test_grown_networks_fit_their_class(name: str) -> None:
    depth = Depth(order="stack" if name in PERIODIC else "interpose")
    target = grown(tiny(name), [depth, Width(factor=3)])
    found = {tensor.name: tensor.shape for tensor in tensors(target)}
    assert mismatches(found, to_config(target)) == []


def test_a_grown_checkpoint_is_checked_by_a_process_of_its_own(tmp_path: Path) -> None:
    source = saved(tiny("qwen3_moe"), tmp_path / "source")
    grow(source, tmp_path / "grown", [Depth(), Width()], seed=0)
    command = [sys.executable, "-m", "orchestrator.model_class"]
    good = subprocess.run([*command, tmp_path / "grown"], capture_output=True, check=False)
    assert (good.returncode, json.loads(good.stdout)) == (0, [])
    path = next((tmp_path / "grown").glob("*.safetensors"))
    found = load_file(path)
    del found["model.layers.3.mlp.gate.weight"]
    save_file(found, path, {"format": "pt"})
    bad = subprocess.run([*command, tmp_path / "grown"], capture_output=True, check=False)
    assert bad.returncode == 1
    assert json.loads(bad.stdout) == ["missing: model.layers.3.mlp.gate.weight [16, 32]"]


def test_what_cannot_be_read_is_told_from_what_does_not_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "absent")]) == 2
    assert main([]) == 2
    saved(tiny("olmoe"), tmp_path / "whole")
    capsys.readouterr()
    assert main([str(tmp_path / "whole")]) == 0
    assert capsys.readouterr().out == "[]\n"
    edit(tmp_path / "whole", num_attention_heads="many")
    assert main([str(tmp_path / "whole")]) == 2
    assert "cannot build" in capsys.readouterr().err


ROUTER, EXPERT = "model.layers.1.mlp.gate.weight", "model.layers.2.mlp.experts.5.up_proj.weight"


@pytest.mark.parametrize("name", [ROUTER, EXPERT, "model.norm.weight"])
def test_one_wrong_tensor_is_named(name: str) -> None:
    config, found = to_config(tiny("qwen3_moe")), shapes("qwen3_moe")
    shape = list(found[name])
    without = {key: value for key, value in found.items() if key != name}
    assert mismatches(without, config) == [f"missing: {name} {shape}"]
    other = [shape[0] + 1, *shape[1:]]
    assert mismatches({**found, name: tuple(other)}, config) == [
        f"shape: {name} is {other}, not {shape}"
    ]
    renamed = {**without, f"{name}.novel": found[name]}
    assert mismatches(renamed, config) == [
        f"missing: {name} {shape}",
        f"unknown: {name}.novel {shape}",
    ]


def test_a_layer_or_an_expert_too_few_is_found() -> None:
    more = to_config(tiny("qwen3_moe", layers=4))
    assert len(mismatches(shapes("qwen3_moe"), more)) == len(
        [name for name in shapes("qwen3_moe", layers=4) if "layers.3." in name]
    )
    wider = to_config(tiny("qwen3_moe", experts=9))
    assert {line.split()[0] for line in mismatches(shapes("qwen3_moe"), wider)} == {
        "missing:",
        "shape:",
    }


def test_tied_heads_may_be_written_or_not() -> None:
    config = to_config(tiny("olmoe", tied=True))
    assert mismatches(shapes("olmoe", tied=True), config) == []
    assert mismatches(shapes("olmoe"), config) == []
    untied = to_config(tiny("olmoe"))
    assert mismatches(shapes("olmoe", tied=True), untied) == ["missing: lm_head.weight [64, 32]"]


def test_layers_that_predict_ahead_are_the_classs_to_ignore() -> None:
    config = {**to_config(tiny("deepseek_v3")), "num_nextn_predict_layers": 1}
    ahead = {**shapes("deepseek_v3"), "model.layers.61.eh_proj.weight": (32, 64)}
    assert mismatches(ahead, config) == []
    other = {**shapes("deepseek_v3"), "model.layers.60.eh_proj.weight": (32, 64)}
    assert mismatches(other, config) == ["unknown: model.layers.60.eh_proj.weight [32, 64]"]


def test_packed_numbers_and_scales_go_with_their_tensor(tmp_path: Path) -> None:
    source = quantised(saved(tiny("mixtral"), tmp_path / "source"))
    found = {name: entry.shape for name, entry in entries(source).items()}
    config = {**to_config(tiny("mixtral")), "quantization_config": {"quant_method": "fp8"}}
    assert mismatches(found, config) == []
    whole = shapes("gpt_oss")
    packed = {name: shape for name, shape in whole.items() if not name.endswith("up_proj")}
    assert len(mismatches(packed, to_config(tiny("gpt_oss")))) == 3
    for layer in range(3):
        packed[f"model.layers.{layer}.mlp.experts.gate_up_proj_blocks"] = (8, 32, 1, 16)
        packed[f"model.layers.{layer}.mlp.experts.gate_up_proj_scales"] = (8, 32, 1)
    assert mismatches(packed, to_config(tiny("gpt_oss"))) == []


def test_a_network_far_larger_than_memory_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: dict[str, Any] = {
        "hidden": 4096,
        "expert_hidden": 16384,
        "experts": 64,
        "head_dim": 1024,
    }
    config = to_config(tiny("olmoe", **sizes))
    monkeypatch.setattr(torch, "empty", _refuse_memory(torch.empty))
    assert mismatches(shapes("olmoe", **sizes), config) == []


def _refuse_memory(make: Any) -> Any:
    def empty(*arguments: Any, **named: Any) -> torch.Tensor:
        made: torch.Tensor = make(*arguments, **named)
        assert made.device.type == "meta" or made.numel() < 1 << 20
        return made

    return empty


def test_classes_that_transformers_does_not_know_are_refused() -> None:
    with pytest.raises(GrowpointError, match="cannot build"):
        mismatches({}, {"model_type": "novel"})
