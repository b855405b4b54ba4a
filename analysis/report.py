"""One Markdown report of a sweep: the answer, the evidence, the laws, and how to make it again."""

import html
import math
import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from analysis import tables
from analysis.fits import Fits
from analysis.metrics import METRICS
from analysis.outcomes import Outcomes
from analysis.recommendation import Recommendation
from analysis.tables import Table
from orchestrator import text

# What a figure shows, whatever it finds; figures of another metric end in its name.
ABOUT = {
    "decision_map": "Grow, continue or start over, by sunk and by extra compute.",
    "fixed_total": "When to grow if the total is fixed.",
    "sunk_vs_accuracy": "The result after growth against the compute sunk before it.",
    "accuracy_vs_extra": "What extra compute buys from each growth point, and without growing.",
    "loss_curves": "Training loss of the first seed: the trunk, and its branches grown furthest.",
    "compare_laws": "How much worse than the best law each law predicts what it has not seen.",
    "residuals": "What the law leaves unexplained, against what it should not depend on.",
}
PERMUTED = "p values are two-sided, by permutation: exact up to 8 cells, 20,000 shuffles above."
PAIRED = "Same source checkpoint, seed and extra FLOPs; mean difference ± its standard error."
SEEDED = "Every draw is seeded: the same records make the same report."


def markdown(
    outcomes: Outcomes,
    found: Fits,
    answers: Sequence[Recommendation],
    pictures: Sequence[Path],
) -> str:
    """The report's text. `pictures` are linked relative to the outcomes' folder."""
    frame, folder = outcomes.frame, outcomes.folder
    title = _plain(outcomes.title)
    parts = [f"# {_plain(found.sweep)}", title, *(_plain(each) for each in summary(frame, found))]
    parts += ["## Answers", *(_answer(each) for each in answers)]
    parts += ["## Does sunk compute survive growth?", _correlations(found)]
    parts += ["## Growing against the un-grown control", _pairs(found)]
    parts += ["## Figures", *(_picture(each, folder) for each in pictures)]
    parts += ["## Laws", *_laws(found)]
    parts += ["## Results", table(*tables.results(frame)), "## Make it again", _again(outcomes)]
    return "\n\n".join(part for part in parts if part) + "\n"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, numbers to the right."""
    lines = [header, [":--", *("--:" for _ in header[1:])], *rows]
    return "\n".join(f"| {' | '.join(_escaped(cell) for cell in line)} |" for line in lines)


def _escaped(cell: str) -> str:
    return _plain(cell).replace("|", "\\|")


def _plain(words: str) -> str:
    """Names in a line of Markdown: what looks like HTML is not."""
    return html.escape(" ".join(words.split()), quote=False)


def summary(frame: pd.DataFrame, found: Fits) -> list[str]:
    """What was run, and how much it scatters."""
    sunk, extra = frame["sunk_flops"], frame["extra_flops"]
    known = frame[frame["arm"] != "scratch"].dropna(subset=["source_active_params"])
    families = ", ".join(sorted(set(frame["family"]) - {""})) or "not said"
    sizes = ", ".join(text.params(size) for size in sorted(set(known["source_active_params"])))
    lines = [
        f"{found.done} of {found.planned} cells are done,",
        "1 seed." if found.seeds == 1 else f"{found.seeds} seeds.",
        f"Sources: {families}, {sizes or 'an unknown number of'} active parameters,",
        f"with up to {text.flops(float(sunk.max()))} FLOPs sunk;",
        f"extra budgets of {text.flops(float(extra.min()))}",
        f"to {text.flops(float(extra.max()))} FLOPs.",
    ]
    noise = [
        f"{name} {METRICS[name].text(each.value)} ({each.source})"
        for name, each in found.noise.items()
        if math.isfinite(each.value)
    ]
    said = "; ".join(noise) or "not known, for there is one run of each kind"
    return [" ".join(lines), f"Noise between seeds: {said}."]


def asked(answer: Recommendation) -> str:
    """The question of an answer, in words."""
    given = {
        "sunk": answer.question.sunk,
        "extra": answer.question.extra,
        "total": answer.question.total,
    }
    said = ", ".join(
        f"{name} {text.flops(value) if value else 0}"
        for name, value in given.items()
        if value is not None
    )
    return f"{said} FLOPs, by {answer.metric.name}"


def _answer(answer: Recommendation) -> str:
    # Names cannot close the fence: they are single lines that begin with other words.
    return f"### {asked(answer)}\n\n```text\n{answer.text()}\n```"


def _correlations(found: Fits) -> str:
    if not found.correlations:
        return "No extra budget has four growth points yet."
    return f"{table(*tables.correlations(found.correlations))}\n\n{PERMUTED}"


def _pairs(found: Fits) -> str:
    if not found.pairs:
        return "No grown run has an un-grown twin yet: that growing pays is not shown."
    return f"{table(*tables.pairs(found.pairs))}\n\n{PAIRED}"


def _picture(path: Path, folder: Path) -> str:
    link = Path(os.path.relpath(path, folder)).as_posix()
    stem = link.removesuffix(".png")
    also = ", ".join(f"[{kind}]({stem}.{kind})" for kind in ("pdf", "svg", "csv"))
    words = about(path.stem)
    return f"![{words}]({link})\n\n{words} Also as {also}."


def about(name: str) -> str:
    """What the figure of a file of this name shows."""
    return next((said for start, said in ABOUT.items() if name.startswith(start)), name)


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


def _again(outcomes: Outcomes) -> str:
    commits = sorted({commit for commit in outcomes.frame["commit"] if commit})
    said = ", ".join(f"`{commit}`" for commit in commits)
    commands = again(outcomes)
    code = "\n".join(commands)
    ran = f"Runs were made at commit {said}." if commits else ""
    return f"```console\n{code}\n```\n\n{ran} {SEEDED}".strip()


def again(outcomes: Outcomes) -> list[str]:
    """The commands that make the report, and what it reports on, again."""
    verbs = ("launch", "report") if outcomes.store else ("report",)
    return [f"growpoint {verb} {outcomes.words}" for verb in verbs]
