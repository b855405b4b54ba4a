"""The coverage benchmark: what it counts, and that it goes on where it stopped."""

from pathlib import Path

import pandas as pd
import pytest

from benchmarks import coverage
from benchmarks.coverage import Interval, Simulated

ONE = Simulated("upcycling", "6x4", 0)


def rows(sweep: int, inside: bool) -> list[Interval]:
    """What a sweep says where every interval holds the truth, or none but the mix."""
    return [
        Interval(
            truth="upcycling",
            layout="6x4",
            sweep=sweep,
            total=total,
            way=way,
            quantity=quantity,
            true=0.5,
            expected=0.45,
            low=0.3,
            high=0.6 if inside or way == "mix" else 0.4,
            regret=0.1,
            laws="upcycling",
            aicc=0.0,
            cpu_seconds=1.0,
        )
        for way in coverage.WAYS
        for total in coverage.TOTALS
        for quantity in ("share", "accuracy")
    ]


def table(*sweeps: list[Interval]) -> pd.DataFrame:
    return pd.DataFrame([row for sweep in sweeps for row in sweep])


def test_the_table_counts_what_holds_the_truth() -> None:
    lines = coverage.coverage(table(rows(0, True), rows(1, False)))
    header, pooled = (line.strip("| ").split(" | ") for line in (lines[0], lines[-1]))
    assert dict(zip(header, pooled, strict=True)) == {
        "quantity": "share",
        "total": "all",
        "layout": "all",
        "truth": "all",
        "intervals": "4",
        "mix": "100%",
        "best law": "50%",
        "best law by pairs": "50%",
        "average_params": "50%",
        "half width, points": "15",
    }


def test_a_sweep_that_was_not_written_whole_is_simulated_again(tmp_path: Path) -> None:
    path = tmp_path / "coverage.csv"
    table(rows(0, True), rows(1, True)).to_csv(path, index=False)
    text = path.read_text()
    path.write_text(text[: text.rindex("upcycling,6x4")])
    assert set(coverage.read(path)["sweep"]) == {0}
    path.write_text(text[:-30])
    assert set(coverage.read(path)["sweep"]) == {0}
    path.write_text("a,b\n1,2\n")
    with pytest.raises(SystemExit, match="another version"):
        coverage.read(path)


def test_it_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path = tmp_path / "new" / "coverage.csv"
    first = coverage.extend(path, [ONE], jobs=1)
    assert len(first) == len(rows(0, True))
    text = path.read_text()
    pd.testing.assert_frame_equal(coverage.extend(path, [ONE], jobs=1), first)
    assert path.read_text() == text


def test_a_sweep_is_drawn_the_same_each_time_and_unlike_others() -> None:
    frame = ONE.frame()
    pd.testing.assert_frame_equal(frame, ONE.frame())
    other = Simulated("upcycling", "6x4", 1).frame()
    assert (frame["accuracy"] != other["accuracy"]).all()
    residual = frame["accuracy"] - 1 + ONE.law().predict(coverage.design(frame))
    by_source = residual.groupby(frame["lineage"]).mean()
    assert 0.001 < by_source.std() < 0.01  # of a source, and a fourth of the variance of runs


def test_the_mix_holds_the_truth_and_a_wrong_law_alone_does_not() -> None:
    """Six small sweeps; a law of the wrong form is nearly always sure of a wrong share."""
    found = table(*(coverage.simulate(Simulated("upcycling", "6x4", each)) for each in range(6)))
    held = coverage.held(found).groupby([found["quantity"], found["way"]]).mean()
    assert held["share", "mix"] >= 0.7
    assert held["accuracy", "mix"] >= 0.7
    assert held["share", "average_params"] < held["share", "mix"]
