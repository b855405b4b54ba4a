"""Figures: what is drawn, the same bytes each time, and nothing cut off."""

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


def draw(name: str, store: Store, frame: pd.DataFrame, found: Fits | None) -> Drawn:
    if name == "sunk_vs_accuracy":
        return figures.sunk_vs_accuracy(frame, found, LOSS)
    if name == "accuracy_vs_extra":
        return figures.accuracy_vs_extra(frame, LOSS)
    return figures.loss_curves(records.curves(store, "invented", frame))


@pytest.fixture(scope="module")
def drawn(store: Store, frame: pd.DataFrame, found: Fits) -> dict[str, Drawn]:
    return {name: draw(name, store, frame, found) for name in figures.NAMES}


@pytest.mark.parametrize("name", figures.NAMES)
def test_what_is_drawn_is_the_golden_table(
    drawn: dict[str, Drawn], name: str, golden: Golden
) -> None:
    table = drawn[name][1]
    if name == "loss_curves":
        table = table.iloc[::40]
    rounded = table.copy()
    for column in table.select_dtypes("float"):
        rounded[column] = [f"{value:.4g}" for value in table[column]]
    # The ends of a band hang on the last bits of many fits; half a band's width does not.
    golden(f"figures/{name}.csv", style.csv(rounded.drop(columns=["low", "high"], errors="ignore")))


def test_every_run_is_a_dot_and_every_line_has_a_band(
    drawn: dict[str, Drawn], frame: pd.DataFrame
) -> None:
    table = drawn["sunk_vs_accuracy"][1]
    grown = frame[(frame["arm"] == "grow") & (frame["extra_flops"] > 0)]
    assert (table["kind"] == "run").sum() == len(grown)
    lines = table[table["kind"] == "fit"]
    assert len(lines)
    assert (lines["low"] < lines["high"]).all()
    assert (lines["value"].between(lines["low"] - 0.02, lines["high"] + 0.02)).all()
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
    for name in figures.NAMES:
        figure, table = draw(name, store, frame, None)
        check_text(figure)
        assert len(table)
        assert np.isfinite(table["value" if "value" in table else "loss"]).all()
