"""What a page says, section by section; how it looks is for the template."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from analysis import answer, report, tables
from analysis.fit import Fit
from analysis.fits import Fits
from analysis.metrics import METRICS, Metric
from analysis.outcomes import Outcomes
from analysis.page import runs, sortable
from analysis.page.drawings import Drawing, inline
from analysis.page.runs import Link, way_to
from analysis.page.sortable import Grid, Shown
from analysis.recommendation import Recommendation

# Of the frame, for the columns that `tables.results` rounds.
_EXACT = {
    "sunk": "sunk_flops",
    "extra": "extra_flops",
    "seed": "seed",
    "loss": "val_loss",
    "accuracy %": "accuracy",
    "choice %": "choice_accuracy",
}


@dataclass(frozen=True)
class Answered:
    """An answer: its first line, what it was asked, and what it rests on."""

    question: str
    headline: str
    verdict: str
    options: Grid | None
    notes: tuple[tuple[str, str], ...]
    caveats: tuple[str, ...]


@dataclass(frozen=True)
class FittedLaw:
    """One law: its formula, itself in words, what is wrong with it, and its parameters."""

    name: str
    formula: str
    says: str
    diagnosis: str
    method: str
    parameters: Grid


@dataclass(frozen=True)
class LawGroup:
    """The laws that were fitted to the same cells."""

    title: str
    cells: int
    mixed: str
    compared: Grid
    laws: tuple[FittedLaw, ...]


def answered(found: Recommendation) -> Answered:
    """What a page shows of a recommendation."""
    question = report.asked(found)
    options = None
    if found.options:
        rows = answer.option_rows(found.options, found.metric)
        caption = f"What could be done, best first: {question}"
        options = sortable.grid(caption, (answer.columns(found.metric), rows))
    notes = tuple((key, words) for key, words in found.notes() if key != "caveats" and words)
    return Answered(question, found.headline(), found.verdict, options, notes, found.caveats)


def caveats(outcomes: Outcomes, found: Fits, answers: Sequence[Recommendation]) -> list[str]:
    """Every reason for doubt, each once, and with the metric if it is not about all of them."""
    said: dict[str, dict[str, None]] = {}
    for each in answers:
        for caveat in each.caveats:
            said.setdefault(caveat, {})[each.metric.name] = None
    metrics = {each.metric.name for each in answers}
    lines = [
        caveat if set(names) == metrics else f"{', '.join(names)}: {caveat}"
        for caveat, names in said.items()
    ]
    dropped = outcomes.table.dropped if outcomes.table else ()
    lines += [f"line {line} of the table is left out: {reason}" for line, reason in dropped]
    return list(dict.fromkeys(lines + tables.left_out(found)))


def drawings(made: Mapping[str, Sequence[Path]], folder: Path) -> list[Drawing]:
    """The figures that were drawn, in their order."""
    found = []
    for name, paths in made.items():
        svg = next(path for path in paths if path.suffix == ".svg")
        words = report.about(svg.stem)
        files = tuple((path.suffix[1:].upper(), way_to(path, folder)) for path in paths)
        found.append(Drawing(name, words, inline(svg, words), files))
    return found


def laws(found: Fits) -> list[LawGroup]:
    """Every group of fits, those of the first metric first."""
    groups = []
    for metric in METRICS.values():
        for which, fits in found.groups(metric.name).items():
            title = f"{metric.name}: {tables.name(which)}"
            compared = sortable.grid(f"Laws of {title}, best first", tables.laws(fits, metric))
            order = [row[0].text for row in compared.rows]
            ranked = sorted(fits, key=lambda fit: order.index(fit.law.name))
            each = tuple(_law(fit, metric, title) for fit in ranked)
            groups.append(LawGroup(title, fits[0].cells, tables.mix(fits), compared, each))
    return groups


def _law(fit: Fit, metric: Metric, title: str) -> FittedLaw:
    return FittedLaw(
        name=fit.law.name,
        formula=f"{metric.symbol} = {fit.law.formula}",
        says=fit.says,
        diagnosis=fit.diagnosis(),
        method=fit.method,
        parameters=sortable.grid(
            f"Parameters of {fit.law.name}, {title}", tables.parameters(fit)
        ),
    )


def evidence(found: Fits) -> tuple[Grid, Grid]:
    """Whether sunk compute survives growth, and growing against the un-grown control."""
    survives = "How the result goes with sunk compute"
    control = "Growing less the un-grown control"
    return (
        sortable.grid(survives, tables.correlations(found.correlations)),
        sortable.grid(control, tables.pairs(found.pairs)),
    )


def results(outcomes: Outcomes) -> Grid:
    """Every finished cell; its stage leads to its lineage."""
    header, rows = tables.results(outcomes.frame)
    exact = {header.index(name): outcomes.frame[column] for name, column in _EXACT.items()}
    found = sortable.grid(
        "Every finished cell",
        (header, rows),
        {at: values.astype(float).to_list() for at, values in exact.items()},
    )
    if outcomes.store:
        linked = tuple((*row[:-1], _anchored(row[-1])) for row in found.rows)
        found = Grid(found.caption, found.header, linked)
    return sortable.without_empty(found)


def _anchored(stage: Shown) -> Shown:
    return Shown(stage.text, link=f"#run-{stage.text}")


def provenance(outcomes: Outcomes) -> list[tuple[str, str]]:
    """Where all of it comes from. No time of the report's own: a rerun is the same report."""
    commits = sorted({commit for commit in outcomes.frame["commit"] if commit})
    said = [("growpoint", _version()), ("commit of the runs", ", ".join(commits))]
    if outcomes.store:
        said.append(("plan", outcomes.name))
        days = runs.finished(outcomes.store, outcomes.name)
        said.append(("runs finished", " to ".join(dict.fromkeys(days or ()))))
    if outcomes.table:
        said.append(("table", outcomes.table.table.path.name))
        said.append(("read as", "; ".join(outcomes.table.notes)))
    said.append(("cells", f"{len(outcomes.frame)} of {outcomes.planned}"))
    return [(key, value) for key, value in said if value]


def _version() -> str:
    try:
        return version("growpoint")
    except PackageNotFoundError:
        return "not installed"


def files(outcomes: Outcomes) -> list[Link]:
    """What lies beside the report, as far as it is there."""
    names = ["report.md", "fits.json", "plan.json", "config.yaml"]
    logs = sorted(path.name for path in outcomes.folder.glob("worker-*.log"))
    there = [outcomes.folder / name for name in [*names, *logs]]
    return [
        (path.name, way_to(path, outcomes.folder))
        for path in there
        if path.is_file() and path.stat().st_size
    ]

