"""Figures: what is drawn, the same bytes each time, and nothing cut off."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from analysis import figures, records, style
from analysis.fits import Fits
from analysis.metrics import METRICS
from orchestrator.store import Store
from tests.unit.analysis import invented

Golden = Callable[[str, str], None]
Drawn = tuple[Figure, pd.DataFrame]
LOSS = METRICS["loss"]
# What hangs on the last bits of many fits: bands, and which of two even options is ahead.
LOOSE = ["low", "high", "too_close", "chance", "near_best", "diagnosis"]


def draw(name: str, store: Store, frame: pd.DataFrame, found: Fits | None) -> Drawn:
    subject = figures.Subject(frame, LOSS, found, lambda: records.curves(store, "invented", frame))
    return figures.FIGURES[name](subject)


@pytest.fixture(scope="module")
def drawn(store: Store, frame: pd.DataFrame, found: Fits) -> dict[str, Drawn]:
    return {name: draw(name, store, frame, found) for name in figures.NAMES}


@pytest.mark.parametrize("name", figures.NAMES)
def test_what_is_drawn_is_the_golden_table(
    drawn: dict[str, Drawn], name: str, golden: Golden
) -> None:
    table = drawn[name][1]
    thin = {"loss_curves": 40, "decision_map": 701}
    table = table.iloc[:: thin.get(name, 1)]
    rounded = table.copy()
    for column in table.select_dtypes("float"):
        rounded[column] = [f"{value:.4g}" for value in table[column]]
    golden(f"figures/{name}.csv", style.csv(rounded.drop(columns=LOOSE, errors="ignore")))


def test_every_run_is_a_dot_and_every_line_has_a_band(
    drawn: dict[str, Drawn], frame: pd.DataFrame
) -> None:
    table = drawn["sunk_vs_accuracy"][1]
    grown = frame[(frame["arm"] == "grow") & (frame["extra_flops"] > 0)]
    assert (table["kind"] == "run").sum() == len(grown)
    lines = table[table["kind"] == "fit"]
    assert len(lines)
    assert (lines["low"] < lines["high"]).all()
    assert (lines["value"].between(lines["low"], lines["high"])).all()
    assert len(drawn["accuracy_vs_extra"][1]) == len(frame)


def test_a_branch_is_drawn_from_its_first_step_with_its_spike(drawn: dict[str, Drawn]) -> None:
    figure, table = drawn["loss_curves"]
    low, high = figure.axes[0].get_ylim()
    branches = table[(table["part"] == "branch") & (table["sunk_flops"] > 0)]
    assert branches["loss"].max() <= high
    assert branches["loss"].min() >= low
    for _, line in branches.groupby(["growth", "sunk_flops"]):
        assert line["loss"].iloc[0] > line["loss"].iloc[6]


@pytest.mark.parametrize("name", figures.NAMES)
def test_text_is_not_cut_off_and_does_not_collide(drawn: dict[str, Drawn], name: str) -> None:
    check_text(drawn[name][0])


def check_text(figure: Figure) -> None:
    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    with style.drawing():
        canvas.draw()
    renderer = canvas.get_renderer()
    page = figure.bbox
    boxes = []
    for mark in figure.findobj(Text):
        assert isinstance(mark, Text)
        if not mark.get_text() or not mark.get_visible():
            continue
        box = mark.get_window_extent(renderer)
        if box.width and mark.get_text() != "" and _is_shown(mark, figure):
            assert page.x0 - 1 <= box.x0, mark.get_text()
            assert box.x1 <= page.x1 + 1, mark.get_text()
            assert page.y0 - 1 <= box.y0, mark.get_text()
            assert box.y1 <= page.y1 + 1, mark.get_text()
            boxes.append((mark.get_text(), box.padded(-1.5)))
    assert len(boxes) > 5
    for index, (words, box) in enumerate(boxes):
        for other, second in boxes[index + 1 :]:
            assert not box.overlaps(second), (words, other)


def _is_shown(mark: Text, figure: Figure) -> bool:
    """Tick labels of ticks outside the view exist, but are not drawn."""
    ticks = {
        label
        for axes in figure.axes
        for label in (*axes.get_xticklabels(), *axes.get_yticklabels())
    }
    axes = mark.axes
    if mark not in ticks or axes is None:
        return mark not in ticks
    x, y = mark.get_position()
    on_x = mark in axes.get_xticklabels()
    low, high = sorted(axes.get_xlim() if on_x else axes.get_ylim())
    return bool(low <= (x if on_x else y) <= high)


@pytest.mark.parametrize("name", figures.NAMES)
def test_a_second_drawing_has_the_same_bytes(
    store: Store,
    frame: pd.DataFrame,
    found: Fits,
    drawn: dict[str, Drawn],
    name: str,
    tmp_path: Path,
) -> None:
    first = style.save(*drawn[name], tmp_path / "a", name)
    again = draw(name, store, frame, found)
    second = style.save(*again, tmp_path / "b", name)
    assert [path.suffix for path in first] == [".pdf", ".svg", ".png", ".csv"]
    for left, right in zip(first, second, strict=True):
        assert left.read_bytes() == right.read_bytes(), left.name


def test_vectors_keep_their_text_and_no_date(drawn: dict[str, Drawn], tmp_path: Path) -> None:
    pdf, svg, *_ = style.save(*drawn["sunk_vs_accuracy"], tmp_path, "figure")
    assert b"/FontFile2" in pdf.read_bytes()  # TrueType
    assert b"CreationDate" not in pdf.read_bytes()
    assert "sunk compute (FLOPs)</text>" in svg.read_text()
    assert "<dc:date>" not in svg.read_text()


@pytest.mark.parametrize(
    "layout",
    [
        invented.Layout(
            sunk=(0, 2e12),
            depth_at=(0, 1),
            width_at=(),
            continue_at=(),
            seeds=(0,),
            extra=(4e12,),
            scratch=False,
        ),
        invented.Layout(sunk=(0,), depth_at=(0,), width_at=(), continue_at=(), seeds=(0,)),
        invented.Layout(depth_at=(), width_at=(3,), continue_at=(3,), seeds=(0,)),
    ],
)
def test_poor_sweeps_are_drawn_too(tmp_path: Path, layout: invented.Layout) -> None:
    invented.write(tmp_path, layout)
    store = Store(tmp_path)
    frame = records.load(store, "invented")
    made = 0
    for name in figures.NAMES:
        try:
            figure, table = draw(name, store, frame, None)
        except figures.NothingToDrawError:
            continue
        made += 1
        check_text(figure)
        assert len(table)
        assert np.isfinite(table["value" if "value" in table else "loss"]).all()
    assert made >= 2


def test_runs_from_scratch_stand_at_zero(drawn: dict[str, Drawn], frame: pd.DataFrame) -> None:
    table = drawn["sunk_vs_accuracy"][1]
    dots = table[table["kind"] == "scratch run"]
    expected = frame[(frame["arm"] == "scratch")]
    assert sorted(dots["value"]) == pytest.approx(sorted(expected["val_loss"]))
    assert (dots["sunk_flops"] == 0).all()


def titles(figure: Figure) -> list[str]:
    return [mark.get_text() for mark in figure.texts]


def test_titles_say_what_the_data_say(
    drawn: dict[str, Drawn], frame: pd.DataFrame, store: Store
) -> None:
    assert titles(drawn["sunk_vs_accuracy"][0])[0] == "Sunk compute pays after growth"
    claim = titles(drawn["accuracy_vs_extra"][0])[0]
    assert claim.startswith("2 times the extra compute takes off 0.0")
    worse = frame.assign(val_loss=frame["val_loss"] + frame["extra_flops"] / 4e12)
    figure, _ = figures.accuracy_vs_extra(worse, LOSS)
    assert titles(figure)[0] == "2 times the extra compute helps after no growth"
    assert re.fullmatch(
        r"Growing costs 0.\d\d nats at first; .* catch up", titles(drawn["loss_curves"][0])[0]
    )
    curves = records.curves(store, "invented", frame)
    spike = (curves["part"] == "branch") & (curves["sunk_flops"] > 0)
    flat = curves.assign(loss=curves["loss"].where(~spike, 0.0))
    assert titles(figures.loss_curves(flat)[0])[0].startswith("Growing costs no loss")


def test_a_sweep_of_one_total_has_no_lines_of_one_extra_budget(frame: pd.DataFrame) -> None:
    grown = frame[(frame["arm"] == "grow") & (frame["growth"] == "depth x2") & (frame["seed"] == 0)]
    sunk = grown["sunk_flops"].rank(method="dense") * 1e12
    total = grown.assign(budget="total", sunk_flops=sunk, extra_flops=9e12 - sunk, total_flops=9e12)
    with pytest.raises(figures.NothingToDrawError, match="total"):
        figures.sunk_vs_accuracy(total, None, LOSS)
    with pytest.raises(figures.NothingToDrawError, match="two extra budgets"):
        figures.accuracy_vs_extra(total, LOSS)


def test_many_panels_go_into_rows_and_long_names_are_fitted(frame: pd.DataFrame) -> None:
    names = ["branch.optimizer_state=carried over from the source", "branch.optimizer_state=fresh"]
    both = pd.concat([frame.assign(variant=name) for name in names])
    figure, _ = figures.accuracy_vs_extra(both, LOSS)
    assert len(figure.axes) == 6
    assert len({at.get_position().y0 for at in figure.axes}) == 2
    check_text(figure)
