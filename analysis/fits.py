"""All fits of a sweep as one document: made, saved and read back."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis import evidence
from analysis.evidence import Correlation, Noise, Pair
from analysis.fit import GROWTH_POINTS, Fit
from analysis.groups import Skipped, chosen, fit_groups, laws_for, scope, selections
from analysis.laws import LAWS, law_named
from analysis.metrics import METRICS, Metric
from analysis.resample import REPLICATES, Resampling
from analysis.sample import Which
from orchestrator.store import write_atomic
from sweeps.errors import GrowpointError

__all__ = [
    "Fits",
    "Skipped",
    "fit_sweep",
    "laws_for",
    "load",
    "save",
    "scope",
    "selections",
    "to_dict",
    "too_few",
]

VERSION = 2


@dataclass(frozen=True)
class Fits:
    """What was learned from one sweep."""

    sweep: str
    planned: int
    done: int
    seeds: int
    noise: dict[str, Noise]
    fits: tuple[Fit, ...]
    skipped: tuple[Skipped, ...]
    correlations: tuple[Correlation, ...]
    pairs: tuple[Pair, ...]
    left_out: dict[str, int]  # by metric: rows without a value or without their compute

    def groups(self, metric: str) -> dict[Which, list[Fit]]:
        """Fits to the same cells, in the order in which they were made."""
        found: dict[Which, list[Fit]] = {}
        for each in self.fits:
            if each.metric == metric:
                found.setdefault(each.which, []).append(each)
        return found


def fit_sweep(
    frame: pd.DataFrame,
    planned: int,
    metrics: tuple[Metric, ...] = tuple(METRICS.values()),
    laws: Sequence[str] | None = None,
    replicates: int = REPLICATES,
) -> Fits:
    """Fit every law, or those named, to every set of cells of a frame of records.

    A metric is fitted to the cells that have it, with `replicates` draws of the cluster bootstrap.
    Raises GrowpointError if no law of growing can be fitted at all, or a name is unknown.
    """
    names = chosen(laws)
    whole = frame[np.isfinite(frame[["sunk_flops", "extra_flops"]].to_numpy(float)).all(axis=1)]
    measured = {metric.name: metric.measured(whole) for metric in metrics}
    resampling = Resampling.of(whole, replicates)
    made, skipped = fit_groups(whole, metrics, resampling, names)
    sweep = str(frame["sweep"].iloc[0])
    if not any(each.which.arm == "grow" for each in made):
        raise too_few(frame, planned, sweep)
    return Fits(
        sweep=sweep,
        planned=planned,
        done=len(frame),
        seeds=int(frame["seed"].nunique()),
        noise={each.name: evidence.seed_noise(measured[each.name], each) for each in metrics},
        fits=tuple(made),
        skipped=tuple(skipped),
        correlations=tuple(
            row for each in metrics for row in evidence.correlations(measured[each.name], each)
        ),
        pairs=tuple(row for each in metrics for row in evidence.pairs(measured[each.name], each)),
        left_out={name: len(frame) - len(rows) for name, rows in measured.items()},
    )


def too_few(frame: pd.DataFrame, planned: int, sweep: str) -> GrowpointError:
    """The error of a sweep that no law of growing can be fitted to."""
    grown = frame[(frame["arm"] == "grow") & (frame["extra_flops"] > 0)]
    points = grown["sunk_flops"].nunique()
    least = min(len(law.names()) for law in LAWS.values() if law.scope in ("surface", "extra"))
    return GrowpointError(
        "too few finished cells to fit a law",
        [
            ("done", f"{len(frame)} of {planned}, from {points} growth points"),
            ("needs", f"{GROWTH_POINTS} growth points; {least + 3} cells of one growth"),
        ],
        f"growpoint status {sweep}",
    )


def to_dict(found: Fits) -> dict[str, Any]:
    """A plain structure without NaN: what is not known is null."""
    plain = {
        each.name: getattr(found, each.name)
        for each in fields(found)
        if each.name in ("sweep", "planned", "done", "seeds")
    }
    lists = {
        "left_out": found.left_out,
        "noise": {name: asdict(noise) for name, noise in found.noise.items()},
        "fits": [_fit_dict(each) for each in found.fits],
        "skipped": [asdict(each) for each in found.skipped],
        "correlations": [asdict(each) for each in found.correlations],
        "pairs": [asdict(each) for each in found.pairs],
    }
    known = _known({"version": VERSION} | plain | lists)
    assert isinstance(known, dict)
    return known


def _fit_dict(found: Fit) -> dict[str, Any]:
    names = [each.name for each in fields(found) if each.name not in ("law", "sample", "intervals")]
    plain = {name: getattr(found, name) for name in names}
    intervals = zip(found.law.names(), found.intervals, strict=True)
    return plain | {
        "which": asdict(found.which),
        "law": found.law.name,
        "formula": found.law.formula,
        "parameters": asdict(found.law),
        "intervals": {name: list(interval) for name, interval in intervals},
        "diagnosis": found.diagnosis(),
    }


def _known(value: object) -> object:
    if isinstance(value, dict):
        return {key: _known(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_known(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def save(path: Path, found: Fits) -> None:
    """Write fits.json atomically; the same fits make the same bytes."""
    text = json.dumps(to_dict(found), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomic(path, text.encode())


def load(path: Path) -> Fits:
    """Read fits.json. The draws behind the intervals are not in it: refit for those.

    Raises GrowpointError if the file is missing or was written by another version.
    """
    try:
        document = json.loads(path.read_text())
        if document["version"] != VERSION:
            raise ValueError(f"version {document['version']} is not {VERSION}")
        return _built(document)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise GrowpointError(
            "fits cannot be read",
            [("file", path), ("reason", error)],
            f"growpoint fit {path.parent.name}",
        ) from error


def _built(document: dict[str, Any]) -> Fits:
    return Fits(
        **{name: document[name] for name in ("sweep", "planned", "done", "seeds")},
        noise={name: Noise(**_numbers(row)) for name, row in document["noise"].items()},
        fits=tuple(_fit(row) for row in document["fits"]),
        skipped=tuple(
            Skipped(**row | {"which": Which(**row["which"])}) for row in document["skipped"]
        ),
        correlations=tuple(Correlation(**_numbers(row)) for row in document["correlations"]),
        pairs=tuple(Pair(**_numbers(row)) for row in document["pairs"]),
        left_out=document["left_out"],
    )


def _numbers(row: dict[str, Any]) -> dict[str, Any]:
    return {key: math.nan if value is None else value for key, value in row.items()}


def _fit(row: dict[str, Any]) -> Fit:
    known = {each.name for each in fields(Fit)}
    plain = {key: value for key, value in row.items() if key in known}
    return Fit(
        **_numbers(plain)
        | {
            "law": law_named(row["law"])(**row["parameters"]),
            "which": Which(**row["which"]),
            "at_bounds": tuple(row["at_bounds"]),
            "held_out_errors": tuple(row["held_out_errors"]),
            "extrapolated": tuple((name, error) for name, error in row["extrapolated"]),
            "worth_interval": tuple(math.nan if e is None else e for e in row["worth_interval"]),
            "intervals": tuple((low, high) for low, high in row["intervals"].values()),
        }
    )
