"""Descriptions: frozen, strict, and with one canonical text that names them."""

import hashlib
import json
import math
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

# Generators take 64 bits, of which one is the sign.
LARGEST_SEED = 2**63 - 1
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]


class Description(BaseModel):
    """Something that is asked for. Unknown keys, NaN and later changes are refused.

    Texts name the `kind`, unless `says_kind` is off: for what had none until an alternative came.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True
    )
    says_kind: ClassVar[bool] = True


def asked(value: object) -> Any:
    """`value` as plain JSON data, without the fields that are at their default.

    Fields at their default stay out (except `kind`, which says what the rest means), so a new
    field with a default renames nothing. Raises TypeError for what has no stable text: callables,
    sets, NaN, arrays.
    """
    # Most values are leaves, of which a plan of 10,000 cells has a million.
    if type(value) in _LEAVES:
        return value
    if isinstance(value, BaseModel):
        pairs = ((name, getattr(value, name), default) for name, default in _defaults(type(value)))
        return {name: asked(item) for name, item, default in pairs if item != default}
    if isinstance(value, Mapping):
        return {_key(key): asked(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [asked(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise TypeError(f"{value} has no stable text")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{type(value).__name__} has no stable text")


_LEAVES = frozenset({str, int, bool, type(None)})
# Equal to no value of a field.
_ALWAYS = object()


@cache
def _defaults(kind: type[BaseModel]) -> tuple[tuple[str, object], ...]:
    """Fields with their defaults; looked up once, as large plans ask for a million of them."""
    return tuple(
        (name, _ALWAYS)
        if (name == "kind" and getattr(kind, "says_kind", True)) or field.is_required()
        else (name, field.get_default(call_default_factory=True))
        for name, field in kind.model_fields.items()
    )


def _key(key: object) -> str:
    if not isinstance(key, str):
        raise TypeError(f"the key {key!r} is not text")
    return key


def canonical(data: object) -> str:
    """The exact text that is hashed and written: sorted keys, two-space indent, final newline."""
    return _indented(data, "\n") + "\n"


_SCALAR = json.JSONEncoder(ensure_ascii=False, allow_nan=False)
_quoted = json.encoder.encode_basestring


def _indented(data: object, line: str) -> str:
    """What json.dumps with sorted keys and an indent of 2 writes, which takes it thrice as long."""
    inner = line + "  "
    if isinstance(data, dict) and data:
        words = [f"{_quoted(key)}: {_indented(data[key], inner)}" for key in sorted(data)]
        return f"{{{inner}{(',' + inner).join(words)}{line}}}"
    if isinstance(data, list | tuple) and data:
        return f"[{inner}{(',' + inner).join(_indented(item, inner) for item in data)}{line}]"
    if type(data) is str:
        return _quoted(data)
    return int.__repr__(data) if type(data) is int else _SCALAR.encode(data)


def digest(text: str) -> str:
    """First ten hex digits of the SHA-256 of `text`, as `sha256sum` prints them."""
    return hashlib.sha256(text.encode()).hexdigest()[:10]
