"""The report as one HTML file that needs nothing else: no network, no other file."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from analysis import report, tables
from analysis.fits import Fits
from analysis.outcomes import Outcomes
from analysis.page import parts
from analysis.page.runs import Run, runs
from analysis.recommendation import Recommendation, without_nan

__all__ = ["page"]


def page(
    outcomes: Outcomes,
    found: Fits,
    answers: Sequence[Recommendation],
    made: Mapping[str, Sequence[Path]],
    left: Mapping[str, str] | None = None,
) -> str:
    """The page's text, the same bytes for the same records.

    `answers` has the sweep's own question first. `made` has the files of each figure, one of them
    an SVG; `left` says why others were not drawn. Links to logs and files are relative to the
    outcomes' folder, and only to what is there.
    """
    drawings = parts.drawings(made, outcomes.folder)
    survives, control = parts.evidence(found)
    script = _text("report.js")
    return _template().render(
        name=outcomes.name,
        title=outcomes.title,
        summary=report.summary(outcomes.frame, found),
        answers=[parts.answered(each) for each in answers],
        caveats=parts.caveats(outcomes, found, answers),
        # Above all else that was drawn stands what the answer is read off.
        map=next((each for each in drawings if each.name == "decision_map"), None),
        drawings=[each for each in drawings if each.name != "decision_map"],
        left=dict(left or {}),
        survives=survives,
        control=control,
        permuted=report.PERMUTED,
        paired=report.PAIRED,
        laws=parts.laws(found),
        skipped=tables.skipped(found),
        results=parts.results(outcomes),
        runs=_runs(outcomes),
        provenance=parts.provenance(outcomes),
        files=parts.files(outcomes),
        again=report.again(outcomes),
        seeded=report.SEEDED,
        data=_data(outcomes, answers),
        style=Markup(_text("report.css")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("analysis", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2")


def _text(name: str) -> str:
    return resources.files(__name__).joinpath(name).read_text(encoding="utf-8")


def _runs(outcomes: Outcomes) -> list[Run]:
    return runs(outcomes.store, outcomes.name) if outcomes.store else []


def _data(outcomes: Outcomes, answers: Sequence[Recommendation]) -> Markup:
    """What the page shows, for programs: within a script element only `<` could end it."""
    document = {
        "sweep": outcomes.name,
        "answers": [answer.to_dict() for answer in answers],
        "cells": without_nan(json.loads(outcomes.frame.to_json(orient="records"))),
    }
    said = json.dumps(document, ensure_ascii=False, separators=(",", ":"), default=float)
    return Markup(said.replace("<", "\\u003c"))
