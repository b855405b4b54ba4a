"""Norms of weights layer by layer: the profile that depth growth should not break.

Source: arXiv 2510.08008 (layer-wise weight norms). A norm here is Frobenius norm / sqrt(numbers).
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator.headers import Entry
from orchestrator.slices import GROUPS, PIECE, Slice, read, slices
from sweeps.family import Family

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHOWN = tuple(name for name in GROUPS if name not in {"vectors", "embedding", "head"})
# One matrix: its group, layer, name in the family's file, half (gate or up), and expert.
Matrix = tuple[str, int | None, str, int, int | None]


@dataclass
class Profile:
    """Mean norms by layer and group, those outside of layers, and what has no norm.

    A layer without such tensors has no entry. `not_finite` names slices with NaN or infinities.
    """

    layers: dict[int, dict[str, float]] = field(default_factory=dict)
    outside: dict[str, float] = field(default_factory=dict)
    not_finite: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


def profile(
    found: Mapping[str, Entry], family: Family, block: tuple[int, int] = (128, 128)
) -> Profile:
    """The norms of a checkpoint, read in pieces: memory stays at some 30 MB, whatever its size.

    A layer's norm is the mean over its matrices. Stacked and fused tensors count as the matrices
    that they hold, so both layouts have one profile. `block` is the block of eight-bit scales.
    Raises GrowpointError for types without numbers of their own.
    """
    known, unknown = slices(found, family)
    made = Profile(unknown=unknown)
    sums: dict[Matrix, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for key, each in known.items():
        expert = key.expert if each.group in ("experts", "vectors") else None
        for half, (squares, count) in enumerate(_squares(each, family, found, block)):
            total = sums[each.group, key.layer, key.template, half, expert]
            total[0] += squares
            total[1] += count
            if not math.isfinite(squares) and each.name not in made.not_finite:
                made.not_finite.append(each.name)
    _average(sums, made)
    return made


def _average(sums: Mapping[Matrix, list[float]], made: Profile) -> None:
    norms: dict[tuple[int | None, str], list[float]] = defaultdict(list)
    for (group, layer, *_), (squares, count) in sums.items():
        if count:
            norms[layer, group].append(math.sqrt(squares / count))
    for (at, group), each in norms.items():
        mean = sum(each) / len(each)
        if at is None:
            made.outside[group] = mean
        elif group in SHOWN:
            made.layers.setdefault(at, {})[group] = mean
    made.layers = dict(sorted(made.layers.items()))


def _squares(
    each: Slice, family: Family, found: Mapping[str, Entry], block: tuple[int, int]
) -> list[tuple[float, int]]:
    """(sum of squares, numbers) of each matrix in a slice: two where gate and up are fused."""
    import numpy as np

    axis, size = _fused(each)
    sums = np.zeros(size)
    for first, values in _pieces(each, found, block):
        # Squares add up in double precision, but no piece is held in it.
        product = "ij,ij->j" if axis == 1 else "ij,ij->i"
        along = np.einsum(product, values, values, dtype=np.float64)
        if axis is None:
            sums += along.sum()
        else:
            at = 0 if axis == 1 else first
            sums[at : at + len(along)] += along
    if axis is None:
        return [(float(sums[0]), each.numbers)]
    alternating = each.place.template in family.alternating
    halves = (sums[::2], sums[1::2]) if alternating else (sums[: size // 2], sums[size // 2 :])
    return [(float(half.sum()), each.numbers // 2) for half in halves]


def _fused(each: Slice) -> tuple[int | None, int]:
    """The dimension in which a matrix holds both gate and up, and its size; or none and 1."""
    if len(each.shape) == 2 and each.group == "experts":
        for axis, words in enumerate(each.expressions):
            if words.replace(" ", "").startswith("2*"):
                return axis, each.shape[axis]
    return None, 1


def _pieces(
    each: Slice, found: Mapping[str, Entry], block: tuple[int, int]
) -> Iterator[tuple[int, "NDArray[Any]"]]:
    """Whole rows of numbers, and the first row of each piece."""
    columns = each.shape[-1] if len(each.shape) > 1 else max(1, each.numbers)
    rows = each.numbers // max(1, columns)
    # A vector longer than a piece has no rows to be cut at.
    step = max(1, PIECE // max(1, columns))
    scales = _scales(each, found)
    for first in range(0, rows, step):
        last = min(rows, first + step)
        values = read(each, first * columns, last * columns).reshape(-1, columns)
        if scales is not None:
            from orchestrator.eightbit import factors

            values = values * factors(scales, first, last, (rows, columns), block)
        yield first, values


def _scales(each: Slice, found: Mapping[str, Entry]) -> "NDArray[Any] | None":
    """The scales of an eight-bit slice, if it is one."""
    from orchestrator import eightbit

    if each.dtype not in eightbit.TABLES:
        return None
    name = each.name.removesuffix(f"[{each.row}]")
    entry = next((found[n] for s in ("_scale_inv", "_scale") if (n := name + s) in found), None)
    if entry is None:
        return None
    whole = Slice(name, each.place, entry.file, entry.dtype, entry.start, entry.end, entry.shape)
    values = read(whole, 0, whole.numbers).reshape(entry.shape)
    per_expert = each.row is not None and values.ndim == len(each.shape) + 1
    return values[each.row] if per_expert else values
