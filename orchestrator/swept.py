"""Which sweep is over a series of checkpoints, and what checkpoints that series has."""

from argparse import Namespace
from pathlib import Path
from typing import Any

from orchestrator import series, text
from orchestrator.store import Store, read_json
from sweeps import adoption, search
from sweeps.errors import GrowpointError


def listed(arguments: Namespace) -> list[dict[str, Any]]:
    """The checkpoints of the series that a command names; none if it names none.

    Also puts the series' own name in the place of its file, and names the sweep, if the command
    does not and one alone was launched over the series: raises GrowpointError otherwise. A series
    that cannot be listed has the checkpoints of its sweep only, which is said.
    """
    if arguments.series is None:
        return []
    if arguments.config_dir:
        search.use_folder(Path(arguments.config_dir))
    asked_for = arguments.series
    if asked_for.endswith((".yaml", ".yml")):
        arguments.series = Path(asked_for).stem  # as records call it
    if arguments.sweep is None and arguments.results is None:
        arguments.sweep = _sweep(_store(arguments), arguments.series)
    try:
        asked = series.asked(asked_for, ())
        found = adoption.listed(asked)
        here = [source for source in found if adoption.is_here(source)]
        model = adoption.model_of((here or found)[0])
        rows: list[dict[str, Any]] = series.to_json(asked, found, model)["checkpoints"]
        return rows
    except GrowpointError as error:
        text.talk.print(f"only checkpoints of the sweep are answers: {error.problem}", markup=False)
        return []


def _store(arguments: Namespace) -> Store:
    """The store that a command's words name; the current folder without any."""
    named = [word.removeprefix("store=") for word in arguments.overrides if word[:6] == "store="]
    return Store(Path(named[-1] if named else ".")).check()


def _sweep(store: Store, name: str) -> str:
    """The only sweep of a store that was launched over a series."""
    over = {path.parent.name: _series(path) for path in store.root.glob("plans/*/plan.json")}
    found = sorted(sweep for sweep, names in over.items() if name in names)
    if len(found) == 1:
        return found[0]
    if found:
        raise GrowpointError(
            f"several sweeps are over the series `{name}`",
            [("sweeps", ", ".join(found))],
            f"growpoint recommend {found[0]} --series {name}",
        )
    known = sorted(set().union(*over.values()) - {""})
    raise GrowpointError(
        f"no sweep over the series `{name}` was launched in this store",
        [("store", store.root.resolve()), ("series", ", ".join(known) or "none")],
        f"growpoint launch SWEEP series={name}",
    )


def _series(path: Path) -> set[str]:
    """The series that the cells of a plan are over; plans of before there were any have none."""
    plan = read_json(path) or {}
    return {str(cell.get("series", "")) for cell in plan.get("cells", ())}
