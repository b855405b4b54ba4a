"""Tables made elsewhere: the same runs are the same records however they are written down."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import analysis
from analysis import fits, records
from analysis.columns import FIELDS
from analysis.imported import read
from analysis.metrics import METRICS
from orchestrator.store import Store
from sweeps.errors import GrowpointError

Golden = Callable[[str, str], None]
HEADER = "sunk_flops,extra_flops,accuracy"
GOOD = f"{HEADER}\n1e20,3e20,0.41\n2e20,3e20,0.44\n4e20,3e20,0.46\n"


def frame_of(folder: Path, text: str, **columns: str) -> pd.DataFrame:
    """The records of a table with this text."""
    path = folder / "table.csv"
    path.write_text(text, encoding="utf-8")
    return read(path, columns).frame


Run = dict[str, float | str]
levels = st.sampled_from([0.0, 1e19, 2.5e19, 7.3e20, 1.1e21])
run = st.fixed_dictionaries(
    {
        "sunk_flops": levels,
        "extra_flops": st.sampled_from([2e20, 3.65e20]),
        "accuracy": st.integers(2, 99).map(lambda percent: percent / 100),
        "seed": st.integers(0, 3),
        "arm": st.sampled_from(["grow", "continue"]),
        "annealed": st.sampled_from(["yes", "no"]),
    }
)
runs = st.lists(
    run, min_size=1, unique_by=lambda r: (r["sunk_flops"], r["extra_flops"], r["seed"], r["arm"])
).map(lambda rows: [row | {"cell": f"c{index}"} for index, row in enumerate(rows)])


def table(rows: list[Run], delimiter: str = ",", names: dict[str, str] | None = None) -> str:
    header = [(names or {}).get(name, name) for name in rows[0]]
    lines = [header, *([str(row[name]) for name in rows[0]] for row in rows)]
    return "\n".join(delimiter.join(line) for line in lines) + "\n"


@settings(max_examples=20)  # a table takes pandas some 30 ms
@given(rows=runs, data=st.data())
def test_order_names_delimiters_and_file_formats_change_nothing(
    rows: list[Run], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("tables")
    plain = frame_of(folder, table(rows))
    assert list(plain.columns) == list(records.COLUMNS)
    assert len(plain) == len(rows)
    shuffled = data.draw(st.permutations(rows))
    delimiter = data.draw(st.sampled_from([",", ";", "\t"]))
    pd.testing.assert_frame_equal(frame_of(folder, table(shuffled, delimiter)), plain)
    names = {name: f"My {name}!" for name in rows[0]}
    renamed = frame_of(folder, table(rows, names=names), **names)
    pd.testing.assert_frame_equal(renamed, plain)
    pd.DataFrame(rows).to_parquet(folder / "table.parquet")
    pd.testing.assert_frame_equal(read(folder / "table.parquet", {}).frame, plain)


@settings(max_examples=20)  # a table takes pandas some 30 ms
@given(rows=runs)
def test_percent_and_fractions_are_the_same(
    rows: list[Run], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("tables")
    percent = [row | {"accuracy": round(float(row["accuracy"]) * 100)} for row in rows]
    left, right = (frame_of(folder, table(each)) for each in (rows, percent))
    pd.testing.assert_frame_equal(left, right, rtol=1e-12)


@settings(max_examples=20)  # a table takes pandas some 30 ms
@given(rows=runs, factor=st.sampled_from([1e18, 6.7e16]))
def test_a_factor_scales_a_column(
    rows: list[Run], factor: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("tables")
    scaled = [row | {"sunk_flops": float(row["sunk_flops"]) / factor} for row in rows]
    names = {"sunk_flops": "step"}
    found = frame_of(folder, table(scaled, names=names), sunk_flops=f"step*{factor}")
    known = frame_of(folder, table(rows))
    columns = ["sunk_flops", "extra_flops", "total_flops", "accuracy"]
    pd.testing.assert_frame_equal(found[columns], known[columns], rtol=1e-12)


def test_tokens_and_sizes_stand_in_for_flops(tmp_path: Path) -> None:
    found = frame_of(
        tmp_path,
        "Tokens Before,tokens after,acc\n1e9,2e9,41\n3e9,2e9,44\n",
        sunk_tokens="Tokens Before",
        extra_tokens="tokens after",
        accuracy="acc",
        source_active="1e9",
        active="2e9",
    )
    assert found["sunk_flops"].tolist() == [6e18, 18e18]
    assert found["extra_flops"].tolist() == [24e18, 24e18]
    assert found["sunk_tokens"].dtype == "int64"
    assert found["accuracy"].tolist() == pytest.approx([0.41, 0.44])


def test_totals_stand_in_for_extra(tmp_path: Path) -> None:
    rows = "sunk_flops,total_flops,loss\n1e20,5e20,2.5\n2e20,5e20,2.4\n3e20,5e20,2.3\n"
    found = frame_of(tmp_path, rows)
    assert found["extra_flops"].tolist() == [4e20, 3e20, 2e20]
    assert (found["budget"] == "total").all()
    assert found["accuracy"].isna().all()


def test_what_is_not_said_is_not_known(tmp_path: Path) -> None:
    found = frame_of(tmp_path, GOOD)
    for name in ("source_active_params", "sunk_tokens", "val_loss", "accuracy_se"):
        assert found[name].isna().all()
    assert set(found["arm"]) == {"grow"}
    assert set(found["growth"]) == {"grown"}
    assert set(found["seed"]) == {0}
    assert found["lineage"].nunique() == 3
    assert not found["annealed"].any()


def test_a_source_checkpoint_is_the_cluster_unless_a_lineage_is_said(tmp_path: Path) -> None:
    two = "sunk_flops,extra_flops,accuracy,arm,seed\n"
    two += "1e20,3e20,0.4,grow,0\n1e20,6e20,0.5,grow,0\n1e20,3e20,0.3,continue,0\n"
    two += "1e20,3e20,0.4,grow,1\n2e20,3e20,0.4,grow,0\n0,3e20,0.2,scratch,0\n"
    found = frame_of(tmp_path, two)
    assert found["source"].nunique() == 3  # two checkpoints, and no checkpoint
    assert found["lineage"].nunique() == 4
    by_lineage = "sunk_flops,extra_flops,accuracy,lineage\n1e20,3e20,0.4,a\n2e20,3e20,0.5,a\n"
    found = frame_of(tmp_path, by_lineage + "1e20,3e20,0.41,b\n")
    assert found["lineage"].tolist() == ["a", "b", "a"]
    assert found["source"].nunique() == 3


def test_rows_without_numbers_and_repeated_rows_are_left_out_and_listed(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(GOOD + "8e20,3e20,nan\n,3e20,0.5\n2e20,3e20,0.44\n9e20,,0.5\n")
    found = read(path, {})
    assert len(found.frame) == 3
    assert found.dropped == (
        (5, "no accuracy"),
        (6, "no sunk compute"),
        (7, "repeats line 3"),
        (8, "no extra compute"),
    )
    with pytest.warns(UserWarning, match="4 of 7 rows are left out") as caught:
        frame = analysis.read_results(path)
    assert "line 7: repeats line 3" in str(caught[0].message)
    pd.testing.assert_frame_equal(frame, found.frame)


def test_a_row_needs_one_metric_and_each_is_fitted_where_it_is(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lines = ["sunk_flops,extra_flops,accuracy,loss"]
    for index in range(12):
        sunk = 1e20 * (index + 1)
        loss = 2.0 + 0.8 * (1 + sunk / 2e20) ** -0.5 + rng.normal(0, 0.003)
        lines.append(f"{sunk},3e20,{0.9 - 0.2 * loss if index < 8 else ''},{loss}")
    frame = frame_of(tmp_path, "\n".join(lines))
    found = fits.fit_sweep(frame, len(frame))
    cells = {
        metric: {fit.cells for fit in found.fits if fit.metric == metric} for metric in METRICS
    }
    assert cells == {"accuracy": {8}, "loss": {12}}


def test_laws_that_ask_for_sizes_say_that_they_are_not_known(small: Store) -> None:
    sizes = {"source_active_params": math.nan, "active_params": math.nan}
    unknown = records.load(small, "invented").assign(**sizes)
    found = fits.fit_sweep(unknown, len(unknown), (METRICS["loss"],))
    reasons = {each.law: each.reason for each in found.skipped if each.which.growth == "depth x2"}
    assert "not known" in reasons["average_params"]
    assert "effective_compute" in {fit.law.name for fit in found.fits}


def test_a_sweep_exported_and_read_again_has_the_same_fits(small: Store, tmp_path: Path) -> None:
    frame = records.load(small, "invented")
    path = tmp_path / "invented.csv"
    path.write_text(frame.to_csv(index=False, lineterminator="\n"))
    again = read(path, {})
    assert again.warnings() == []
    pd.testing.assert_frame_equal(again.frame, frame, check_exact=True)
    left, right = (fits.fit_sweep(each, 27, (METRICS["loss"],)) for each in (frame, again.frame))
    assert len(left.fits) > 3
    assert fits.to_dict(left) == fits.to_dict(right)


BAD = {
    "empty": "",
    "header only": f"{HEADER}\n",
    "ragged": f"{HEADER}\n1e20,3e20\n",
    "open quote": f'{HEADER}\n1e20,3e20,"0.4\n',
    "columns of one name": f"{HEADER},accuracy\n1e20,3e20,0.4,0.5\n",
    "no sunk": "step,extra_flops,accuracy\n1000,3e20,0.4\n",
    "no extra": "sunk_flops,more_flops,accuracy\n1e20,3e20,0.4\n",
    "no metric": "sunk_flops,extra_flops,avg_acc\n1e20,3e20,0.4\n",
    "words": GOOD + "2e20,a lot,0.4\n2e20,3e20,48.9%\n",
    "infinite": GOOD + "inf,3e20,0.4\n",
    "seed": f"{HEADER},seed\n1e20,3e20,0.4,1.5\n",
    "flag": f"{HEADER},annealed\n1e20,3e20,0.4,maybe\n",
    "all unknown": f"{HEADER}\n1e20,3e20,nan\n1e20,,0.4\n",
    "arm": f"{HEADER},arm\n1e20,3e20,0.4,grown\n",
    "grown control": f"{HEADER},arm,growth\n1e20,3e20,0.4,continue,depth x2\n",
    "negative": GOOD + "-1e20,3e20,0.4\n",
    "zero": GOOD + "0,0,0.4\n",
    "total below sunk": "sunk_flops,total_flops,accuracy\n2e20,1e20,0.4\n",
    "total not the sum": f"{HEADER},total_flops\n2e20,1e20,0.4,9e20\n",
    "scratch with sunk": f"{HEADER},arm\n1e20,3e20,0.4,scratch\n",
    "percent and fraction": GOOD + "8e20,3e20,48.1\n",
    "above 100": GOOD + "8e20,3e20,481\n",
    "negative accuracy": GOOD + "8e20,3e20,-0.1\n",
    "error in percent": f"{HEADER},accuracy_se\n1e20,3e20,0.4,0.6\n",
    "perplexity": "sunk_flops,extra_flops,loss\n1e20,3e20,23.5\n",
    "tokens without sizes": "sunk_tokens,extra_flops,accuracy\n1e10,3e20,0.4\n",
    "tokens called FLOPs": "sunk_flops,extra_flops,accuracy\n1e10,3e20,0.4\n",
    "tokens, and sizes known": f"{HEADER},source_active,active\n1e10,3e10,0.4,3e9,6e9\n",
    "FLOPs and tokens apart": f"{HEADER},sunk_tokens,source_active\n1e20,3e20,0.4,1e12,3e9\n",
    "mixed within": GOOD + "4e11,3e20,0.4\n",
    "small": f"{HEADER}\n1.2,3.6,0.4\n",
    "sizes in billions": f"{HEADER},source_active,active\n1e20,3e20,0.4,3,6\n",
    "shrunk": f"{HEADER},source_active,active\n1e20,3e20,0.4,6e9,3e9\n",
    "one run twice": GOOD + "4e20,3e20,0.47\n",
}


def complaint(folder: Path, text: str, **columns: str) -> str:
    with pytest.raises(GrowpointError) as caught:
        frame_of(folder, text, **columns)
    return caught.value.text()


def test_bad_tables_say_what_is_wrong_where_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, golden: Golden
) -> None:
    monkeypatch.chdir(tmp_path)
    said = {name: complaint(Path(), text) for name, text in BAD.items()}
    assert all("\n  help" in words for words in said.values())
    # Every table but the first, which has no line at all, has one good reason of its own.
    problems = {name: words.splitlines()[0] for name, words in said.items()}
    assert len(set(problems.values())) >= 28
    golden(
        "cli/tables.txt", "\n\n".join(f"# {name}\n{words}" for name, words in said.items()) + "\n"
    )


def test_what_is_no_text_cannot_be_read(tmp_path: Path) -> None:
    for name, content in (("a.csv", b"\xff\xfe\x00\x01"), ("a.parquet", b"PAR1 not really")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(GrowpointError, match="the table cannot be read"):
            read(tmp_path / name, {})


@pytest.mark.parametrize(
    ("columns", "problem", "help"),
    [
        ({"accurate": "accuracy"}, "no field `accurate`", "--column accuracy=accuracy"),
        ({"accuracy": "accurate"}, "no column `accurate`", "--column accuracy=accuracy"),
        ({"sunk_flops": "step*1e20"}, "no column `step*1e20`", "--column sunk_flops="),
        ({"growth": "7"}, "no column `7`", "--column growth="),
    ],
)
def test_a_wrong_mapping_names_the_right_one(
    columns: dict[str, str], problem: str, help: str, tmp_path: Path
) -> None:
    said = complaint(tmp_path, GOOD, **columns)
    assert problem in said
    assert help in said


def test_a_missing_column_names_what_is_there(tmp_path: Path) -> None:
    said = complaint(tmp_path, "sunk_flops,extra_flops,avg_acc\n1e20,3e20,0.4\n")
    assert "columns sunk_flops, extra_flops, avg_acc" in said
    assert "--column accuracy=avg_acc" in said


def test_a_table_that_is_not_there_names_the_bundled_ones() -> None:
    with pytest.raises(GrowpointError, match="there is no table") as caught:
        read("nowhere.csv", {})
    assert "paper-3b6b" in caught.value.text()


def test_the_schema_covers_the_records() -> None:
    made = {"sweep", "total_flops"}
    assert {field.column or field.name for field in FIELDS.values()} >= set(records.COLUMNS) - made


def test_the_published_table_is_what_was_published() -> None:
    with pytest.warns(UserWarning, match="percent"):
        frame = analysis.read_results("paper-3b6b")
    grown = frame[frame["arm"] == "grow"].sort_values("sunk_flops")
    steps = grown["sunk_flops"].to_numpy() * 8000 / 1.3396e20
    assert steps == pytest.approx(np.arange(8000, 96001, 8000))
    assert grown["source"].tolist() == [f"step {step:.0f}" for step in steps]
    assert grown["annealed"].tolist() == [step > 72000 for step in np.round(steps)]
    assert (frame["extra_flops"] == 3.65e20).all()
    scratch = frame[frame["arm"] == "scratch"]
    assert scratch["accuracy"].tolist() == pytest.approx([0.3879])
    assert grown["accuracy"].iloc[[0, 10, 11]].tolist() == pytest.approx([0.4207, 0.4899, 0.4852])
    assert len(grown) == 12
