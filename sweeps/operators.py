"""Growth operators: depth and width, each an index map from grown layers or experts to sources."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator

from sweeps.errors import GrowpointError
from sweeps.schema import Description, digest

Factor = Annotated[int, Field(ge=1, le=64)]
Edge = Annotated[int, Field(ge=0)]
NOISE = 0.01


class Depth(Description):
    """Repeat layers: `interpose` repeats each in place, `stack` repeats the whole block.

    `layers` says it all instead, the source layer of each grown one: (0, 1, 1, 2, 3, 3).
    `copies: zeroed` sets what a copy adds to the residual stream to zero, so that growth keeps the
    function; the paper's way is plain copies. Source: arXiv 2510.08008 (depth growth).
    """

    kind: Literal["depth"] = "depth"
    order: Literal["interpose", "stack"] = "interpose"
    factor: Factor = 2
    keep_first: Edge = 0
    keep_last: Edge = 0
    copies: Literal["same", "zeroed"] = "same"
    layers: tuple[Annotated[int, Field(ge=0)], ...] = ()

    @model_validator(mode="after")
    def _says_it_once(self) -> "Depth":
        idle = ("order", "factor", "keep_first", "keep_last")
        said = [key for key in idle if getattr(self, key) != type(self).model_fields[key].default]
        if self.layers and said:
            raise GrowpointError(
                f"`layers` names every grown layer, so {_listed(said)} cannot say more",
                [("layers", _ranges(self.layers))],
                f"leave out {_listed(said)}",
            )
        return self

    def source_of(self, layers: int) -> tuple[int, ...]:
        """The source layer of each grown layer: (0, 0, 1, 1, ...) or (0, 1, ..., 0, 1, ...)."""
        if self.layers:
            _require_onto(self.layers, layers)
            return self.layers
        middle = range(self.keep_first, layers - self.keep_last)
        if len(middle) == 0:
            raise GrowpointError(
                "depth growth keeps every layer single",
                [("layers", layers), ("kept", f"{self.keep_first} first, {self.keep_last} last")],
                "lower keep_first or keep_last",
            )
        inner = (
            [layer for layer in middle for _ in range(self.factor)]
            if self.order == "interpose"
            else list(middle) * self.factor
        )
        first, last = range(self.keep_first), range(layers - self.keep_last, layers)
        return (*first, *inner, *last)

    @property
    def label(self) -> str:
        """Name in tables: `depth x2`, `depth x1.5 (0 1 1 2 3 3)`."""
        zeroed = " zeroed" if self.copies == "zeroed" else ""
        if self.layers:
            drawn = _ranges(self.layers)
            if len(drawn) > 40:
                drawn = f"{len(self.layers)} layers, {digest(drawn)[:6]}"
            ratio = len(self.layers) / (max(self.layers) + 1)
            return f"depth x{ratio:.3g} ({drawn}){zeroed}"
        edges = (
            f" keep {self.keep_first}+{self.keep_last}" if self.keep_first + self.keep_last else ""
        )
        stack = " stack" if self.order == "stack" else ""
        return f"depth x{self.factor}{stack}{edges}{zeroed}"


def _listed(keys: Sequence[str]) -> str:
    return " and ".join(f"`{key}`" for key in keys)


def _ranges(layers: Sequence[int]) -> str:
    """`0-3 2-5` for 0 1 2 3 2 3 4 5; `0 0 1 1` as it is."""
    runs: list[list[int]] = []
    for layer in layers:
        if not runs or layer != runs[-1][-1] + 1:
            runs.append([])
        runs[-1].append(layer)
    return " ".join(
        f"{run[0]}-{run[-1]}" if len(run) > 3 else " ".join(map(str, run)) for run in runs
    )


def _require_onto(source: Sequence[int], layers: int) -> None:
    missing = [layer for layer in range(layers) if layer not in source]
    beyond = [layer for layer in source if layer >= layers]
    if not missing and not beyond:
        return
    evidence: list[tuple[str, object]] = [("source", f"layers 0-{layers - 1}")]
    evidence += [("missing", _ranges(missing))] if missing else []
    evidence += [("too high", _ranges(beyond))] if beyond else []
    whole = sorted([*missing, *(layer for layer in source if layer < layers)])
    raise GrowpointError(
        "depth growth keeps every source layer at least once, and `layers` does not",
        evidence,
        f"layers: [{', '.join(map(str, whole))}]",
    )


class Width(Description):
    """More experts, their router rows and top-k; noise (std of the tensor × `noise`) on the copies.

    Ablations of the paper: `top_k: kept` adds experts but uses no more of them, `experts: kept`
    uses more of those there are, `experts: random` and `router: random` draw instead of copying.
    Source: arXiv 2510.08008 (width growth). `redrawn` is the share of a copied expert's hidden
    dimension that is drawn anew, from normals like the values replaced: arXiv 2502.19261.
    """

    kind: Literal["width"] = "width"
    factor: Factor = 2
    top_k: Literal["scaled", "kept"] = "scaled"
    noise: Annotated[float, Field(ge=0, le=10)] = NOISE
    experts: Literal["copied", "random", "kept"] = "copied"
    router: Literal["copied", "random"] = "copied"
    redrawn: Annotated[float, Field(ge=0, le=1)] = 0.0
    order: Literal["appended", "interleaved"] = "appended"

    @model_validator(mode="after")
    def _agrees(self) -> "Width":
        kept, random = self.experts == "kept", self.experts == "random"
        idle = {
            "`top_k: kept`": kept and self.top_k == "kept",
            "`router: random`": kept and self.router == "random",
            "`order: interleaved`": kept and self.order == "interleaved",
            "`redrawn`": self.redrawn > 0 and (kept or random),
            "`noise`": self.noise != NOISE and not self._copied,
        }
        said = [what for what, is_idle in idle.items() if is_idle]
        if said:
            drawn = " with `router: random`" if random and not self._copied else ""
            raise GrowpointError(
                f"`experts: {self.experts}`{drawn} leaves {' and '.join(said)} nothing to act on",
                [("growth", self.label)],
                f"leave out {' and '.join(said)}, or take `experts: copied`",
            )
        return self

    @property
    def _copied(self) -> tuple[str, ...]:
        if self.experts == "kept":
            return ()
        sections = {"expert": self.experts, "router": self.router}
        return tuple(section for section, how in sections.items() if how == "copied")

    @property
    def noisy(self) -> tuple[str, ...]:
        """Which copies get noise: those of `expert` and `router` that are copied, if it is any."""
        return self._copied if self.noise else ()

    @property
    def sums_copies(self) -> bool:
        """Whether a token uses all copies of an expert, so that gates add up over them."""
        return self.top_k == "scaled" and self.experts != "kept"

    def source_of(self, experts: int) -> tuple[int, ...]:
        """The source expert of each grown one: (0, 1, ..., 0, 1, ...), or (0, 0, 1, 1, ...)."""
        if self.experts == "kept":
            return tuple(range(experts))
        if self.order == "interleaved":
            return tuple(expert for expert in range(experts) for _ in range(self.factor))
        return tuple(range(experts)) * self.factor

    @property
    def label(self) -> str:
        """Name in tables: `width x2`."""
        words = [
            "top-k kept" * (self.top_k == "kept"),
            f"experts {self.experts}" * (self.experts != "copied"),
            "router random" * (self.router == "random"),
            f"redrawn {number(self.redrawn)}" * (self.redrawn > 0),
            self.order * (self.order == "interleaved"),
            f"noise {number(self.noise)}" * (self.noise != NOISE),
        ]
        return " ".join([f"width x{self.factor}", *filter(None, words)])


def number(value: float) -> str:
    """A number as short as it can be told from every other."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


Operator = Annotated[Depth | Width, Field(discriminator="kind")]


class Chain(Description):
    """Several operators, one after the other."""

    kind: Literal["chain"] = "chain"
    operators: Annotated[tuple[Operator, ...], Field(min_length=1)]

    @property
    def label(self) -> str:
        """Name in tables: `depth x2 + width x2`."""
        return " + ".join(operator.label for operator in self.operators)


GrowthChoice = Annotated[Depth | Width | Chain, Field(discriminator="kind")]


def operators_of(choice: Depth | Width | Chain) -> tuple[Depth | Width, ...]:
    """The operators of one entry of a sweep's growth axis, in order."""
    return choice.operators if isinstance(choice, Chain) else (choice,)


def label(operators: Sequence[Depth | Width]) -> str:
    """Name in tables: `depth x2 + width x2`."""
    return " + ".join(operator.label for operator in operators)
