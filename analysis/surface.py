"""What to do at every point of sunk and extra compute: what a map of decisions draws."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from analysis.forecast import Arm
from analysis.metrics import FloatArray, Metric
from analysis.sample import Which

_AT_ONCE = 1000  # points whose draws are held in memory together


@dataclass(frozen=True)
class Decisions:
    """The best option at each point, and how clearly it is: arrays (points,) but for `expected`.

    `winner` and `second` are indices into `options`, -1 where nothing can be expected of any (or
    of a second). `margin` is in the metric's own unit and positive, NaN without a second.
    """

    options: tuple[Which, ...]
    winner: npt.NDArray[np.int64]
    second: npt.NDArray[np.int64]
    margin: FloatArray
    chance: FloatArray  # that the winner is the best, over draws; NaN without one
    beyond: FloatArray  # times outside the measured range of the winner; 1 within it
    expected: FloatArray  # (options, points), of the metric itself; NaN where nothing is expected

    def names(self) -> list[str]:
        """The arm that wins at each point; "" where nothing can be expected."""
        return ["" if index < 0 else self.options[index].arm for index in self.winner]


def place(arm: Arm, sunk: FloatArray, extra: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Where an arm stands if `sunk` is spent and `extra` is left: starting over loses the sunk."""
    return (np.zeros(len(sunk)), extra) if arm.which.arm == "scratch" else (sunk, extra)


def decide(arms: Sequence[Arm], metric: Metric, sunk: FloatArray, extra: FloatArray) -> Decisions:
    """The best of `arms` where a checkpoint has `sunk` FLOPs in it and `extra` are left: (points,).

    Draws share their resampling between arms, so a chance is that of a comparison and not of two
    independent guesses. Points far outside the measured range are answered too: `beyond` says so.
    """
    known = [arm for arm in arms if arm.forecast is not None]
    sunk, extra = (np.atleast_1d(np.asarray(each, float)) for each in (sunk, extra))
    parts = [_decided(known, sunk[rows], extra[rows]) for rows in _rows(len(sunk))]
    falling, chance, beyond = (np.concatenate(each, axis=-1) for each in zip(*parts, strict=True))
    order = np.argsort(falling, axis=0, kind="stable")
    ranked = np.take_along_axis(falling, order, axis=0)
    winner = _index(order, ranked, 0)
    second = _index(order, ranked, 1)
    picked = np.maximum(winner, 0), np.arange(len(sunk))
    none = winner < 0
    return Decisions(
        options=tuple(arm.which for arm in known),
        winner=winner,
        second=second,
        margin=np.where(second < 0, np.nan, _row(ranked, 1) - _row(ranked, 0)),
        chance=np.where(none, np.nan, chance[picked]),
        beyond=np.where(none, np.nan, beyond[picked]),
        expected=metric.rising(np.where(np.isinf(falling), np.nan, falling)),
    )


def _rows(count: int) -> Iterator[slice]:
    yield from (slice(at, at + _AT_ONCE) for at in range(0, count, _AT_ONCE))


def _decided(
    known: Sequence[Arm], sunk: FloatArray, extra: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """L (infinite where unknown), chance of being the best and times beyond: (options, points)."""
    falling, draws = levels(known, sunk, extra)
    best = np.argmin(draws, axis=0)
    chance = np.stack([np.mean(best == index, axis=0) for index in range(len(known))])
    beyond = np.stack([arm.beyonds(*place(arm, sunk, extra)) for arm in known])
    return falling, chance, beyond


def levels(
    known: Sequence[Arm], sunk: FloatArray, extra: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """L of every arm: by point (arms, points) and by draw (arms, draws, points).

    Infinite where nothing can be expected of an arm.
    """
    points, draws = [], []
    for arm in known:
        assert arm.forecast is not None
        at = place(arm, sunk, extra)
        there, design = arm.reaches(*at), arm.design(*at)
        points.append(np.where(there, arm.forecast.point(design), np.inf))
        draws.append(np.where(there, arm.forecast.draws(design), np.inf))
    return np.stack(points), np.stack(draws)


def _index(order: npt.NDArray[np.int64], ranked: FloatArray, rank: int) -> npt.NDArray[np.int64]:
    if rank >= len(order):
        return np.full(order.shape[1], -1)
    return np.where(np.isfinite(ranked[rank]), order[rank], -1)


def _row(ranked: FloatArray, rank: int) -> FloatArray:
    if rank >= len(ranked):
        return np.full(ranked.shape[1], np.nan)
    return np.where(np.isfinite(ranked[rank]), ranked[rank], np.nan)
