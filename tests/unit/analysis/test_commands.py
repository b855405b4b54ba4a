"""Commands: what is printed and written, and that a second run writes the same bytes."""

import json
from pathlib import Path

import pandas as pd
import pytest

from analysis import commands
from analysis.outcomes import Outcomes, of_sweep
from orchestrator import text
from orchestrator.store import Store
from sweeps.errors import GrowpointError

NAME = "invented"


def invented(store: Store) -> Outcomes:
    return of_sweep(store, NAME)


def printed(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text.out, "width", 200)


def test_results_as_table_json_and_csv(
    small: Store, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert commands.results(invented(small)) == 0
    assert "27 of 27 cells" in printed(capsys)
    path = tmp_path / "cells.csv"
    assert commands.results(invented(small), as_json=True, csv=path) == 0
    document = json.loads(printed(capsys), parse_constant=pytest.fail)
    assert document["done"] == document["planned"] == len(document["cells"])
    assert list(pd.read_csv(path).columns) == list(document["cells"][0])


def test_a_report_is_the_same_twice_and_its_links_lead_somewhere(
    small: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = small.plan_folder(NAME)
    assert commands.report(invented(small)) == 0
    assert str(folder / "report.md") in printed(capsys)
    first = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert commands.report(invented(small), as_json=True) == 0
    second = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert first == second
    report = first["report.md"].decode()
    links = [part.split(")")[0] for part in report.split("](")[1:]]
    assert len(links) == 12
    for link in links:
        assert (folder / link).is_file()
        assert not Path(link).is_absolute()
    for heading in ("## Answers", "## Growing against the un-grown control", "## Make it again"):
        assert heading in report
    assert len(json.loads(first["fits.json"])["fits"]) > 4


def test_fit_prints_the_comparison(small: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.fit(invented(small)) == 0
    said = printed(capsys)
    assert "held-out" in said
    assert "effective_compute" in said
    assert str(small.plan_folder(NAME) / "fits.json") in said


def test_recommend_prints_an_answer_or_json(
    small: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    for as_json in (False, True):
        done = commands.recommend(
            invented(small), metric="loss", as_json=as_json, sunk_flops=8e12, extra_flops=8e12
        )
        assert done == 0
        said = printed(capsys)
        if not as_json:
            first = said.splitlines()[0]
    assert json.loads(said, parse_constant=pytest.fail)["headline"] == first


def test_plot_draws_what_is_named(small: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.plot(invented(small), which=["loss_curves"]) == 0
    assert printed(capsys).split() == [str(small.plan_folder(NAME) / "figures/loss_curves.pdf")]
    with pytest.raises(GrowpointError, match="no figure 'pie'"):
        commands.plot(invented(small), which=["pie"])


def test_an_unknown_metric_names_the_known_ones(small: Store) -> None:
    with pytest.raises(GrowpointError, match="no metric 'speed'") as caught:
        commands.recommend(invented(small), extra_flops=1e12, metric="speed")
    assert "accuracy, loss" in caught.value.text()
