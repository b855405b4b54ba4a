"""Results made elsewhere, from the command line: `--results` in place of a sweep."""

import json
import re
from pathlib import Path

import pytest

from tests.e2e.conftest import Run

FORM = re.compile(r"\Aerror: [^A-Z].*[^.\n]\n(  \S.*\n)*\Z")
TABLE = "step,avg_acc\n" + "".join(f"{1000 * i},{40 + i - 0.05 * i * i}\n" for i in range(1, 10))
MAPPED = ["--column", "accuracy=avg_acc", "--column", "sunk_flops=step*1.6e16"]


def test_a_bundled_table_is_fitted_and_answered(growpoint: Run, tmp_path: Path) -> None:
    fitted = growpoint("fit", "--results", "paper-3b6b", cwd=tmp_path)
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    shown = readme.partition("$ growpoint fit --results paper-3b6b\n")[2].partition("$ ")[0]
    said = fitted.stdout.splitlines()
    assert [line for line in shown.splitlines() if line not in said] == ["...", "..."]
    assert "sunk_saturating" in fitted.stdout
    assert "+0.979" in fitted.stdout
    assert "Traceback" not in fitted.stderr
    answer = growpoint("recommend", "--results", "paper-3b6b", "--json", cwd=tmp_path)
    assert json.loads(answer.stdout)["answer"] == "grow"


def test_columns_are_mapped_and_what_was_done_is_said(growpoint: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text(TABLE + "10000,\n")
    words = ["--results", "mine.csv", *MAPPED, "--column", "extra_flops=3e20"]
    said = growpoint("results", *words, "--json", cwd=tmp_path)
    cells = json.loads(said.stdout)["cells"]
    assert [cell["extra_flops"] for cell in cells] == [3e20] * 9
    assert cells[0]["accuracy"] == pytest.approx(0.4095)
    assert "1 of 10 rows are left out\n  line 11: no accuracy" in said.stderr
    assert "percent" in said.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.csv"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["fit"], "required: sweep"),
        (["fit", "demo", "--results", "mine.csv"], "goes with no sweep"),
        (["fit", "--results", "mine.csv", "store=x"], "goes with no sweep"),
        (["fit", "demo", "--to", "x"], "--to says something about a table"),
        (["fit", "--results", "mine.csv", "--column", "accuracy"], "no FIELD=COLUMN"),
        (["fit", "--results", "mine.csv"], "--column sunk_flops="),
        (["fit", "--results", "yours.csv"], "no table `yours.csv`"),
        (["fit", "--results", "."], "is a folder"),
        (["recommend", "--results", "paper-3b6b", "--metric", "loss"], "--metric accuracy"),
    ],
)
def test_nothing_is_written(words: list[str], says: str, growpoint: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text(TABLE)
    said = growpoint(*words, cwd=tmp_path, code=2).stderr
    error = said[said.index("error:") :]
    assert FORM.match(error), said
    assert says in error
    assert [path.name for path in tmp_path.iterdir()] == ["mine.csv"]


def test_a_law_is_fitted_alone_and_an_unknown_one_is_named(growpoint: Run, tmp_path: Path) -> None:
    table = ["fit", "--results", "paper-3b6b"]
    said = growpoint(*table, "--law", "sunk_loglinear", cwd=tmp_path).stdout
    assert "sunk_loglinear" in said
    assert "sunk_saturating" not in said
    assert not list(tmp_path.rglob("fits.json"))
    wrong = growpoint(*table, "--law", "sunk_log", cwd=tmp_path, code=2).stderr
    assert "there is no law" in wrong
    assert "--law sunk_loglinear" in wrong
