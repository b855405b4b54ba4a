"""What lies in a grown folder: shards, config.json, the card; and how bytes get there."""

import errno
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from orchestrator import grow_plan, shards, stream
from orchestrator.checkpoint import entries, verify
from orchestrator.grow import grow
from orchestrator.headers import BITS
from sweeps.errors import GrowpointError
from sweeps.growth import Depth, Width
from tests.integration.tiny_families import (
    as_dtype,
    edit,
    logits,
    model_of,
    quantised,
    same,
    saved,
    tiny,
    weights,
)

EXACT = Width(noise=0)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tiny("olmoe"), tmp_path_factory.mktemp("olmoe") / "source")


def test_shards_keep_to_their_size_and_load(source: Path, tmp_path: Path) -> None:
    grow(source, tmp_path / "deep", [Depth()], seed=0, shard_bytes=40_000)
    for path in (tmp_path / "deep").glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            tensors_bytes = [file.get_tensor(name).nbytes for name in file.keys()]  # noqa: SIM118
        assert sum(tensors_bytes) <= 40_000 or len(tensors_bytes) == 1
    assert torch.isfinite(logits(tmp_path / "deep")).all()


def test_mixed_types_stay_aligned(tmp_path: Path) -> None:
    """Some tensors of bf16 checkpoints are fp32; readers map files, so numbers must be aligned."""
    source = as_dtype(saved(tiny("deepseek_v3", hidden=36), tmp_path / "source"), torch.bfloat16)
    path = source / "model.safetensors"
    mixed = load_file(path)
    for name in mixed:
        if name.endswith("e_score_correction_bias"):
            mixed[name] = mixed[name].float()
    mixed["model.norm.weight"] = mixed["model.norm.weight"].double()
    save_file(mixed, path, {"format": "pt"})
    grow(source, tmp_path / "grown", [Depth(), EXACT], seed=0)
    after = weights(tmp_path / "grown")
    for entry in entries(tmp_path / "grown").values():
        assert entry.start % (BITS[entry.dtype] // 8) == 0
    assert torch.equal(after["model.norm.weight"], mixed["model.norm.weight"])
    name = "model.layers.{}.mlp.gate.e_score_correction_bias"
    assert torch.equal(after[name.format(2)], mixed[name.format(1)].repeat(2))


def test_copying_works_without_help_of_the_kernel(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grow(source, tmp_path / "kernel", [Depth()], seed=0)

    def refuse(*_: object) -> int:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "copy_file_range", refuse)
    monkeypatch.setattr(stream, "COPY_BYTES", 1000)
    grow(source, tmp_path / "plain", [Depth()], seed=0)
    assert same(weights(tmp_path / "kernel"), weights(tmp_path / "plain"))


def test_neighbouring_ranges_are_copied_at_once(source: Path) -> None:
    planned = grow_plan.plan(entries(source), tiny("olmoe"), [Depth()], 0)
    blocks = [block for tensor in planned.tensors for block in tensor.blocks]
    calls = list(shards.merged(iter(blocks)))
    assert sum(block.size_bytes for block in calls) == sum(block.size_bytes for block in blocks)
    assert len(calls) <= 3 * 6 + 2 < len(planned.tensors) < len(blocks)


def test_progress_ends_at_the_total(source: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    report = grow(
        source,
        tmp_path / "t",
        [Width()],
        0,
        on_progress=lambda done, whole: told.append((done, whole)),
    )
    assert told[-1] == (report.bytes, report.bytes)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_prediction_layers_are_left_out(tmp_path: Path) -> None:
    source = saved(tiny("deepseek_v3"), tmp_path / "source")
    path = source / "model.safetensors"
    more = load_file(path)
    more |= {
        name.replace("layers.2.", "layers.3."): tensor.clone()
        for name, tensor in more.items()
        if "layers.2." in name
    }
    more["model.layers.3.eh_proj.weight"] = torch.ones(32, 64)
    save_file(more, path, {"format": "pt"})
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, "num_nextn_predict_layers": 1}))
    report = grow(source, tmp_path / "deep", [Depth()], seed=0)
    assert json.loads((tmp_path / "deep/config.json").read_text())["num_nextn_predict_layers"] == 0
    assert "model.layers.3.eh_proj.weight" in report.dropped
    after = weights(tmp_path / "deep")
    name = "model.layers.{}.self_attn.o_proj.weight"
    assert torch.equal(after[name.format(3)], more[name.format(1)])


def test_quantised_experts_are_copied_byte_by_byte(tmp_path: Path) -> None:
    source = quantised(saved(tiny("deepseek_v3"), tmp_path / "source"))
    grow(source, tmp_path / "grown", [Depth(), EXACT], seed=0)
    before, after = weights(source), weights(tmp_path / "grown")
    for part in ("weight", "weight_scale_inv"):
        copy = after[f"model.layers.3.mlp.experts.9.up_proj.{part}"]
        original = before[f"model.layers.1.mlp.experts.1.up_proj.{part}"]
        assert torch.equal(copy.view(torch.uint8), original.view(torch.uint8))


