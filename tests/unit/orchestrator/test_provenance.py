"""What is written down of a result's making: the commit, what differs from it, and the machine."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator import frozen, provenance
from orchestrator.store import Store

QUESTIONS = (provenance.code, provenance.commit, provenance.difference, provenance.slurm)


def forget() -> None:
    for question in (*QUESTIONS, frozen.contents, provenance.slurm_version):
        question.cache_clear()


def git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    command = ["git", "-C", str(folder), *who, *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A committed checkout of a few files, which the questions take for this code's own."""
    folder = tmp_path / "a checkout"
    for package in frozen.PACKAGES:
        (folder / package).mkdir(parents=True)
        (folder / package / "__init__.py").write_text(f"NAME = '{package}'\n")
    (folder / "README.md").write_text("read me\n")
    git(tmp_path, "init", "--quiet", str(folder))
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "all")
    for variable in (frozen.CODE_VARIABLE, frozen.COMMIT_VARIABLE, frozen.CONFIG_FOLDER_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(frozen, "ROOT", folder)
    forget()
    yield folder
    forget()


def edit(checkout: Path) -> None:
    """Change a file, remove one, add one."""
    (checkout / "sweeps" / "__init__.py").write_text("NAME = 'other'\n")
    (checkout / "conf" / "__init__.py").unlink()
    (checkout / "analysis" / "more.py").write_text("MORE = 1\n")


def test_the_commit_is_told_and_a_plus_for_changed_code_alone(checkout: Path) -> None:
    head = git(checkout, "rev-parse", "--short=10", "HEAD")
    (checkout / "README.md").write_text("changed\n")
    (checkout / "sweeps" / "notes.txt").write_text("not code\n")
    assert provenance.commit() == head
    forget()
    (checkout / "orchestrator" / "new.py").write_text("NEW = 1\n")
    assert provenance.commit() == f"{head}+"


def test_the_patch_leads_from_the_commit_to_the_code(checkout: Path, tmp_path: Path) -> None:
    edit(checkout)
    launch = provenance.write_launch(Store(tmp_path / "store"), "demo")
    told = json.loads(launch.read_text())
    patch = tmp_path / "store" / told["difference"]
    assert told["commit"].endswith("+")
    assert told["code"] in patch.name
    there, before = tmp_path / "there", frozen.contents()
    git(tmp_path, "clone", "--quiet", str(checkout), str(there))
    git(there, "apply", str(patch))
    found = {p.relative_to(there).as_posix(): p.read_bytes() for p in there.rglob("*/*.py")}
    assert found == before


def test_unchanged_code_has_no_patch(checkout: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    told = json.loads(provenance.write_launch(store, "demo").read_text())
    assert told["difference"] == ""
    assert not (store.root / "code").exists()


def test_a_patch_of_data_is_cut(checkout: Path, tmp_path: Path) -> None:
    (checkout / "conf" / "large.yaml").write_text("- number\n" * 200_000)
    store = Store(tmp_path / "store")
    told = json.loads(provenance.write_launch(store, "demo").read_text())
    size = (store.root / told["difference"]).stat().st_size
    assert provenance.DIFF_BYTES < size < provenance.DIFF_BYTES + 200


def test_frozen_code_brings_its_commit_along(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(checkout)
    before = provenance.code()
    folder = frozen.freeze(Store(tmp_path / "store"))
    monkeypatch.setattr(frozen, "ROOT", folder)
    monkeypatch.setenv(frozen.CODE_VARIABLE, str(folder))
    monkeypatch.setenv(frozen.COMMIT_VARIABLE, before["commit"])
    forget()
    assert provenance.code() == before
    # And a launch by frozen code freezes the same.
    assert frozen.freeze(Store(tmp_path / "store")) == folder


def test_without_git_there_is_no_commit_and_no_error(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert provenance.commit() == ""


def test_outside_a_checkout_there_is_no_commit(checkout: Path) -> None:
    (checkout / ".git").rename(checkout.parent / ".git")
    assert provenance.commit() == ""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 2023",
            "535.104.05",
        ),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release",
            "570.86.15",
        ),
        ("", ""),
    ],
)
def test_the_driver_is_read_from_either_kernel_module(text: str, said: str) -> None:
    assert provenance.driver(text) == said


def test_a_record_says_what_made_it(monkeypatch: pytest.MonkeyPatch) -> None:
    forget()
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    outside = provenance.of_record()
    assert outside["code"] == frozen.address(frozen.contents())
    assert {"python", "torch", "numpy", "safetensors", "user"} <= set(outside["made_by"])
    assert "slurm" not in outside["made_by"]
    forget()
    for name, value in {"JOB_ID": "7", "JOB_PARTITION": "gpu", "CLUSTER_NAME": "here"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("PATH", f"/nowhere:{os.environ['PATH']}")
    inside = provenance.of_record()["made_by"]["slurm"]
    forget()
    assert inside.items() >= {"partition": "gpu", "cluster": "here"}.items()
