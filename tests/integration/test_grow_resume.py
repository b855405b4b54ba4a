"""Growth that was killed goes on to the same bytes; nothing half-written is a checkpoint."""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator import claim, partial
from orchestrator.checkpoint import verify
from orchestrator.grow import Asked, grow
from sweeps.errors import GrowpointError
from sweeps.growth import Depth, Width
from tests.integration.tiny_families import saved, tiny

ROOT = Path(__file__).resolve().parents[2]
CHAIN = (Depth(), Width())


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tiny("olmoe"), tmp_path_factory.mktemp("olmoe") / "source")


@pytest.fixture(scope="module")
def whole(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What an undisturbed growth with small files makes."""
    target = tmp_path_factory.mktemp("whole") / "grown"
    grow(source, target, CHAIN, 0, shard_bytes=100_000)
    return contents(target)


def contents(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def killed_after(count: int, source: Path, target: Path, seed: int = 0) -> bool:
    """Whether a growth was killed when that many bytes were written."""
    child = os.fork()
    if child == 0:
        try:

            def die(done: int, _: int) -> None:
                if done > count:
                    os.kill(os.getpid(), signal.SIGKILL)

            grow(source, target, CHAIN, seed, shard_bytes=100_000, on_progress=die)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


@given(kills=st.lists(st.integers(0, 800_000), min_size=1, max_size=3))
@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_growth_killed_anywhere_ends_in_the_same_bytes(
    kills: list[int], source: Path, whole: dict[str, str], tmp_path: Path
) -> None:
    target = tmp_path / "grown"
    for count in kills:
        if killed_after(count, source, target):
            assert not target.exists()
        else:
            shutil.rmtree(target)
    grow(source, target, CHAIN, 0, shard_bytes=100_000)
    assert contents(target) == whole
    verify(target)
    assert list(tmp_path.iterdir()) == [target]
    shutil.rmtree(target)


def half(source: Path, target: Path, seed: int = 0) -> Path:
    """What a kill leaves after some files are finished."""
    assert killed_after(500_000, source, target, seed)
    return partial.place(target)


def test_finished_files_are_not_written_again(
    source: Path, whole: dict[str, str], tmp_path: Path
) -> None:
    place = half(source, tmp_path / "grown")
    finished = json.loads((place / "journal.json").read_text())["finished"]
    marks = {name: (place / "files" / name).stat().st_ino for name in finished}
    assert marks
    report = grow(source, tmp_path / "grown", CHAIN, 0, shard_bytes=100_000)
    assert report.files_kept == len(marks)
    assert {name: (tmp_path / "grown" / name).stat().st_ino for name in marks} == marks
    assert contents(tmp_path / "grown") == whole


def test_a_finished_file_that_was_damaged_is_written_again(
    source: Path, whole: dict[str, str], tmp_path: Path
) -> None:
    place = half(source, tmp_path / "grown")
    finished = json.loads((place / "journal.json").read_text())["finished"]
    path = place / "files" / min(finished)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    report = grow(source, tmp_path / "grown", CHAIN, 0, shard_bytes=100_000)
    assert report.files_kept == len(finished) - 1
    assert contents(tmp_path / "grown") == whole


def no_journal(place: Path) -> None:
    (place / "journal.json").unlink()


def broken_journal(place: Path) -> None:
    (place / "journal.json").write_text('{"plan"')


def journal_that_points_elsewhere(place: Path) -> None:
    said = json.loads((place / "journal.json").read_text())
    said["finished"] = {"../../source/model.safetensors": "0" * 64}
    (place / "journal.json").write_text(json.dumps(said))


def strange_files(place: Path) -> None:
    (place / "files" / "model-00099-of-00099.safetensors").write_bytes(b"strange")
    (place / "files" / "folder").mkdir()


@pytest.mark.parametrize(
    "damage",
    [no_journal, broken_journal, journal_that_points_elsewhere, strange_files],
    ids=lambda each: each.__name__,
)
def test_what_is_not_in_a_sound_journal_is_written_again(
    damage: Callable[[Path], None], source: Path, whole: dict[str, str], tmp_path: Path
) -> None:
    damage(half(source, tmp_path / "grown"))
    grow(source, tmp_path / "grown", CHAIN, 0, shard_bytes=100_000)
    assert contents(tmp_path / "grown") == whole
    assert (source / "model.safetensors").is_file()


def test_files_of_another_growth_are_not_taken(
    source: Path, whole: dict[str, str], tmp_path: Path
) -> None:
    half(source, tmp_path / "grown", seed=1)
    report = grow(source, tmp_path / "grown", CHAIN, 0, shard_bytes=100_000)
    assert report.files_kept == 0
    assert contents(tmp_path / "grown") == whole


def test_files_of_a_source_that_has_changed_are_not_taken(source: Path, tmp_path: Path) -> None:
    shutil.copytree(source, tmp_path / "source")
    half(tmp_path / "source", tmp_path / "grown")
    path = tmp_path / "source/model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert grow(tmp_path / "source", tmp_path / "grown", CHAIN, 0).files_kept == 0


def test_the_number_of_workers_changes_nothing(
    source: Path, whole: dict[str, str], tmp_path: Path
) -> None:
    for workers in (1, 3):
        how = Asked(shard_bytes=100_000, workers=workers)
        grow(source, tmp_path / str(workers), CHAIN, 0, how=how)
        assert contents(tmp_path / str(workers)) == whole


def test_two_at_once_do_not_write_the_same_target(source: Path, tmp_path: Path) -> None:
    place = partial.place(tmp_path / "grown")
    with claim.take(place / "claim", "grow") or pytest.fail("nobody holds it"):
        with pytest.raises(GrowpointError, match="another growth is writing") as caught:
            grow(source, tmp_path / "grown", CHAIN, 0)
        assert str(os.getpid()) in caught.value.text()
        assert place.is_dir()
    grow(source, tmp_path / "grown", CHAIN, 0)
    assert list(tmp_path.iterdir()) == [tmp_path / "grown"]


def test_an_interrupt_keeps_finished_files(
    source: Path, whole: dict[str, str], tmp_path: Path
) -> None:
    def interrupt(done: int, _: int) -> None:
        if done > 500_000:
            raise KeyboardInterrupt

    target = tmp_path / "grown"
    with pytest.raises(KeyboardInterrupt):
        grow(source, target, CHAIN, 0, shard_bytes=100_000, on_progress=interrupt)
    assert not target.exists()
    assert "the same command goes on" in partial.summary(target)
    assert grow(source, target, CHAIN, 0, shard_bytes=100_000).files_kept > 0
    assert contents(target) == whole


def test_the_command_killed_at_random_moments(tmp_path: Path) -> None:
    """SIGKILL while a real process writes: then again, until it comes through."""
    source = saved(
        tiny("olmoe", hidden=256, head_dim=64, expert_hidden=512, vocabulary=512),
        tmp_path / "source",
    )
    moments, killed = random.Random(0), 0
    words = ["grow", str(source), "growth=[{kind: depth}, {kind: width}]", "--no-check"]
    command = [sys.executable, "-m", "orchestrator.cli", *words, "--shard-bytes", "1000000", "--to"]
    subprocess.run([*command, tmp_path / "undisturbed"], cwd=ROOT, check=True)
    target = tmp_path / "grown"
    for _ in range(6):
        process = subprocess.Popen([*command, target], cwd=ROOT)
        while process.poll() is None and not partial.place(target).exists():
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.4))
        process.kill()
        killed += process.wait() == -signal.SIGKILL
        if target.exists():
            verify(target)
            shutil.rmtree(target)
    assert killed
    subprocess.run([*command, target], cwd=ROOT, check=True)
    assert contents(target) == contents(tmp_path / "undisturbed")
    assert {path.name for path in tmp_path.iterdir()} == {"source", "undisturbed", "grown"}


def test_the_command_killed_while_its_result_is_checked(tmp_path: Path, source: Path) -> None:
    """What the check had laid out is not in the way of the next try."""
    target = tmp_path / "grown"
    words = ["grow", str(source), "growth=[{kind: depth}]", "--to", str(target)]
    command = [sys.executable, "-m", "orchestrator.cli", *words]
    with subprocess.Popen(command, cwd=ROOT, start_new_session=True) as process:
        while process.poll() is None and not partial.place(target).joinpath("sketch").exists():
            time.sleep(0.001)
        os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert partial.place(target).joinpath("sketch").exists()
    subprocess.run(command, cwd=ROOT, check=True)
    verify(target)
    assert list(tmp_path.iterdir()) == [target]
