"""Style: colours that everybody can tell apart, labels that do not collide, no side effects."""

import re
from itertools import combinations, pairwise

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_hex, to_rgb

from analysis import style
from analysis.metrics import FloatArray

# Machado, Oliveira and Fernandes (2009), severity 1.0, on linear RGB.
VISION = {
    "normal": np.eye(3),
    "protan": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deutan": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritan": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}
SHOWN = [
    *style.ARMS.values(),
    *style.budget_colours(3),
    *style.budget_colours(5),
    *(style.sunk_colour(sunk, 1e12, 1e14) for sunk in (0, 1e12, 3e12, 1e13, 1e14)),
    style.GREY,
]


def linear(colour: str) -> FloatArray:
    value = np.array(to_rgb(colour))
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def contrast_on_white(colour: str) -> float:
    return 1.05 / (float(linear(colour) @ [0.2126, 0.7152, 0.0722]) + 0.05)


def lab(colour: str, vision: str) -> FloatArray:
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    seen = np.clip(VISION[vision] @ linear(colour), 0, 1)
    ratio = to_xyz @ seen / (to_xyz @ np.ones(3))
    root = np.where(ratio > 216 / 24389, np.cbrt(ratio), (24389 / 27 * ratio + 16) / 116)
    return np.array([116 * root[1] - 16, 500 * (root[0] - root[1]), 200 * (root[1] - root[2])])


@pytest.mark.parametrize("colour", SHOWN)
def test_every_colour_stands_out_on_white(colour: str) -> None:
    assert contrast_on_white(colour) >= 3


@pytest.mark.parametrize("vision", VISION)
def test_arms_are_told_apart_by_everybody(vision: str) -> None:
    for left, right in combinations(style.ARMS.values(), 2):
        assert np.linalg.norm(lab(left, vision) - lab(right, vision)) >= 20


def hexed(colour: FloatArray) -> str:
    red, green, blue = (float(each) for each in colour)
    return to_hex((red, green, blue))


def shade(arm: str, strength: float) -> str:
    return hexed(style.arm_shades(arm, np.array(strength)))


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("strength", [0.0, 0.3, 0.7, 1.0])
def test_arms_are_told_apart_on_a_map_however_close_they_are(vision: str, strength: float) -> None:
    for left, right in combinations(style.ARMS, 2):
        pair = (lab(shade(arm, strength), vision) for arm in (left, right))
        assert np.linalg.norm(next(pair) - next(pair)) >= 20
        assert np.linalg.norm(lab(shade(left, strength), vision) - lab("white", vision)) >= 20


def test_a_shade_is_the_full_colour_at_full_strength_and_beyond() -> None:
    for arm, colour in style.ARMS.items():
        assert shade(arm, 1.0) == shade(arm, 7.0) == colour.lower()
        steps = [contrast_on_white(shade(arm, strength)) for strength in np.linspace(0, 1, 9)]
        assert steps == sorted(steps)


@given(st.sampled_from(sorted(style.ARMS)), st.floats(0, 1), st.floats(0, 0.9))
def test_words_on_a_shade_can_be_read(arm: str, strength: float, veil: float) -> None:
    colour = veil + (1 - veil) * style.arm_shades(arm, np.array(strength))
    words = style.readable_on(colour)
    lights = [contrast_on_white(each) for each in (hexed(colour), words)]
    assert max(lights) / min(lights) >= 4.5


@given(st.floats(1, 25), st.floats(0.3, 4), st.floats(60, 400), st.booleans())
def test_ticks_of_a_log_axis_are_seen_and_do_not_collide(
    low: float, decades: float, points: float, y: bool
) -> None:
    figure, (axes,) = style.panels(1)
    length = 72 * axes.get_position().width * figure.get_size_inches()[0]
    ends = 10.0**low, 10.0 ** (low + decades)
    style.log_flops(axes, "sunk_flops", *ends, y=y)
    axis = axes.yaxis if y else axes.xaxis
    ticks = np.asarray(axis.get_majorticklocs(), float)
    assert len(ticks) >= 1
    assert (ticks >= ends[0] * 0.99).all()
    assert (ticks <= ends[1] * 1.01).all()
    if len(ticks) > 1 and not y:
        assert np.diff(np.log10(ticks)).min() / decades * length >= min(25, length / decades)
    words = [axis.get_major_formatter()(tick) for tick in ticks]
    assert all(re.fullmatch(r"([1-9](\.5)?×)?10[⁰¹²³⁴⁵⁶⁷⁸⁹]+", each) for each in words)
    assert len(set(words)) == len(words)


def test_the_place_of_nothing_is_called_zero() -> None:
    _, (axes,) = style.panels(1)
    style.log_flops(axes, "sunk_flops", 2e17, 4e19, 3e17)
    words = [axes.xaxis.get_major_formatter()(tick) for tick in axes.get_xticks()]
    assert words[0] == "0"
    assert words[1:] == ["10¹⁸", "3×10¹⁸", "10¹⁹", "3×10¹⁹"]


def test_a_name_that_is_too_long_is_set_smaller_and_then_cut() -> None:
    with style.drawing():
        figure, axes = style.panels(3)
        style.margins(figure, 0.5, True)
        for at, words in zip(
            axes, ("depth x2", "depth x2 (a=1, b=2, c=34)", "x" * 90), strict=True
        ):
            style.panel_title(at, words)
    short, longer, cut = (at.get_title(loc="left") for at in axes)
    assert (short, longer) == ("depth x2", "depth x2 (a=1, b=2, c=34)")
    assert cut.endswith("…")
    assert len(cut) < 60


def test_the_measure_finds_colours_that_are_not() -> None:
    assert contrast_on_white("#E69F00") < 3
    assert np.linalg.norm(lab("#009E73", "deutan") - lab("#8C6D5A", "deutan")) < 20


def test_arms_differ_in_line_as_well() -> None:
    assert len(set(style.LINES.values())) == len(style.ARMS) == len(style.LINES)


def test_more_sunk_compute_is_darker() -> None:
    colours = [style.sunk_colour(sunk, 1e12, 1e14) for sunk in np.geomspace(1e12, 1e14, 12)]
    light = [contrast_on_white(colour) for colour in colours]
    assert light == sorted(light)


@given(
    st.lists(st.floats(-50, 150), min_size=1, max_size=12).map(sorted),
    st.floats(4, 9),
    st.floats(110, 300),
)
def test_labels_keep_their_order_and_distance(
    wanted: list[float], gap: float, length: float
) -> None:
    placed = style.spread(wanted, gap, length)
    assert len(placed) == len(wanted)
    assert all(right - left >= gap - 1e-6 for left, right in pairwise(placed))
    assert placed[0] >= -1e-6
    assert placed[-1] <= length + 1e-6


@given(st.lists(st.floats(0, 100), min_size=1, max_size=8, unique=True).map(sorted))
def test_labels_with_room_stay_where_their_lines_end(wanted: list[float]) -> None:
    apart = [value + 20 * index for index, value in enumerate(wanted)]
    np.testing.assert_allclose(style.spread(apart, 10, 1000), apart)


def test_drawing_leaves_the_users_style_alone() -> None:
    before = dict(mpl.rcParams)
    with style.drawing():
        assert mpl.rcParams["svg.fonttype"] == "none"
        figure, _ = style.panels(1)
    assert dict(mpl.rcParams) == before
    assert figure.get_size_inches()[0] == style.ONE_COLUMN
