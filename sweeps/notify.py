"""Whom to tell of a sweep's end and of what fails: circumstance, never hashed nor recorded."""

from typing import Literal

from sweeps.schema import Description

Event = Literal["done", "failed", "stuck"]


class Notify(Description):
    """Where messages go, and of what; the address is a secret."""

    url: str | None = None
    mail: str | None = None
    events: tuple[Event, ...] = ("done", "failed", "stuck")
