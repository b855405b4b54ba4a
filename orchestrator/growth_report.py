"""What a growth made, as printed and as data."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator import text
from sweeps.model import Model, parameters


@dataclass(frozen=True)
class GrowthReport:
    """What a growth made: sizes before and after, source maps, bytes of tensors, wall seconds."""

    source: Model
    target: Model
    layers: tuple[int, ...]
    experts: tuple[int, ...]
    tensors: int
    bytes: int
    seconds: float
    dropped: tuple[str, ...] = ()
    target_folder: Path = Path()
    unknown: tuple[str, ...] = ()
    not_finite: tuple[str, ...] = ()
    unchecked: str = ""
    files_kept: int = 0

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON data."""
        return {
            "folder": str(self.target_folder),
            "source": self.source.model_dump(mode="json"),
            "target": self.target.model_dump(mode="json"),
            "layers": list(self.layers),
            "experts": list(self.experts),
            "tensors": self.tensors,
            "bytes": self.bytes,
            "seconds": round(self.seconds, 3),
            "dropped": list(self.dropped),
            "unknown": list(self.unknown),
            "not_finite": list(self.not_finite),
            "unchecked": self.unchecked,
            "files_kept": self.files_kept,
        }

    def text(self) -> str:
        """As printed: sizes, maps, where it lies."""
        before, after = self.source, self.target
        lines = [
            ("grown", self.target_folder),
            ("layers", _change(before.layers, after.layers, self.layers)),
            ("experts", _change(before.experts, after.experts, self.experts)),
            ("top-k", _change(before.top_k, after.top_k)),
            ("params", " -> ".join(text.params(parameters(m).total) for m in (before, after))),
            ("written", f"{gigabytes(self.bytes)} in {text.seconds(self.seconds)}"),
        ]
        if self.dropped:
            lines.append(("left out", f"{len(self.dropped)} tensors that predict further ahead"))
        if self.files_kept:
            lines.append(("kept", f"{self.files_kept} files of an earlier attempt"))
        return "\n".join(f"  {key:<9} {value}" for key, value in lines)

    def warnings(self) -> list[str]:
        """What somebody should know before training on it."""
        said = []
        if self.not_finite:
            said.append(f"values that are not finite in {_some(self.not_finite)}")
        if self.unknown:
            said.append(f"copied without being known to the family: {_some(self.unknown)}")
        if self.unchecked:
            said.append(self.unchecked)
        return [f"warning: {each}" for each in said]


def _some(names: Sequence[str]) -> str:
    more = f", ... ({len(names)} tensors)" if len(names) > 8 else ""
    return ", ".join(names[:8]) + more


def gigabytes(size: int) -> str:
    """`5.1 GB`."""
    return f"{size / 1e9:.3g} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB"


def _change(before: int, after: int, source: Sequence[int] = ()) -> str:
    if before == after:
        return str(before)
    drawn = " ".join(map(str, source[:16])) + (" ..." if len(source) > 16 else "")
    return f"{before} -> {after}" + (f"   from {drawn}" if source else "")