def test_packed_experts_are_copied_byte_by_byte(tmp_path: Path) -> None:
    """The layout of gpt-oss on the hub: four-bit blocks and scales, all experts in one tensor."""
    source = saved(tiny("gpt_oss"), tmp_path / "source")
    path = source / "model.safetensors"
    found = load_file(path)
    for name in [name for name in found if name.endswith(("gate_up_proj", "down_proj"))]:
        rows = found.pop(name).shape[2]
        found[f"{name}_blocks"] = torch.randint(0, 255, (8, rows, 1, 16), dtype=torch.uint8)
        found[f"{name}_scales"] = torch.randint(0, 255, (8, rows, 1), dtype=torch.uint8)
    save_file(found, path, {"format": "pt"})
    grow(source, tmp_path / "grown", [Depth(), EXACT], seed=0)
    after = weights(tmp_path / "grown")
    for part in ("blocks", "scales"):
        name = "model.layers.{}.mlp.experts.down_proj_" + part
        copy, original = after[name.format(3)], found[name.format(1)]
        assert torch.equal(copy, torch.cat([original, original]))


def test_lists_of_layers_follow_the_map(tmp_path: Path) -> None:
    source = saved(tiny("gpt_oss"), tmp_path / "source")
    before = json.loads((source / "config.json").read_text())["layer_types"]
    assert len(set(before)) == 2
    grow(source, tmp_path / "deep", [Depth()], seed=0)
    after = json.loads((tmp_path / "deep/config.json").read_text())["layer_types"]
    assert after == [kind for kind in before for _ in range(2)]


def test_dense_layers_and_periods_become_a_list(tmp_path: Path) -> None:
    source = saved(tiny("qwen3_moe", layers=2), tmp_path / "source")
    edit(source, mlp_only_layers=[], decoder_sparse_step=2)
    grow(source, tmp_path / "deep", [Depth()], seed=0)
    after = json.loads((tmp_path / "deep/config.json").read_text())
    assert (after["mlp_only_layers"], after["decoder_sparse_step"]) == ([0, 1], 1)
    assert torch.isfinite(logits(tmp_path / "deep")).all()


@pytest.mark.parametrize("key", ["num_experts", "num_local_experts"])
def test_config_keeps_the_key_that_the_source_has(key: str, tmp_path: Path) -> None:
    source = saved(tiny("qwen3_moe"), tmp_path / "source")
    config = json.loads((source / "config.json").read_text())
    for name in ("num_experts", "num_local_experts"):
        config.pop(name, None)
    config |= {key: 8, "note_of_the_authors": {"kept": True}}
    (source / "config.json").write_text(json.dumps(config))
    grow(source, tmp_path / "wide", [EXACT], seed=0)
    after = json.loads((tmp_path / "wide/config.json").read_text())
    changed = {name for name in after if after[name] != config.get(name)}
    assert changed == {key, "num_experts_per_tok"}
    assert after.keys() == config.keys()


def test_dense_layers_cannot_come_later(tmp_path: Path) -> None:
    source = saved(tiny("deepseek_v3"), tmp_path / "source")
    with pytest.raises(GrowpointError, match="deepseek_v3 cannot hold the layers") as caught:
        grow(source, tmp_path / "deep", [Depth(order="stack")], seed=0)
    assert "keep_first=1" in caught.value.help
    grow(source, tmp_path / "deep", [Depth(order="stack", keep_first=1)], seed=0)
    assert model_of(tmp_path / "deep").layers == 5


def test_small_files_go_along_and_the_card_tells_the_lineage(tmp_path: Path) -> None:
    source = saved(tiny("olmoe"), tmp_path / "source")
    (source / "tokenizer.json").write_text('{"words": 1}')
    (source / "optimizer.pt").write_bytes(b"moments")
    grow(source, tmp_path / "deep", [Depth()], seed=5)
    grow(tmp_path / "deep", tmp_path / "both", [Width()], seed=6)
    names = {path.name for path in (tmp_path / "both").iterdir()}
    assert "optimizer.pt" not in names
    assert {"tokenizer.json", "generation_config.json", "README.md", "manifest.json"} <= names
    assert (tmp_path / "both/tokenizer.json").read_text() == '{"words": 1}'
    lineage = json.loads((tmp_path / "both/growth.json").read_text())
    assert [(item["source"], item["seed"]) for item in lineage] == [("source", 5), ("deep", 6)]
    assert "0 0 1 1 2 2" in (tmp_path / "deep/README.md").read_text()
    assert "0 1 2 3 4 5 6 7 0 1 2 3 4 5 6 7" in (tmp_path / "both/README.md").read_text()
    verify(tmp_path / "both")
