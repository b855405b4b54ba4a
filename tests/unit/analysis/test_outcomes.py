"""A table in place of a sweep: every command that learns works on it; files go where told."""

import json
from pathlib import Path

import pytest

from analysis import commands
from analysis.metrics import METRICS
from analysis.outcomes import Outcomes, of_table
from orchestrator import text
from sweeps.errors import GrowpointError

LOSSES = "sunk_flops,extra_flops,loss\n" + "".join(
    f"{sunk}e20,3e20,{2.9 - 0.1 * sunk + 0.004 * sunk**2}\n" for sunk in range(1, 10)
)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(text.out, "width", 200)


@pytest.fixture
def paper() -> Outcomes:
    return of_table("paper-3b6b")


def document(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    found: dict[str, object] = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    return found


def test_the_published_table_correlates_and_joint_laws_say_why_not(
    paper: Outcomes, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert commands.fit(paper, as_json=True) == 0
    found = json.loads(capsys.readouterr().out)
    (row,) = found["correlations"]
    assert row["cells"] == 12
    assert row["spearman"] > 0.95
    assert row["pearson"] > 0.95
    assert row["spearman_p"] < 0.001
    assert {"sunk_loglinear", "sunk_saturating"} <= {fit["law"] for fit in found["fits"]}
    reasons = {each["law"]: each["reason"] for each in found["skipped"]}
    assert "one extra budget" in reasons["effective_compute"]
    folder = tmp_path / "growpoint-results" / "paper-3b6b"
    assert sorted(path.name for path in folder.iterdir()) == ["fits.json", "table.json"]


def test_the_answer_on_the_published_table_is_to_grow_late_with_what_it_does_not_say(
    paper: Outcomes, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert commands.recommend(paper, as_json=True) == 0
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert found["answer"] == "grow"
    assert found["question"]["extra"] == 3.65e20
    options = {(each["arm"], each["sunk_flops"]): each for each in found["options"]}
    assert min(o["sunk_flops"] for o in found["options"][:3]) > 1.2e21
    scratch = options["scratch", 0.0]
    assert scratch["expected"] == pytest.approx(0.3879)
    assert scratch["chance_best"] == 0
    assert scratch["behind"] > 0.08
    said = " ".join(found["caveats"])
    for word in (
        "one seed",
        "annealed sources in 3 cells",
        "no un-grown control",
        "made elsewhere",
    ):
        assert word in said
    assert "one extra budget" in said
    assert not (tmp_path / "growpoint-results").exists()


def test_a_total_cannot_be_answered_from_one_extra_budget(
    paper: Outcomes, capsys: pytest.CaptureFixture[str]
) -> None:
    assert commands.recommend(paper, total_flops=1e21) == 0
    said = capsys.readouterr().out
    assert said.startswith("Not enough runs")
    assert "one extra budget" in said
    assert "nan" not in said


def test_figures_flag_annealed_sources_and_skip_what_there_is_not(
    paper: Outcomes, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert commands.plot(paper, as_json=True) == 0
    out, talk = capsys.readouterr()
    drawn = json.loads(out)["figures"]
    assert "sunk_vs_accuracy" in drawn
    assert "loss_curves" not in drawn
    assert "loss_curves is not drawn: a table of results has no training curves" in talk
    csv = next(path for path in drawn["sunk_vs_accuracy"] if path.endswith(".csv"))
    assert Path(csv).read_text().count("annealed run") == 3
    svg = next(path for path in drawn["sunk_vs_accuracy"] if path.endswith(".svg"))
    assert "open: annealed source" in Path(svg).read_text()
    assert "next-token" not in Path(svg).read_text()
    with pytest.raises(GrowpointError, match="no training curves"):
        commands.plot(paper, which=["loss_curves"])


def test_a_report_of_a_table_is_the_same_twice(
    paper: Outcomes, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = tmp_path / "elsewhere"
    made = []
    for _ in range(2):
        assert commands.report(of_table("paper-3b6b", to=folder)) == 0
        made.append({p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file()})
    assert made[0] == made[1]
    report = made[0]["report.md"].decode()
    assert "growpoint report --results paper-3b6b" in report
    assert "growpoint launch" not in report
    assert "nan" not in report


def test_a_table_of_losses_is_answered_by_loss(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "losses.csv").write_text(LOSSES)
    found = of_table("losses.csv")
    assert found.metrics == (METRICS["loss"],)
    assert commands.recommend(found, as_json=True) == 0
    assert document(capsys)["metric"] == "loss"
    assert commands.results(found) == 0
    assert "nan" not in capsys.readouterr().out
    with pytest.raises(GrowpointError, match="losses has no accuracy") as caught:
        commands.recommend(found, metric="accuracy")
    assert "--metric loss" in caught.value.text()


def test_too_few_rows_lead_back_to_the_table(tmp_path: Path) -> None:
    (tmp_path / "few.csv").write_text("".join(LOSSES.splitlines(keepends=True)[:4]))
    with pytest.raises(GrowpointError, match="too few") as caught:
        commands.fit(of_table("few.csv"))
    assert "growpoint results --results few.csv" in caught.value.text()
    assert not (tmp_path / "growpoint-results").exists()


def test_what_was_learned_from_another_table_is_not_overwritten(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "same.csv").write_text(LOSSES)
    assert commands.fit(of_table("a/same.csv")) == 0
    assert commands.fit(of_table("a/same.csv")) == 0
    before = (tmp_path / "growpoint-results" / "same" / "fits.json").read_bytes()
    with pytest.raises(GrowpointError, match="another table") as caught:
        commands.fit(of_table("b/same.csv"))
    assert "--to growpoint-results/same-2" in caught.value.text()
    assert (tmp_path / "growpoint-results" / "same" / "fits.json").read_bytes() == before
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["same.csv"]


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(GrowpointError, match="cannot be written") as caught:
        of_table("paper-3b6b", to=Path("file/below")).writable()
    assert "--to" in caught.value.text()


def test_the_bundled_tables_are_package_data() -> None:
    """An installed wheel has only what the settings name."""
    import tomllib

    root = Path(commands.__file__).parents[1]
    settings = tomllib.loads((root / "pyproject.toml").read_text())
    patterns = settings["tool"]["setuptools"]["package-data"]["analysis"]
    packed = {path for pattern in patterns for path in (root / "analysis").glob(pattern)}
    assert packed >= set((root / "analysis" / "results").iterdir())


def test_the_way_back_to_a_table_can_be_pasted(tmp_path: Path) -> None:
    (tmp_path / "my losses.csv").write_text(LOSSES.replace("loss", "nll"))
    found = of_table("my losses.csv", {"loss": "nll*0.9"})
    assert found.words == "--results 'my losses.csv' --column 'loss=nll*0.9'"
