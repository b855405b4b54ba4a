"""Words KEY=VALUE of a command line, by Hydra's grammar: choices of groups, values, and axes."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from sweeps.errors import GrowpointError
from sweeps.search import known_choice
from sweeps.validation import Axis

GROUPS = ("sweep", "model", "growth", "recipe", "data", "suite", "cluster", "tracker")


def values(overrides: Sequence[str]) -> list[tuple[str, Any]]:
    """Words of the form KEY=VALUE as keys and values. Raises GrowpointError for other forms."""
    return [(override.get_key_element(), options(override)[0]) for override in parse(overrides)]


def parse(overrides: Sequence[str]) -> list[Override]:
    """Words of the command line, each of which must set a key. Raises GrowpointError for others."""
    parser, parsed = OverridesParser.create(), []
    for text in overrides:
        if "=" not in text or text.startswith(("+", "~")):
            key = text.lstrip("+~").split("=")[0]
            raise GrowpointError(
                f"`{text}` does not set a key",
                [("form", "KEY=VALUE")],
                f"{key}=VALUE, without + or ~",
            )
        try:
            parsed.append(parser.parse_override(text))
        except HydraException as error:
            raise GrowpointError(
                f"`{text}` cannot be read",
                [("says", (str(error).splitlines() or ["it ends too early"])[0])],
                "quote values with special characters: 'KEY=\"VALUE\"'",
            ) from error
    return parsed


def sort(
    parsed: Sequence[Override], search: Sequence[Path]
) -> tuple[list[dict[str, str]], list[tuple[str, Any]], list[Axis]]:
    """Overrides as group choices (one dict for each combination), single values, and axes."""
    groups: dict[str, list[str]] = {}
    values: list[tuple[str, Any]] = []
    axes: list[Axis] = []
    for override in parsed:
        key = override.get_key_element()
        chosen = options(override)
        named = all(isinstance(option, str) for option in chosen)
        if key in GROUPS and named:
            groups[key] = [known_choice(key, str(option), search) for option in chosen]
        elif key == "cluster.partition" and len(chosen) > 1:  # one place, and no axis
            values.append((key, ",".join(map(str, chosen))))
        elif len(chosen) > 1:
            axes.append(Axis(key=key, values=tuple(chosen)))
        else:
            values.append((key, chosen[0]))
    combos = [
        dict(zip(groups, picked, strict=True)) for picked in itertools.product(*groups.values())
    ]
    return combos, values, axes


def options(override: Override) -> list[Any]:
    """The values that a word gives its key: more than one make an axis."""
    if not override.is_sweep_override():
        return [override.value()]
    try:
        return list(override.sweep_iterator())
    except HydraException as error:
        raise GrowpointError(
            f"`{override.input_line}` cannot be enumerated", [("says", error)]
        ) from error
