"""Descriptions: frozen, strict, and with one canonical text that names them."""

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict


class Description(BaseModel):
    """Something that is asked for. Unknown keys, NaN and later changes are refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True
    )


def asked(value: object) -> Any:
    """`value` as plain JSON data, without the fields that are at their default.

    Fields at their default stay out (except `kind`, which says what the rest means), so a new
    field with a default renames nothing. Raises TypeError for what has no stable text: callables,
    sets, NaN, arrays.
    """
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        pairs = ((name, getattr(value, name), field) for name, field in fields.items())
        return {
            name: asked(item)
            for name, item, field in pairs
            if name == "kind"
            or field.is_required()
            or item != field.get_default(call_default_factory=True)
        }
    if isinstance(value, Mapping):
        return {_key(key): asked(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [asked(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise TypeError(f"{value} has no stable text")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{type(value).__name__} has no stable text")


def _key(key: object) -> str:
    if not isinstance(key, str):
        raise TypeError(f"the key {key!r} is not text")
    return key


def canonical(data: object) -> str:
    """The exact text that is hashed and written: sorted keys, two-space indent, final newline."""
    return json.dumps(data, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def digest(text: str) -> str:
    """First ten hex digits of the SHA-256 of `text`, as `sha256sum` prints them."""
    return hashlib.sha256(text.encode()).hexdigest()[:10]
