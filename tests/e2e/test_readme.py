"""The commands of the README and of docs/: they parse, they compose, and the tour runs."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from orchestrator.arguments import parse
from orchestrator.cli import _docs
from sweeps import config
from tests.e2e.conftest import Run

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
Launched = tuple[Path, "subprocess.CompletedProcess[str]"]


def commands(page: Path) -> list[str]:
    """Every line of a console block that begins with `$ growpoint`."""
    lines = "\n".join(BLOCK.findall(page.read_text())).replace("\\\n", "").splitlines()
    return [
        line[2:].partition("  #")[0].strip() for line in lines if line.startswith("$ growpoint")
    ]


SHOWN = [(page.name, line) for page in PAGES for line in commands(page)]


def test_the_readme_shows_every_command() -> None:
    shown = {shlex.split(line)[1] for page, line in SHOWN if page == "README.md"}
    assert shown >= {
        "plan",
        "launch",
        "status",
        "cancel",
        "fit",
        "plot",
        "recommend",
        "report",
        "grow",
        "inspect",
        "series",
        "next",
    }


@pytest.mark.parametrize(("page", "line"), SHOWN)
def test_it_is_understood(page: str, line: str) -> None:
    arguments = parse(shlex.split(line)[1:], _docs())
    if arguments.command == "grow":
        assert config.growth(arguments.overrides)
    elif (getattr(arguments, "sweep", None) or "").startswith("plans/"):
        # What an earlier command of the page has written: test_next.py launches such a file.
        assert arguments.sweep.endswith(".yaml")
    elif arguments.command in {"plan", "launch"} and "growht" not in line:
        assert config.load(arguments.sweep, arguments.overrides).sweeps


def test_the_shown_error_is_the_real_one(growpoint: Run, tmp_path: Path) -> None:
    line = "$ growpoint plan demo growht.0.factor=3"
    block = next(b for b in BLOCK.findall((ROOT / "README.md").read_text()) if line in b)
    said = growpoint(*shlex.split(line)[2:], cwd=tmp_path, code=2)
    assert block == f"{line}\n{said.stderr}"


TOUR = [
    line
    for line in commands(ROOT / "README.md")
    if re.fullmatch(r"growpoint (status|fit|plot|recommend|next|report) demo( --.*)?", line)
]


# What a line of the tour leaves behind, of the sweep's own.
LEAVES = {"fit": "fits.json", "plot": "figures/sunk_vs_accuracy.png", "report": "report.html"}


@pytest.mark.parametrize("line", TOUR)
def test_the_tour_runs(line: str, launched: Launched, growpoint: Run) -> None:
    plan = launched[0] / "plans" / "demo"
    said = growpoint(*shlex.split(line)[1:], cwd=launched[0]).stdout
    command = shlex.split(line)[1]
    assert said
    if command in LEAVES:
        assert (plan / LEAVES[command]).stat().st_size > 2000
    if command == "report":
        assert "continue" in (plan / "report.md").read_text()


def test_drawing_again_gives_the_same_bytes(launched: Launched, growpoint: Run) -> None:
    folder = launched[0] / "plans/demo/figures"
    if not folder.exists():
        growpoint("plot", "demo", cwd=launched[0])
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    shutil.rmtree(folder)
    assert "sunk_vs_accuracy" in growpoint("plot", "demo", cwd=launched[0]).stdout
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first


@pytest.mark.parametrize(
    "line", [line for line in commands(ROOT / "README.md") if " plan " in line]
)
def test_the_plans_are_drawn(line: str, growpoint: Run, tmp_path: Path) -> None:
    if "growht" not in line:
        said = growpoint(*shlex.split(line)[1:], cwd=tmp_path).stdout
        assert "shared trunks save" in said
        assert not any(tmp_path.iterdir())
