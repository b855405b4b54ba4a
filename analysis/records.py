"""What a sweep has found out so far: one row per finished cell."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis import metrics
from analysis.metrics import Metric
from orchestrator.store import Store
from sweeps.errors import GrowpointError

# Column -> dtype, in the order in which `results` prints and exports them.
COLUMNS: Mapping[str, str] = {
    "sweep": "str",
    "cell": "str",  # the plan's label of the cell
    "variant": "str",  # "key=value, ..." of the axes that vary beside arm, growth and seed
    "arm": "str",  # grow, continue or scratch
    "growth": "str",  # "depth x2"; "-" for continue; for scratch the size it is trained at
    "seed": "int64",
    "family": "str",
    "source_active_params": "int64",
    "active_params": "int64",
    "total_params": "int64",
    "sunk_tokens": "int64",
    "extra_tokens": "int64",
    "sunk_flops": "float64",
    "extra_flops": "float64",
    "total_flops": "float64",
    "budget": "str",  # which of the two the sweep held fixed: extra or total
    "val_loss": "float64",  # nats per token
    "val_loss_se": "float64",  # over the validation documents, as are the next two
    "accuracy": "float64",  # next-token accuracy, a fraction
    "accuracy_se": "float64",
    "choice_accuracy": "float64",  # a fraction; NaN where the suite has no choice items
    "choice_accuracy_se": "float64",
    "source": "str",  # stage id of the source checkpoint, or the name a table gives it
    "lineage": "str",  # rows of one lineage share their luck: the clusters of the bootstrap
    "series": "str",  # whose checkpoint was adopted; "" for a trunk of the sweep's own
    "checkpoint": "str",  # the source's name in its series; "" without one
    "annealed": "bool",  # whether the source's learning rate had been cooled down
    "stage": "str",  # the evaluate stage
    "commit": "str",
}

ORDER = ["variant", "arm", "growth", "sunk_flops", "extra_flops", "seed", "cell"]  # of the rows

_ALWAYS = ("loss", "next_token_accuracy")  # in every record


def load(store: Store, name: str) -> pd.DataFrame:
    """One row per finished cell of sweep `name`, with the documented COLUMNS in their order.

    What else its suites measure follows them, a column and its `_se` each (`metrics.named`).
    Compute is in FLOPs, accuracies are fractions, losses nats per token. Raises GrowpointError
    if there is no such plan, no cell is finished, or a record is malformed (naming its file).
    """
    plan = store.plan(name)
    rows = [row for cell in plan["cells"] if (row := _row(store, name, cell)) is not None]
    if not rows:
        raise GrowpointError(
            f"no cell of {name} is finished yet",
            [("done", f"0 of {len(plan['cells'])}")],
            f"growpoint status {name}",
        )
    more = list(dict.fromkeys(column for row in rows for column in row if column not in COLUMNS))
    kinds = dict(COLUMNS) | dict.fromkeys(more, "float64")
    frame = pd.DataFrame(rows, columns=list(kinds)).astype(kinds)
    return frame.sort_values(ORDER, kind="stable", ignore_index=True)


def planned(store: Store, name: str) -> int:
    """How many cells the plan of sweep `name` has, finished or not."""
    return len(store.plan(name)["cells"])


def curves(store: Store, name: str, frame: pd.DataFrame) -> pd.DataFrame:
    """Training curves of one seed: the trunk, and each grown branch of the largest extra budget.

    `frame` is that of `load`. One row per logged step; columns: growth (with its variant), part
    (trunk or branch), sunk_flops, tokens and total_flops (both of the whole lineage), loss (nats
    per token). Raises GrowpointError if no grown cell is finished.
    """
    stages: dict[str, dict[str, Any]] = store.plan(name)["stages"]
    grown = frame[(frame["arm"] == "grow") & (frame["seed"] == frame["seed"].min())]
    last = (
        grown.sort_values("extra_flops", kind="stable")
        .groupby(["variant", "growth", "sunk_flops"])
        .tail(1)
    )
    parts = []
    for (variant, growth), rows in last.groupby(["variant", "growth"]):
        panel = f"{growth} ({variant})" if variant else str(growth)
        for row in rows.sort_values("sunk_flops", kind="stable").itertuples():
            way = chain(stages, str(row.stage))
            grows = next(index for index, each in enumerate(way) if stages[each]["kind"] == "grow")
            found = _logged(store, stages, way[grows:])
            parts.append(found.assign(growth=panel, part="branch", sunk_flops=row.sunk_flops))
            trunk = _logged(store, stages, way[:grows])
        parts.append(trunk.assign(growth=panel, part="trunk", sunk_flops=rows["sunk_flops"].max()))
    if not parts or all(part.empty for part in parts):
        raise GrowpointError(
            "no grown cell is finished yet", [("sweep", name)], f"growpoint status {name}"
        )
    columns = ["growth", "part", "sunk_flops", "tokens", "total_flops", "loss"]
    return pd.concat(parts, ignore_index=True)[columns]


def chain(stages: Mapping[str, Mapping[str, Any]], stage_id: str) -> list[str]:
    """The stages whose checkpoints lead to this one, the first one first."""
    found = [stage_id]
    while (before := _starts_from(stages[found[-1]])) is not None:
        found.append(before)
    return found[::-1]


def _starts_from(stage: Mapping[str, Any]) -> str | None:
    """The stage whose checkpoint this one starts from: perhaps an earlier point of its phase."""
    before = stage.get("starts_from", stage["after"])
    return None if before is None else str(before)


def _tokens_at_end(stages: Mapping[str, Mapping[str, Any]], stage_id: str | None) -> int:
    """Tokens of the lineage: those of a phase are counted from the stage it comes after."""
    if stage_id is None:
        return 0
    return int(stages[stage_id]["tokens"]) + _tokens_at_end(stages, stages[stage_id]["after"])


def _logged(store: Store, stages: Mapping[str, Mapping[str, Any]], way: list[str]) -> pd.DataFrame:
    """The logged steps of the train stages among `way`, counted from the lineage's beginning."""
    parts = [pd.DataFrame({"tokens": [], "total_flops": [], "loss": []}, dtype=float)]
    for stage_id in way:
        if stages[stage_id]["kind"] != "train":
            continue
        before = _starts_from(stages[stage_id])
        first, last = _tokens_at_end(stages, before), _tokens_at_end(stages, stage_id)
        spent = sum(
            float(stages[each]["flops" if stages[each]["kind"] == "train" else "sunk_flops"])
            for each in chain(stages, stage_id)[:-1]
            if stages[each]["kind"] == "train" or "sunk_flops" in stages[each]
        )
        # A job counts the tokens of its own phase; those of the lineage before it come on top.
        begun = _tokens_at_end(stages, stages[stage_id]["after"])
        seen = [(begun + line["tokens"], line) for line in store.metrics(stage_id) if _usable(line)]
        lines = [line for at, line in seen if at > first]
        tokens = np.array([float(at) for at, _ in seen if at > first])
        rate = float(stages[stage_id]["flops"]) / max(last - first, 1)
        loss = [float(line["loss"]) for line in lines]
        columns = {"tokens": tokens, "total_flops": spent + (tokens - first) * rate, "loss": loss}
        parts.append(pd.DataFrame(columns, dtype=float))
    return pd.concat(parts, ignore_index=True)


