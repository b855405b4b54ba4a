"""From plain data to descriptions, with errors that name the key and the way out."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, Field, TypeAdapter, ValidationError, model_validator

from sweeps.errors import GrowpointError, nearest
from sweeps.notify import Notify
from sweeps.schema import Description

T = TypeVar("T")
Step = tuple[tuple[str, Any], ...]


class Axis(Description):
    """A further axis of a sweep: a dotted key and its values, or several keys zipped.

    `names` stand for long values in tables, as those of a config group's choices.
    """

    key: str | None = None
    values: tuple[Any, ...] = ()
    zip: dict[str, tuple[Any, ...]] = Field(default_factory=dict)
    names: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _one_form(self) -> "Axis":
        if (self.key is None) == (not self.zip):
            raise ValueError("an axis has either `key` and `values`, or `zip`")
        if len({len(values) for values in self.zip.values()}) > 1:
            raise ValueError("zipped keys need equally many values")
        steps = self.steps()
        if not steps:
            raise ValueError("an axis needs at least one value")
        if any(step in steps[:index] for index, step in enumerate(steps)):
            raise GrowpointError(
                f"the axis {self.key or ' with '.join(self.zip)} names a value twice",
                [("values", ", ".join(str(value) for step in steps for _, value in step))],
                "leave one of them out",
            )
        if self.names and (len(self.names) != len(steps) or not self.key):
            raise ValueError("an axis has as many `names` as `values`")
        return self

    def steps(self) -> list[Step]:
        """What is set at each step along the axis."""
        columns = self.zip or {str(self.key): self.values}
        rows = zip(*columns.values(), strict=True)
        return [tuple(zip(columns, row, strict=True)) for row in rows]

    def labels(self) -> list[tuple[tuple[str, str], ...]]:
        """What each step is called in tables: its keys with their values, or its name."""
        if self.names:
            return [((str(self.key), name),) for name in self.names]
        return [tuple((key, str(value)) for key, value in step) for step in self.steps()]


class Settings(Description):
    """Keys of a configuration that are not part of the question."""

    store: Annotated[str, Field(min_length=1)]
    axes: tuple[Axis, ...] = ()
    notify: Notify = Notify()


def validated(adapter: TypeAdapter[T], data: object, under: str = "") -> T:
    """`data` as a description. Raises GrowpointError with the dotted key of the first mistake."""
    unset = _unset(data, [under] if under else [])
    if unset:
        place = unset.removeprefix(f"{under}.") if under else unset
        wanted = "[FOLDER]" if unset.endswith("paths") else "[VALUE]"
        shown = wanted if _is_list(adapter, place.split(".")) else "VALUE"
        raise GrowpointError(f"{unset} is not set", [], f"{unset}={shown}")
    try:
        return adapter.validate_python(data)
    except ValidationError as error:
        raise _explained(error.errors()[0], data, adapter, under) from error


def _unset(data: object, path: list[str]) -> str:
    """Dotted key of the first value that a configuration file leaves to the user (`???`)."""
    if data == "???":
        return ".".join(path)
    pairs = data.items() if isinstance(data, Mapping) else ()
    if isinstance(data, list | tuple):
        pairs = enumerate(data)  # type: ignore[assignment]
    return next(filter(None, (_unset(value, [*path, str(key)]) for key, value in pairs)), "")


def _explained(
    mistake: Mapping[str, Any], data: object, adapter: TypeAdapter[Any], under: str
) -> GrowpointError:
    path = _plain(mistake["loc"], data)
    key = ".".join([*([under] if under else []), *map(str, path)])
    given, kind = mistake["input"], mistake["type"]
    if kind == "extra_forbidden":
        names = sorted(_fields(adapter, mistake["loc"]))
        close = nearest(str(path[-1]), names)
        place = key.rpartition(".")[0]
        return GrowpointError(
            f"the configuration has no key `{key}`",
            [("known", ", ".join(names))],
            f"{place + '.' if place else ''}{close}=...",
        )
    if kind == "missing":
        return GrowpointError(f"{key} is not set", [("needs", mistake["msg"])], f"{key}=VALUE")
    if kind in {"literal_error", "union_tag_invalid"}:
        context = mistake.get("ctx", {})
        expected = str(context.get("expected") or context.get("expected_tags")).replace("'", "")
        options = expected.replace(" or ", ", ").split(", ")
        tagged = key + ".kind" if kind == "union_tag_invalid" else key
        shown = context.get("tag", given)
        return GrowpointError(
            f"{tagged} cannot be {shown!r}",
            [("one of", ", ".join(options))],
            f"{tagged}={nearest(str(shown), options)}",
        )
    if kind == "value_error":
        where = f"{key}: " if key else ""
        shown = "growpoint plan SWEEP --config shows the whole configuration"
        return GrowpointError(f"{where}{_lower(mistake)}", [], shown)
    if kind == "tuple_type":
        return GrowpointError(
            f"{key} cannot be {given!r}", [("needs", "a list")], f"{key}=[{given}]"
        )
    return GrowpointError(
        f"{key} cannot be {given!r}",
        [("needs", _lower(mistake))],
        f"{key}={_example(mistake)}",
    )


def _lower(mistake: Mapping[str, Any]) -> str:
    message = str(mistake["msg"]).removeprefix("Value error, ").removeprefix("Input should be ")
    return message[:1].lower() + message[1:]


def _example(mistake: Mapping[str, Any]) -> str:
    limits = mistake.get("ctx", {})
    bound = limits.get("ge", limits.get("le"))
    if bound is not None:
        return str(bound) if isinstance(bound, int) else f"{bound:g}"
    return (
        "1"
        if mistake["type"] in {"greater_than", "int_parsing", "int_type", "int_from_float"}
        else "VALUE"
    )


def _plain(loc: Sequence[str | int], data: object) -> list[str | int]:
    """`loc` without the names of union members that pydantic puts between keys."""
    path: list[str | int] = []
    node = data
    for index, part in enumerate(loc):
        if isinstance(node, Mapping) and (part in node or index == len(loc) - 1):
            path.append(part)
            node = node.get(part)
        elif isinstance(node, Sequence) and not isinstance(node, str) and isinstance(part, int):
            path.append(part)
            node = node[part] if part < len(node) else None
        elif index == len(loc) - 1 and not path:
            path.append(part)
    return path


def _fields(adapter: TypeAdapter[Any], loc: Sequence[str | int]) -> set[str]:
    """Keys that are known where `loc` ends."""
    types = _types(adapter, loc[:-1])
    return {name for kind in types for model in _members(kind) for name in model.model_fields}


def _is_list(adapter: TypeAdapter[Any], loc: Sequence[str | int]) -> bool:
    """Whether a list belongs at `loc`, in some member of the unions on the way."""
    types = [
        get_args(kind)[0] if get_origin(kind) is Annotated else kind
        for kind in _types(adapter, loc)
    ]
    return any(get_origin(kind) is tuple for kind in types)


def _types(adapter: TypeAdapter[Any], loc: Sequence[str | int]) -> list[Any]:
    """Annotations of what lies at `loc`."""
    types: list[Any] = [adapter._type]
    for part in loc:
        inner = [member for kind in types for member in _members(kind)]
        named = [model for model in inner if _kind(model) == part]
        types = (
            named
            or [
                model.model_fields[part].annotation
                for model in inner
                if isinstance(part, str) and part in model.model_fields
            ]
            or types
        )
    return types


def _members(annotation: Any) -> list[type[BaseModel]]:
    """The descriptions within an annotation: unions, tuples and optionals looked through."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _members(argument)]


def _kind(model: type[BaseModel]) -> object:
    field = model.model_fields.get("kind")
    return field.default if field else None
