"""All fits of a sweep as one document: made, saved and read back."""

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import evidence
from analysis.evidence import Correlation, Noise, Pair
from analysis.fit import GROWTH_POINTS, Fit, fit, shortage
from analysis.laws import LAWS, Law
from analysis.metrics import METRICS, Metric
from analysis.resample import Resampling
from analysis.sample import Which
from orchestrator.store import write_atomic
from sweeps.errors import GrowpointError

VERSION = 1


@dataclass(frozen=True)
class Skipped:
    """A law that was not fitted, and why."""

    metric: str
    which: Which
    law: str
    reason: str


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

    def groups(self, metric: str) -> dict[Which, list[Fit]]:
        """Fits to the same cells, in the order in which they were made."""
        found: dict[Which, list[Fit]] = {}
        for each in self.fits:
            if each.metric == metric:
                found.setdefault(each.which, []).append(each)
        return found


def selections(frame: pd.DataFrame, columns: bool = True) -> Iterator[tuple[Which, pd.DataFrame]]:
    """Every set of cells that laws are fitted to.

    Growing: each variant and growth alone, once over all extra budgets and, with `columns`, once
    at each budget. Cells evaluated right after growing (no extra compute) are another regime and
    are left out. Continuing and starting over: each alone, as functions of all compute.
    """
    for (variant, arm, growth), rows in frame.groupby(["variant", "arm", "growth"]):
        which = Which(str(variant), str(arm), str(growth))
        if arm != "grow":
            yield which, rows
            continue
        trained = rows[rows["extra_flops"] > 0]
        yield which, trained
        if columns:
            for level, at in evidence.by_level(trained, "extra_flops"):
                if at["sunk_flops"].nunique() >= GROWTH_POINTS:
                    yield Which(which.variant, which.arm, which.growth, level), at


def scope(which: Which) -> str:
    """The scope of the laws that describe these cells."""
    if which.arm != "grow":
        return "total"
    return "surface" if which.extra_flops is None else "extra"


def laws_for(which: Which) -> list[type[Law]]:
    """The laws that may be fitted to these cells."""
    return [law for law in LAWS.values() if law.scope == scope(which)]


def fit_sweep(
    frame: pd.DataFrame, planned: int, metrics: tuple[Metric, ...] = tuple(METRICS.values())
) -> Fits:
    """Fit every law to every set of cells of a frame of records.

    Raises GrowpointError if no law of growing can be fitted at all.
    """
    resampling = Resampling.of(frame)
    made: list[Fit] = []
    skipped: list[Skipped] = []
    for metric in metrics:
        for which, rows in selections(frame):
            for law in laws_for(which):
                if reason := shortage(rows, law):
                    skipped.append(Skipped(metric.name, which, law.name, reason))
                else:
                    made.append(fit(rows, law, metric, which, resampling))
    sweep = str(frame["sweep"].iloc[0])
    if not any(each.which.arm == "grow" for each in made):
        raise too_few(frame, planned, sweep)
    return Fits(
        sweep=sweep,
        planned=planned,
        done=len(frame),
        seeds=int(frame["seed"].nunique()),
        noise={metric.name: evidence.seed_noise(frame, metric) for metric in metrics},
        fits=tuple(made),
        skipped=tuple(skipped),
        correlations=tuple(
            row for metric in metrics for row in evidence.correlations(frame, metric)
        ),
        pairs=tuple(row for metric in metrics for row in evidence.pairs(frame, metric)),
    )


def too_few(frame: pd.DataFrame, planned: int, sweep: str) -> GrowpointError:
    """The error of a sweep that no law of growing can be fitted to."""
    grown = frame[(frame["arm"] == "grow") & (frame["extra_flops"] > 0)]
    points = grown["sunk_flops"].nunique()
    least = min(len(law.names()) for law in LAWS.values() if law.scope != "total")
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
    )


def _numbers(row: dict[str, Any]) -> dict[str, Any]:
    return {key: math.nan if value is None else value for key, value in row.items()}


def _fit(row: dict[str, Any]) -> Fit:
    known = {each.name for each in fields(Fit)}
    plain = {key: value for key, value in row.items() if key in known}
    return Fit(
        **_numbers(plain)
        | {
            "law": LAWS[row["law"]](**row["parameters"]),
            "which": Which(**row["which"]),
            "at_bounds": tuple(row["at_bounds"]),
            "held_out_errors": tuple(row["held_out_errors"]),
            "intervals": tuple((low, high) for low, high in row["intervals"].values()),
        }
    )
