"""The solver's coordinates: positive nonlinear parameters as logarithms, the others as they are."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from analysis.laws import Design, Law
from analysis.metrics import FloatArray

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Space:
    """Which parameters are what, and between which bounds: arrays (parameters,)."""

    linear: Mask  # L is linear in them
    logarithmic: Mask
    low: FloatArray
    high: FloatArray


@cache
def _space(law: object) -> Space:
    assert isinstance(law, type)
    assert issubclass(law, Law)
    logarithmic = np.array([kind == "log" for kind in law.meta("kind")])
    ends = np.array(law.meta("low"), float), np.array(law.meta("high"), float)
    low, high = (
        np.where(logarithmic, np.log(np.where(logarithmic, end, 1.0)), end) for end in ends
    )
    return Space(np.array(law.linear()), logarithmic, low, high)


def space(law: type[Law]) -> Space:
    """The coordinates of a law, worked out once."""
    # mypy takes the class for one of its instances, whose hash it cannot see
    return _space(law)


def bounds(law: type[Law]) -> tuple[FloatArray, FloatArray]:
    """Lower and upper bounds in the solver's coordinates."""
    return space(law).low, space(law).high


def outer(law: type[Law], inner: FloatArray) -> FloatArray:
    """Parameters from the solver's coordinates, along the last axis."""
    values = inner.copy()
    logarithmic = space(law).logarithmic
    values[..., logarithmic] = np.exp(inner[..., logarithmic])
    return values


def _columns(law: type[Law], inner: FloatArray) -> Law:
    return law(*outer(law, inner).T[..., None])


def predict(law: type[Law], inner: FloatArray, design: Design) -> FloatArray:
    """L of every restart at every cell: (restarts, cells)."""
    return _columns(law, inner).predict(design)


def jacobian(law: type[Law], inner: FloatArray, design: Design) -> FloatArray:
    """Derivatives of L by the solver's coordinates: (restarts, parameters, cells)."""
    values = _columns(law, inner)
    found = np.empty((len(inner), inner.shape[1], len(design)))
    logarithmic = space(law).logarithmic
    for index, (name, slope) in enumerate(zip(law.names(), values.slopes(design), strict=True)):
        if logarithmic[index]:
            np.multiply(slope, getattr(values, name), out=found[:, index])
        else:
            found[:, index] = slope
    return found


def linear_columns(law: type[Law], inner: FloatArray, design: Design) -> FloatArray:
    """Derivatives by the linear parameters alone: (restarts, linear parameters, cells)."""
    slopes = _columns(law, inner).slopes(design)
    which = np.flatnonzero(space(law).linear)
    found = np.empty((len(inner), len(which), len(design)))
    for column, index in enumerate(which):
        found[:, column] = slopes[index]
    return found
