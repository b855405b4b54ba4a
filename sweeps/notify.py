"""Whom to tell of a sweep's end and of what fails: circumstance, never hashed nor recorded."""

from collections.abc import Sequence
from typing import Literal

from sweeps.schema import Description

Event = Literal["done", "failed", "stuck"]


def unsaid(words: Sequence[str]) -> list[str]:
    """Words of a command line without those that say whom to tell: that is noted, and a secret."""
    return [word for word in words if not word.startswith(("notify.", "notify="))]


class Notify(Description):
    """Where messages go, and of what; the address is a secret."""

    url: str | None = None
    mail: str | None = None
    events: tuple[Event, ...] = ("done", "failed", "stuck")