def _usable(line: Mapping[str, Any]) -> bool:
    numbers = (line.get("tokens"), line.get("loss"))
    return all(isinstance(each, int | float) and math.isfinite(each) for each in numbers)


def _row(store: Store, name: str, cell: Mapping[str, Any]) -> dict[str, Any] | None:
    stage = cell["stage"]
    file = Path("runs") / stage / "record.json"
    try:
        record = store.record(stage)
        if record is None:
            return None
        measured = _measured(record)
    except (ValueError, KeyError, TypeError) as error:
        raise GrowpointError(
            "a record cannot be read",
            [("file", file), ("cell", cell["label"]), ("reason", _reason(error))],
            f"rm {file}, then: growpoint launch {name}",
        ) from error
    copied = {column: cell[column] for column in COLUMNS if column in cell and column != "variant"}
    # Plans of before there were series say nothing of them.
    copied = {"series": "", "checkpoint": "", **copied}
    return (
        copied
        | measured
        | {
            "sweep": name,
            "cell": cell["label"],
            "variant": ", ".join(
                f"{key}={value}" for key, value in sorted(cell["variant"].items())
            ),
            "total_flops": cell["sunk_flops"] + cell["extra_flops"],
            "lineage": f"{cell['source']}/{cell['seed']}",
            "commit": str(record.get("commit") or ""),
        }
    )


def _measured(record: Mapping[str, Any]) -> dict[str, float]:
    found: dict[str, float] = {"choice_accuracy": math.nan, "choice_accuracy_se": math.nan}
    given = record["metrics"]
    for name in dict.fromkeys([*_ALWAYS, *given]):
        column, value, se = _column(name), given[name]["value"], given[name]["se"]
        if column is None:
            continue
        if not math.isfinite(value) or not _is_error(name, se):
            raise ValueError(f"{name} is {value} ± {se}")
        if not name.startswith("loss") and not 0 <= value <= 1:
            raise ValueError(f"{name} is {value}, which is no fraction")
        found |= {column: float(value), f"{column}_se": math.nan if se is None else float(se)}
    return found


def _is_error(name: str, se: float | None) -> bool:
    """Some metrics of tasks have no standard error; what is ours always has one."""
    return ":" in name if se is None else math.isfinite(se) and se >= 0


def _column(name: str) -> str | None:
    """Where a metric of a record goes; None for one that this version does not know."""
    metric = metrics.named(name.removeprefix("next_token_"))
    return metric.column if metric else None


def _reason(error: Exception) -> str:
    return f"it has no {error}" if isinstance(error, KeyError) else str(error)


def metric(name: str) -> Metric:
    """The metric called `name`; raises GrowpointError, listing the known ones."""
    found = metrics.named(name)
    if found is None:
        known = ", ".join([*metrics.METRICS, "loss@LENGTH", "accuracy:TASK"])
        raise GrowpointError(
            f"there is no metric {name!r}", [("known", known)], "--metric accuracy"
        )
    return found
