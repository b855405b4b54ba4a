"""Growth is all or nothing, and says what is wrong."""

import errno
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import conf
from orchestrator.grow import Asked, by_hand, grow
from sweeps.errors import GrowpointError
from sweeps.family import CONFIG_FOLDER_VARIABLE
from sweeps.growth import Depth, Width
from tests.integration.tiny_families import (
    edit,
    quantised,
    same,
    saved,
    tiny,
    weights,
)

EXACT = Width(noise=0)
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tiny("olmoe"), tmp_path_factory.mktemp("olmoe") / "source")


def test_noise_on_quantised_experts_is_refused(tmp_path: Path) -> None:
    source = quantised(saved(tiny("deepseek_v3"), tmp_path / "source"))
    with pytest.raises(GrowpointError, match="quantised") as caught:
        grow(source, tmp_path / "grown", [Width()], seed=0)
    assert "noise: 0" in caught.value.help
    assert list(tmp_path.iterdir()) == [source]


def test_unknown_tensors_are_named_not_copied(tmp_path: Path) -> None:
    source = saved(tiny("olmoe"), tmp_path / "source")
    path = source / "model.safetensors"
    save_file({**load_file(path), "model.layers.0.mlp.novelty.weight": torch.ones(8)}, path)
    with pytest.raises(GrowpointError, match="olmoe does not know 1 ") as caught:
        grow(source, tmp_path / "wide", [Width()], seed=0)
    assert "model.layers.0.mlp.novelty.weight" in caught.value.text()


def test_missing_tensors_are_named(tmp_path: Path) -> None:
    source = saved(tiny("olmoe"), tmp_path / "source")
    path = source / "model.safetensors"
    found = load_file(path)
    del found["model.layers.1.mlp.experts.3.up_proj.weight"]
    save_file(found, path)
    with pytest.raises(GrowpointError, match="lacks 1 tensors") as caught:
        grow(source, tmp_path / "wide", [Width()], seed=0)
    assert "model.layers.1.mlp.experts.3.up_proj.weight" in caught.value.text()


def test_a_config_that_is_not_the_weights_is_refused(tmp_path: Path) -> None:
    source = saved(tiny("olmoe"), tmp_path / "source")
    edit(source, hidden_size=64)
    with pytest.raises(GrowpointError, match="does not fit its config"):
        grow(source, tmp_path / "wide", [Width()], seed=0)


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    source = saved(tiny("olmoe"), tmp_path / "source")
    path = source / "model.safetensors"
    found = load_file(path)
    found["model.layers.1.mlp.gate.weight"][0, 0] = float("nan")
    save_file(found, path)
    with pytest.raises(GrowpointError, match="not finite"):
        grow(source, tmp_path / "wide", [Width()], seed=0)
    assert list(tmp_path.iterdir()) == [source]


