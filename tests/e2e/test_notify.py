"""What is told of a launch on this machine, and that failed stages are run again or left."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Run
from tests.unit.orchestrator.test_notify import Hook

ONE = ["points.at=[0]", "arms=[scratch]", "growth=[{kind: depth}]", "budgets.at=[1e9]"]
ONE += ["exclude=[]", "name=few"]
# More than there is to hold out, which its evaluation finds out.
FAILS = "suite.heldout_tokens=10000000"


@pytest.fixture
def hook() -> Iterator[Hook]:
    with Hook() as hook:
        yield hook


def test_failed_stuck_left_run_again_and_done(
    hook: Hook, growpoint: Run, small: list[str], tmp_path: Path
) -> None:
    launch = ["launch", "demo", *small, *ONE]
    told = f"notify.url={hook.url}"
    first = growpoint(*launch, told, FAILS, cwd=tmp_path, code=1)
    events = [said["event"] for said in hook.told]
    assert events == ["failed", "stuck"]
    assert "secret" not in first.stdout + first.stderr
    left = growpoint(*launch, FAILS, "--retry", "none", cwd=tmp_path, code=1)
    assert "1 stages failed before, and are left" in left.stderr
    assert [said["event"] for said in hook.told[2:]] == ["stuck"]
    hook.hang.clear()
    began = time.monotonic()
    growpoint(*launch, "--replace", cwd=tmp_path)
    assert time.monotonic() - began < 60
    assert hook.told[-1]["event"] == "done"
    assert hook.told[-1]["stages"] == len(
        json.loads((tmp_path / "plans/few/plan.json").read_text())["stages"]
    )
    files = [path for path in (tmp_path / "plans").rglob("*") if path.is_file()]
    assert [path.name for path in files if b"/secret" in path.read_bytes()] == ["notify.json"]
