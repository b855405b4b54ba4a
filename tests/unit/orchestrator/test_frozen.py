"""Code that is kept in the store: the same bytes under the same name, whole, and run before any."""

import hashlib
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import frozen
from orchestrator.store import Store
from sweeps.errors import GrowpointError

FILES = st.dictionaries(st.text("abc/.", min_size=1), st.binary(max_size=8), max_size=5)
# A folder as users have them.
ODD = 'it\'s "my" store; $HOME & `more`'


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Code of two files in place of all."""
    files = {"sweeps/__init__.py": b"", "sweeps/answer.py": b"ANSWER = 42\n"}
    monkeypatch.setattr(frozen, "contents", lambda: files)
    return files


def held(folder: Path) -> dict[str, bytes]:
    """The files of a folder, the list of sums left out."""
    files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.*")}
    return {name: data for name, data in files.items() if name != frozen.SUMS}


@given(FILES, FILES)
def test_the_same_bytes_have_the_same_name_and_others_another(
    one: dict[str, bytes], other: dict[str, bytes]
) -> None:
    backward = dict(reversed(one.items()))
    assert frozen.address(one) == frozen.address(backward)
    assert (frozen.sums(one) == frozen.sums(other)) == (one == other)


def test_the_code_is_all_that_would_be_installed() -> None:
    found = tomllib.loads((frozen.ROOT / "pyproject.toml").read_text())
    data = found["tool"]["setuptools"]["package-data"]
    patterns = [(package, "**/*.py") for package in frozen.PACKAGES]
    patterns += [(package, each) for package, listed in data.items() for each in listed]
    expected = {
        path.relative_to(frozen.ROOT).as_posix()
        for package, pattern in patterns
        for path in (frozen.ROOT / package).glob(pattern)
    }
    assert set(frozen.contents()) == expected


def test_a_copy_is_named_by_its_list_of_sums_and_kept(
    small: dict[str, bytes], tmp_path: Path
) -> None:
    folder = frozen.freeze(Store(tmp_path))
    listed = (folder / frozen.SUMS).read_bytes()
    assert hashlib.sha256(listed).hexdigest().startswith(folder.name)
    check = ["sha256sum", "--check", "--quiet", frozen.SUMS]
    subprocess.run(check, cwd=folder, check=True)
    assert held(folder) == small
    before = {path: path.stat().st_ino for path in folder.rglob("*")}
    assert frozen.freeze(Store(tmp_path)) == folder
    assert {path: path.stat().st_ino for path in folder.rglob("*")} == before


@pytest.mark.parametrize("damage", ["changed", "missing", "half"])
def test_a_damaged_copy_is_put_right_around_what_is_whole(
    damage: str, small: dict[str, bytes], tmp_path: Path
) -> None:
    folder = frozen.freeze(Store(tmp_path))
    path, whole = folder / "sweeps" / "answer.py", folder / "sweeps" / "__init__.py"
    before = whole.stat().st_ino
    path.unlink()
    if damage != "missing":
        path.write_bytes(b"ANSWER = 41\n" if damage == "changed" else b"ANSWER")
    frozen.freeze(Store(tmp_path))
    assert held(folder) == small
    assert whole.stat().st_ino == before


def test_launches_at_once_make_one_copy_and_leave_nothing_beside(
    small: dict[str, bytes], tmp_path: Path
) -> None:
    with ThreadPoolExecutor(8) as pool:
        folders = set(pool.map(lambda _: frozen.freeze(Store(tmp_path)), range(32)))
    assert [path.name for path in (tmp_path / "code").iterdir()] == [f.name for f in folders]
    assert held(folders.pop()) == small


def test_killed_while_it_is_made_there_is_no_copy(
    small: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(frozen, "sync", killed)
    with pytest.raises(KeyboardInterrupt):
        frozen.freeze(Store(tmp_path))
    monkeypatch.undo()
    assert not (tmp_path / "code" / frozen.address(small)).exists()


def test_the_users_own_families_go_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "family").mkdir()
    (tmp_path / "family" / "mine.yaml").write_text("name: mine\n")
    monkeypatch.setenv(frozen.CONFIG_FOLDER_VARIABLE, str(tmp_path))
    without = set(frozen.contents())
    frozen.contents.cache_clear()
    try:
        assert set(frozen.contents()) - without == {"own/family/mine.yaml"}
    finally:
        frozen.contents.cache_clear()


def test_a_shell_runs_the_copy_before_anything_else(
    small: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another copy lies in the working directory, and a third one on the Python path."""
    other = tmp_path / "other"
    (other / "sweeps").mkdir(parents=True)
    (other / "sweeps" / "answer.py").write_text("raise RuntimeError('not this one')\n")
    folder = frozen.freeze(Store(tmp_path / ODD))
    show = "-c 'import sweeps.answer as a, os; print(a.ANSWER, os.environ[\"GROWPOINT_COMMIT\"])'"
    lines = [f"export PYTHONPATH={other}", *frozen.exports(folder, "0123456789+")]
    script = "\n".join([*lines, f"{sys.executable} {show}"])
    command = ["bash", "-euc", script]
    done = subprocess.run(command, cwd=other, capture_output=True, text=True, check=True)
    assert done.stdout == "42 0123456789+\n"


def test_a_path_that_no_python_path_holds_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GrowpointError, match="has a colon"):
        frozen.freeze(Store(tmp_path / "a:b"))
    assert not list(tmp_path.iterdir())


def test_a_store_that_cannot_be_written_says_so(
    small: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "code").write_text("a file where a folder should be")
    with pytest.raises(GrowpointError, match="cannot be written"):
        frozen.freeze(Store(tmp_path))


def test_other_code_than_was_submitted_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(frozen.CODE_VARIABLE, raising=False)
    frozen.require()
    monkeypatch.setenv(frozen.CODE_VARIABLE, str(frozen.ROOT))
    frozen.require()
    for there in (tmp_path, tmp_path / "gone"):
        monkeypatch.setenv(frozen.CODE_VARIABLE, str(there))
        with pytest.raises(GrowpointError, match="does not run the code"):
            frozen.require()
