"""`growpoint next`: a sweep is run, asked what to run next, and extended by that."""

import json
from pathlib import Path

import pytest

from analysis.extension import Extension
from orchestrator.store import Store
from tests.e2e.conftest import Run

FEW = [
    "points.at=[0,8192,16384,24576]",
    "budgets.at=[1e10,2e10,4e10]",
    "growth=depth",
    "arms=[grow,continue]",
]


@pytest.mark.timeout(600)
def test_what_is_next_is_launched_beside_what_is_done(
    growpoint: Run, small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [word for word in small if word.split("=")[0] not in ("points.at", "budgets.at")]
    growpoint("launch", "demo", *[w for w in words if "exclude" not in w], *FEW, cwd=tmp_path)
    said = growpoint("next", "demo", "--metric", "loss", "--json", cwd=tmp_path)
    found = json.loads(said.stdout)
    assert found["answer"] in ("worth", "settled", "nothing")
    assert found["considered"] > 10
    assert (tmp_path / "plans/demo/next.yaml").exists() == (found["answer"] == "worth")

    # Whatever the luck of such small runs says: two candidates, written as the command does.
    monkeypatch.chdir(tmp_path)
    extension = Extension.of(Store(Path()), "demo")
    chosen = sorted(extension.candidates(), key=lambda each: extension.flops([each]))[:2]
    extension.write(Path("more.yaml"), chosen)
    planned = json.loads(growpoint("plan", "more.yaml", "--json", cwd=tmp_path).stdout)
    assert planned["sweep"] == "demo"
    assert planned["cells"] == len(extension.kept) + 2
    assert planned["done"] == planned["stages"] - planned["new"]
    assert 2 <= planned["new"] <= 6
    assert planned["flops_to_spend"] == pytest.approx(extension.flops(chosen))

    growpoint("launch", "more.yaml", cwd=tmp_path)
    cells = json.loads(growpoint("results", "demo", "--json", cwd=tmp_path).stdout)["cells"]
    assert {each.cells[0].stage.id for each in chosen} <= {cell["stage"] for cell in cells}
    assert len(cells) == planned["cells"]


def test_a_table_is_asked_too_and_no_sweep_is_written(growpoint: Run, tmp_path: Path) -> None:
    rows = [
        f"grow,depth x2,{sunk},{extra},{2 + 3e5 * (sunk + 2 * extra) ** -0.3 + wiggle}"
        for index, sunk in enumerate((0, 1e18, 2e18, 4e18))
        for extra, wiggle in ((1e18, 0.002 * index), (2e18, 0.0), (4e18, -0.001 * index))
    ]
    rows += [
        f"continue,-,{sunk},{extra},{2.001 + 3e5 * (sunk + 2 * extra) ** -0.3}"
        for sunk in (1e18, 2e18)
        for extra in (1e18, 2e18, 4e18)
    ]
    table = "arm,growth,sunk_flops,extra_flops,loss\n" + "\n".join(rows) + "\n"
    (tmp_path / "mine.csv").write_text(table)
    words = ["--results", "mine.csv", "--sunk", "2e18", "--extra", "4e18"]
    said = growpoint("next", *words, cwd=tmp_path)
    assert "considered" in said.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["mine.csv"]
    refused = growpoint("next", *words, "--to", "next.yaml", cwd=tmp_path, code=2)
    assert "no sweep can be written for a table" in refused.stderr
    assert "at least 1" in growpoint("next", *words, "--count", "0", cwd=tmp_path, code=2).stderr
