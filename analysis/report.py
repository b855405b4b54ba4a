"""One Markdown report of a sweep: the answer, the evidence, the laws, and how to make it again."""

import math
import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from analysis import tables
from analysis.fits import Fits
from analysis.metrics import METRICS
from analysis.recommendation import Recommendation
from analysis.tables import Table
from orchestrator import text

_ABOUT = {
    "sunk_vs_accuracy": "Final accuracy after growth against the compute sunk before it.",
    "accuracy_vs_extra": "What extra compute buys from each growth point, and without growing.",
    "loss_curves": "Training loss of the first seed: the trunk, and its branches grown furthest.",
}


def markdown(
    title: str,
    frame: pd.DataFrame,
    found: Fits,
    answers: Sequence[Recommendation],
    pictures: Sequence[Path],
    folder: Path,
) -> str:
    """The report's text. `pictures` are linked relative to `folder`, where it will lie."""
    parts = [f"# {found.sweep}", title, _summary(frame, found)]
    parts += ["## Answers", *(_answer(each) for each in answers)]
    parts += ["## Does sunk compute survive growth?", _correlations(found)]
    parts += ["## Growing against the un-grown control", _pairs(found)]
    parts += ["## Figures", *(_picture(each, folder) for each in pictures)]
    parts += ["## Laws", *_laws(found)]
    parts += ["## Results", table(*tables.results(frame)), "## Make it again", _again(frame, found)]
    return "\n\n".join(part for part in parts if part) + "\n"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, numbers to the right."""
    lines = [header, [":--", *("--:" for _ in header[1:])], *rows]
    return "\n".join(f"| {' | '.join(_escaped(cell) for cell in line)} |" for line in lines)


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")


def _summary(frame: pd.DataFrame, found: Fits) -> str:
    sunk, extra = frame["sunk_flops"], frame["extra_flops"]
    source = ", ".join(sorted(set(frame["family"])))
    sizes = sorted(set(frame["source_active_params"][frame["arm"] != "scratch"]))
    lines = [
        f"{found.done} of {found.planned} cells are done,",
        "1 seed." if found.seeds == 1 else f"{found.seeds} seeds.",
        f"Sources: {source}, {', '.join(text.params(size) for size in sizes)} active parameters,",
        f"with up to {text.flops(float(sunk.max()))} FLOPs sunk;",
        f"extra budgets of {text.flops(float(extra.min()))}",
        f"to {text.flops(float(extra.max()))} FLOPs.",
    ]
    noise = [
        f"{name} {METRICS[name].text(each.value)} ({each.source})"
        for name, each in found.noise.items()
        if math.isfinite(each.value)
    ]
    known = "; ".join(noise) or "not known, for there is one run of each kind"
    return f"{' '.join(lines)}\n\nNoise between seeds: {known}."


def _answer(answer: Recommendation) -> str:
    asked = {
        "sunk": answer.question.sunk,
        "extra": answer.question.extra,
        "total": answer.question.total,
    }
    given = ", ".join(f"{name} {value:.1e}" for name, value in asked.items() if value is not None)
    return f"### {given} FLOPs, by {answer.metric.name}\n\n```text\n{answer.text()}\n```"


def _correlations(found: Fits) -> str:
    if not found.correlations:
        return "No extra budget has four growth points yet."
    exact = "p values are two-sided, by permutation: exact up to 8 cells, 20,000 shuffles above."
    return f"{table(*tables.correlations(found.correlations))}\n\n{exact}"


def _pairs(found: Fits) -> str:
    if not found.pairs:
        return "No grown run has an un-grown twin yet: that growing pays is not shown."
    said = "Same source checkpoint, seed and extra FLOPs; mean difference ± its standard error."
    return f"{table(*tables.pairs(found.pairs))}\n\n{said}"


def _picture(path: Path, folder: Path) -> str:
    link = Path(os.path.relpath(path, folder)).as_posix()
    stem = link.removesuffix(".png")
    also = ", ".join(f"[{kind}]({stem}.{kind})" for kind in ("pdf", "svg", "csv"))
    words = next((said for name, said in _ABOUT.items() if path.stem.startswith(name)), path.stem)
    return f"![{words}]({link})\n\n{words} Also as {also}."


def _laws(found: Fits) -> list[str]:
    parts = []
    for metric in METRICS.values():
        for which, group in found.groups(metric.name).items():
            parts.append(f"### {metric.name}: {tables.name(which)}")
            parts.append(table(*tables.laws(group, metric)))
            parts += [
                _law(
                    tables.parameters(each),
                    each.law.name,
                    each.law.formula,
                    metric.symbol,
                    each.method,
                )
                for each in group
            ]
    reasons = tables.skipped(found)
    return parts + (
        ["### Not fitted", "\n".join(f"- {line}" for line in reasons)] if reasons else []
    )


def _law(values: Table, name: str, formula: str, symbol: str, method: str) -> str:
    return f"`{name}`: {symbol} = {formula}; intervals by {method}.\n\n{table(*values)}"


def _again(frame: pd.DataFrame, found: Fits) -> str:
    commits = ", ".join(f"`{commit}`" for commit in sorted(set(frame["commit"])) if commit)
    commands = [f"growpoint {verb} {found.sweep}" for verb in ("launch", "report")]
    code = "\n".join(commands)
    ran = f"Runs were made at commit {commits}." if commits else ""
    same = "Every draw is seeded: the same records make the same report."
    return f"```console\n{code}\n```\n\n{ran} {same}".strip()