def test_an_existing_target_is_refused(source: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(GrowpointError, match="exists already"):
        grow(source, tmp_path / "there", [Depth()], seed=0)
    assert list((tmp_path / "there").iterdir()) == []


@pytest.mark.parametrize("fails", ["write", "posix_fallocate", "fsync"])
def test_a_full_disk_leaves_nothing(
    fails: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    original = getattr(os, fails)

    def full(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls > 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(*arguments)

    monkeypatch.setattr(os, fails, full)
    with pytest.raises(GrowpointError, match="disk is full"):
        grow(source, tmp_path / "wide", [Width()], seed=0, shard_bytes=50_000)
    assert calls > 2
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_leaves_nothing(source: Path, tmp_path: Path) -> None:
    def interrupt(done: int, _: int) -> None:
        if done > 10_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        grow(source, tmp_path / "wide", [Width()], seed=0, on_progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_a_killed_growth_has_no_target_and_is_cleared_by_the_next(
    source: Path, tmp_path: Path
) -> None:
    child = os.fork()
    if child == 0:
        try:
            target = tmp_path / "wide"
            grow(source, target, [Width()], 0, on_progress=lambda *_: os.kill(os.getpid(), 9))
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == 9
    assert not (tmp_path / "wide").exists()
    assert len(list(tmp_path.iterdir())) == 1
    grow(source, tmp_path / "wide", [Width()], seed=0)
    assert list(tmp_path.iterdir()) == [tmp_path / "wide"]


def test_by_hand_takes_a_checkpoint_or_a_stage(source: Path, tmp_path: Path) -> None:
    stage = tmp_path / "runs/train-0123456789"
    stage.mkdir(parents=True)
    (stage / "stage.json").write_text("{}")
    with pytest.raises(GrowpointError, match="has no checkpoint"):
        by_hand(str(stage), str(tmp_path / "out"), [Depth()])
    (stage / "checkpoint").symlink_to(source)
    reports = [
        by_hand(str(stage), str(tmp_path / "from_stage"), [Depth()]),
        by_hand(str(source), str(tmp_path / "from_folder"), [Depth()]),
    ]
    assert [report.layers for report in reports] == [(0, 0, 1, 1, 2, 2)] * 2
    assert same(weights(tmp_path / "from_stage"), weights(tmp_path / "from_folder"))
    assert "3 -> 6" in reports[0].text()
    assert json.loads(json.dumps(reports[0].to_dict()))["layers"] == [0, 0, 1, 1, 2, 2]


def test_by_hand_refuses_what_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(GrowpointError, match="has no checkpoint"):
        by_hand(str(tmp_path / "nowhere"), str(tmp_path / "out"), [Depth()])
    (tmp_path / "config.json").write_text('{"model_type": "novel"}')
    with pytest.raises(GrowpointError, match="no family describes"):
        by_hand(str(tmp_path), str(tmp_path / "out"), [Depth()])
    with pytest.raises(GrowpointError, match="no growth"):
        by_hand(str(tmp_path), str(tmp_path / "out"), [])


def test_a_disk_without_room_is_seen_before_a_byte_is_written(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = shutil.disk_usage(tmp_path)._replace(free=1_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: few)
    with pytest.raises(GrowpointError, match="too full") as caught:
        grow(source, tmp_path / "wide", [Width()], seed=0)
    said = dict(caught.value.evidence)
    assert said["free"] == "0.001 MB"
    assert float(said["lacks"].split()[0]) == pytest.approx(
        float(said["needs"].split()[0]) - 0.001, rel=0.01
    )
    assert list(tmp_path.iterdir()) == []


def test_a_flipped_bit_in_a_sealed_source_is_found_while_it_is_copied(
    source: Path, tmp_path: Path
) -> None:
    grow(source, tmp_path / "deep", [Depth()], seed=0)
    path = tmp_path / "deep/model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(GrowpointError, match="not what was sealed") as caught:
        grow(tmp_path / "deep", tmp_path / "wide", [Width()], seed=0)
    assert str(path) in caught.value.text()
    assert list(tmp_path.iterdir()) == [tmp_path / "deep"]


@pytest.mark.parametrize("damage", ["truncated", "missing", "absent"])
def test_a_source_that_is_not_whole_is_refused(damage: str, tmp_path: Path) -> None:
    source = saved(tiny("olmoe"), tmp_path / "source")
    grow(source, tmp_path / "many", [Depth()], seed=0, shard_bytes=100_000)
    (tmp_path / "many/manifest.json").unlink()
    shutil.rmtree(source)
    path = tmp_path / "many/model-00002-of-00004.safetensors"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-1])
    elif damage == "missing":
        path.unlink()
    else:
        index = json.loads((tmp_path / "many/model.safetensors.index.json").read_text())
        index["weight_map"]["model.absent"] = path.name
        (tmp_path / "many/model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(GrowpointError) as caught:
        grow(tmp_path / "many", tmp_path / "wide", [Width()], seed=0)
    assert ("model.absent" if damage == "absent" else path.name) in caught.value.text()
    assert list(tmp_path.iterdir()) == [tmp_path / "many"]


def test_pickles_are_refused_with_a_command_that_converts_them(tmp_path: Path) -> None:
    """The command is run: a conversion that does not work helps nobody."""
    source = saved(tiny("olmoe"), tmp_path / "source")
    before = load_file(source / "model.safetensors")
    torch.save(before, source / "pytorch_model.bin")
    (source / "model.safetensors").unlink()
    (source / "tokenizer.json").write_text("{}")
    with pytest.raises(GrowpointError, match="has no checkpoint") as caught:
        grow(source, tmp_path / "wide", [Width()], seed=0)
    python, rest = caught.value.help.split(" ", 1)
    assert python == "python"
    command = f"{shlex.quote(sys.executable)} {rest}"
    subprocess.run(command, shell=True, check=True, capture_output=True)
    assert same(weights(tmp_path / "source-safetensors"), before)
    assert (tmp_path / "source-safetensors/tokenizer.json").read_text() == "{}"


def own_code(source: Path, family: Path) -> None:
    """A family of one's own, whose class comes with the checkpoint."""
    (family / "family").mkdir(parents=True)
    text = (conf.FOLDER / "family/olmoe.yaml").read_text()
    assert "model_type: olmoe" in text
    (family / "family/novel.yaml").write_text(
        text.replace("model_type: olmoe", "model_type: novel").replace("name: olmoe", "name: novel")
    )
    edit(source, model_type="novel", auto_map={"AutoModelForCausalLM": "modeling_novel.Novel"})
    (source / "modeling_novel.py").write_text("raise RuntimeError('never run')\n")


def test_code_of_a_checkpoint_is_handed_on_only_if_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = saved(tiny("olmoe"), tmp_path / "source")
    own_code(source, tmp_path / "conf")
    monkeypatch.setenv(CONFIG_FOLDER_VARIABLE, str(tmp_path / "conf"))
    with pytest.raises(GrowpointError, match="code of its own") as caught:
        grow(source, tmp_path / "deep", [Depth()], seed=0)
    assert "--trust-remote-code" in caught.value.help
    assert not (tmp_path / "deep").exists()
    report = grow(source, tmp_path / "deep", [Depth()], 0, how=Asked(hand_on_code=True, check=True))
    assert (tmp_path / "deep/modeling_novel.py").read_text().startswith("raise")
    assert "not held against its model class" in report.unchecked


def test_unknown_tensors_are_copied_if_asked(tmp_path: Path) -> None:
    source = saved(tiny("olmoe"), tmp_path / "source")
    path = source / "model.safetensors"
    novelty = torch.arange(8.0)
    save_file({**load_file(path), "model.layers.1.mlp.novelty.weight": novelty}, path)
    report = grow(source, tmp_path / "deep", [Depth()], 0, how=Asked(allow_unknown=True))
    after = weights(tmp_path / "deep")
    assert torch.equal(after["model.layers.2.mlp.novelty.weight"], novelty)
    assert torch.equal(after["model.layers.3.mlp.novelty.weight"], novelty)
    assert "model.layers.1.mlp.novelty.weight" in report.warnings()[0]


@pytest.mark.parametrize("loaded", [True, False], ids=["here", "in a process of its own"])
def test_what_does_not_fit_its_model_class_is_never_published(
    loaded: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = saved(tiny("olmoe"), tmp_path / "source")
    path = source / "model.safetensors"
    save_file({**load_file(path), "model.layers.1.mlp.novelty.weight": torch.ones(8)}, path)
    if not loaded:
        monkeypatch.delitem(sys.modules, "transformers")
    how = Asked(allow_unknown=True, check=True)
    with pytest.raises(GrowpointError, match="would not fit its model class") as caught:
        grow(source, tmp_path / "deep", [Depth()], 0, how=how)
    assert "model.layers.3.mlp.novelty.weight" in caught.value.text()
    assert list(tmp_path.iterdir()) == [source]
    save_file(load_file(saved(tiny("olmoe"), tmp_path / "sound") / "model.safetensors"), path)
    assert not grow(source, tmp_path / "deep", [Depth()], 0, how=how).unchecked


def test_values_that_are_not_finite_are_named_if_asked(tmp_path: Path) -> None:
    source = saved(tiny("olmoe"), tmp_path / "source")
    path = source / "model.safetensors"
    found = load_file(path)
    found["model.norm.weight"][3] = float("inf")
    found["model.layers.2.self_attn.q_proj.weight"][0, 0] = float("nan")
    save_file(found, path)
    report = grow(source, tmp_path / "deep", [Depth()], 0, how=Asked(check_values=True))
    assert set(report.not_finite) == {
        "model.norm.weight",
        "model.layers.2.self_attn.q_proj.weight",
    }
    assert "model.norm.weight" in report.warnings()[0]
    wide = grow(source, tmp_path / "wide", [Width()], 0)
    assert not wide.not_finite, "neither an expert nor a router: noise does not touch it"


# Not `getrusage`, which remembers the memory of the process that started this one.
PEAK = """
import sys
from orchestrator.cli import main
code = main(sys.argv[1:])
peak = [line for line in open("/proc/self/status") if line.startswith("VmHWM")][0]
print(code, int(peak.split()[1]) // 1024, "numpy" in sys.modules)
"""


@pytest.mark.parametrize("growth", ["depth", "[{kind: width, noise: 0}]"])
def test_copying_takes_little_memory_and_neither_numpy_nor_torch(
    growth: str, tmp_path: Path
) -> None:
    """Of the whole command: Python, pydantic and Hydra take 44 MB of these."""
    source = saved(tiny("olmoe", hidden=512, head_dim=128, expert_hidden=2048), tmp_path / "source")
    words = ["grow", str(source), "--to", str(tmp_path / "grown"), f"growth={growth}"]
    command = [sys.executable, "-c", PEAK, *words, "--no-check"]
    said = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    code, megabytes, numpy = said.splitlines()[-1].split()
    assert (tmp_path / "grown/model.safetensors").stat().st_size > 300_000_000
    assert (code, numpy) == ("0", "False")
    assert int(megabytes) <= 64
