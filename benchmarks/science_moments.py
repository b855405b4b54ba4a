"""Cosines of Adam's first moments, of the runs of `benchmarks/science.py` at the late growth point.

Two things, by group of parameters:

* *before and after*: the moments of the trunk where it was grown, against those at the end of a
  phase after growth, each copy held against what it was copied from. This is what the paper
  reports to be below 0.04. The control is the trunk that was trained on without growth.
* *copies*: at the end of that phase, a copy against its original in the same network, which is our
  own reading of "orthogonal". Beside it a copy against the original of another layer or expert.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.science_tables import CHAINS, CLOSE, NOT_SHOWN, SHOWN, Places, counted, interval
from orchestrator import lineage, updates
from orchestrator.headers import header
from orchestrator.opened import Opened, opened
from orchestrator.slices import Key, Slice, slices
from orchestrator.store import Store
from orchestrator.updates import FIRST, MOMENTS, Sums, Trained

PAPER = 0.04  # what it reports cosines to be below
NOT_GROWN, VERDICT = "not grown", f"below {PAPER}"
SAYS = "first moments before and after are orthogonal"
GROUPS = ("experts", "router", "attention")
BEFORE_AFTER, COPIES, OTHERS = "before and after", "copy and original", "copy and another"
LATER = "copy and original, later"
Cosines = dict[str, dict[int, float]]  # by what was compared, and by seed


def tables(
    folder: Path, names: Sequence[str], places: Places
) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """File name, heading and table: by growth and group.

    At the end of the smallest extra budget; copies also after the largest, which is `LATER`.
    """
    store = Store(folder).check()
    found: dict[tuple[str, str], Cosines] = defaultdict(lambda: defaultdict(dict))
    for plan in map(store.plan, names):
        for cell in plan["cells"]:
            if _is_asked(cell, places):
                run = NOT_GROWN if cell["arm"] == "continue" else cell["growth"]
                for group, kind, cosine in cosines(store, plan["stages"], cell):
                    found[run, group][kind][cell["seed"]] = cosine
    rows = [_row(*key, kinds) for key, kinds in found.items()]
    yield "moments", "Cosines of Adam's first moments", pd.DataFrame(rows)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Verdicts over all parameters, of networks that were grown and of the one that was not."""
    whole = table[table["group"] == "all"]
    grown = whole["growth"] != NOT_GROWN
    rows = [
        {"finding": SAYS, "metric": what, "verdict": counted(list(whole.loc[mask, VERDICT]))}
        for what, mask in (("cosine", grown), ("cosine, not grown", ~grown))
    ]
    return pd.DataFrame(rows)


def _is_asked(cell: Mapping[str, Any], places: Places) -> bool:
    is_late = abs(cell["sunk_flops"] / places.late - 1) < 0.15
    return is_late and cell["arm"] != "scratch" and cell["growth"] not in CHAINS


def cosines(
    store: Store, stages: Mapping[str, Mapping[str, Any]], cell: Mapping[str, Any]
) -> Iterator[tuple[str, str, float]]:
    """Group, what was compared, and the cosine, of one cell."""
    trained, source = cell["trained"], cell["source"]
    words = [stages[source]["after"], source, stages[trained]["after"], trained]
    ends = opened(words, store)
    if cell["budget_index"]:
        for (group, kind), sums in copies(ends[3]).items():
            if kind == COPIES:
                yield group, LATER, sums.cosine
        return
    pooled = updates.pooled(updates.compare(Trained(*ends[:2]), Trained(*ends[2:])).moments)
    for group in ("all", *GROUPS):
        yield group, BEFORE_AFTER, pooled[group, "all"].cosine
    for (group, kind), sums in copies(ends[3]).items():
        yield group, kind, sums.cosine


def copies(end: Opened) -> dict[tuple[str, str], Sums]:
    """First moments of copies against those of their originals, and of other originals."""
    found = header(end.folder / MOMENTS)
    first = {
        name.removeprefix(FIRST): each for name, each in found.items() if name.startswith(FIRST)
    }
    every = slices(first, end.family)[0]
    made: dict[tuple[str, str], Sums] = defaultdict(Sums)
    for key, original, other in _copied(every, end):
        group = every[key].group
        if group in GROUPS:
            made[group, COPIES].add(updates.products([every[key], every[original]]))
            made[group, OTHERS].add(updates.products([every[key], every[other]]))
    return made


def _copied(every: Mapping[Key, Slice], end: Opened) -> Iterator[tuple[Key, Key, Key]]:
    """Each copy, its original, and the original that the next source has there."""
    maps = lineage.maps(end.steps, end.model.layers, end.model.experts)
    for key in every:
        for field, source in (("layer", maps.layers), ("expert", maps.experts)):
            at = getattr(key, field)
            if at is None or source.index(source[at]) == at:
                continue
            following = (source[at] + 1) % (max(source) + 1)
            yield (
                key,
                _at(key, field, source.index(source[at])),
                _at(key, field, source.index(following)),
            )


def _at(key: Key, field: str, index: int) -> Key:
    """The same matrix of another layer or expert."""
    return key._replace(layer=index) if field == "layer" else key._replace(expert=index)


def _row(run: str, group: str, kinds: Cosines) -> dict[str, object]:
    values = {kind: np.array(list(by_seed.values())) for kind, by_seed in kinds.items()}
    row: dict[str, object] = {
        "growth": run,
        "group": group,
        "seeds": len(values[BEFORE_AFTER]),
        **dict.fromkeys((BEFORE_AFTER, COPIES, LATER, OTHERS), "-"),
    }
    for kind, found in values.items():
        row[kind] = f"{found.mean():+.3f} ± {interval(found)[0]:.3f}"
    low, high = interval(values[BEFORE_AFTER])[1:]
    return {**row, VERDICT: orthogonal(low, high)}


def orthogonal(low: float, high: float) -> str:
    """Whether an interval of cosines is within what the paper reports, beyond it, or neither."""
    if low > -PAPER and high < PAPER:
        return SHOWN
    return NOT_SHOWN if low > PAPER or high < -PAPER else CLOSE
