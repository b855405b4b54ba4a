"""The figure of norms by layer: what is drawn, the same bytes each time, nothing cut off."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis import style
from analysis.figures.norm_profile import norm_profile
from tests.unit.analysis.test_figures import check_text


def rows(name: str, source: list[int]) -> list[dict[str, object]]:
    return [
        {
            "checkpoint": name,
            "layer": layer,
            "source_layer": index,
            "copy": index in source[:layer],
            "experts": 0.02 + 0.003 * index,
            "router": 0.1,
        }
        for layer, index in enumerate(source)
    ]


def table(*names: str) -> pd.DataFrame:
    maps = [[0, 1, 2, 3], [0, 0, 1, 1, 2, 2, 3, 3], [0, 1, 2, 3] * 2]
    found = [row for number, name in enumerate(names) for row in rows(name, maps[number % 3])]
    return pd.DataFrame(found)


NAMES = [
    ("source", "interpose"),
    ("source", "interpose", "stack"),
    ("source", "interpose", "stack", "a-name-that-is-far-too-long-for-so-narrow-a-panel"),
    tuple(f"step-{number:07d}-of-a-series" for number in range(9)),
]


@pytest.mark.parametrize("names", NAMES, ids=len)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 3.3, 1e4])
def test_nothing_is_cut_off_and_nothing_collides(names: tuple[str, ...], scale: float) -> None:
    frame = table(*names)
    frame["experts"] *= scale
    figure, drawn = norm_profile(frame)
    check_text(figure)
    assert list(dict.fromkeys(drawn["checkpoint"])) == list(names)


def test_each_panel_has_its_own_layers_and_the_first_profile() -> None:
    figure, _ = norm_profile(table("source", "interpose", "stack"))
    assert [at.get_title(loc="left") for at in figure.axes] == ["source", "interpose", "stack"]
    first, *grown = figure.axes
    assert [len(np.asarray(line.get_xdata())) for line in first.lines] == [4, 4, 0]
    for at in grown:
        stretched, profile, originals, copies = at.lines
        assert np.asarray(stretched.get_xdata()).tolist() == [0.5, 2.5, 4.5, 6.5]
        assert np.asarray(stretched.get_ydata()) == pytest.approx([0.02, 0.023, 0.026, 0.029])
        assert len(np.asarray(profile.get_xdata())) == 8
        assert len(np.asarray(originals.get_xdata())) == len(np.asarray(copies.get_xdata())) == 4
    assert np.asarray(grown[0].lines[3].get_xdata()).tolist() == [1, 3, 5, 7]
    assert np.asarray(grown[1].lines[3].get_xdata()).tolist() == [4, 5, 6, 7]


def test_norms_that_hardly_differ_look_so() -> None:
    frame = table("source", "interpose")
    frame["experts"] = 0.02 + frame["experts"] / 1e5
    figure, _ = norm_profile(frame)
    low, high = figure.axes[0].get_ylim()
    assert high - low > 0.05 * high
    check_text(figure)


def test_layers_without_experts_are_gaps() -> None:
    frame = table("source", "interpose")
    frame.loc[frame["source_layer"] == 0, "experts"] = np.nan
    figure, drawn = norm_profile(frame)
    check_text(figure)
    assert np.isnan(np.asarray(figure.axes[0].lines[0].get_ydata())[0])
    assert drawn["experts"].isna().sum() == 3


def test_a_rerun_writes_the_same_bytes(tmp_path: Path) -> None:
    made = [
        style.save(*norm_profile(table("source", "stack")), tmp_path / str(run), "norm_profile")
        for run in range(2)
    ]
    assert [path.suffix for path in made[0]] == [".pdf", ".svg", ".png", ".csv"]
    for one, other in zip(*made, strict=True):
        assert one.read_bytes() == other.read_bytes()
