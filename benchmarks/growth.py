"""Growth against the disk: `cp` of the same bytes is the limit, in memory is the usual way.

    python benchmarks/growth.py --gigabytes 6 --rounds 3 --folder /scratch

Every row is a process of its own, whose wall time and peak memory are taken, with all bytes safe on
disk at its end. Rows take turns, so that a busy machine is unfair to none of them. The source is a
synthetic checkpoint of the Qwen3-MoE layout in bf16, in the page cache.
"""

import argparse
import csv
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from orchestrator.headers import Described, written  # noqa: E402
from orchestrator.numbers import encode, normals  # noqa: E402
from sweeps.model import Model, Tensor, resized, tensors, to_config  # noqa: E402

SHARD_BYTES = 1_000_000_000
MODEL = Model(
    family="qwen3_moe",
    layers=1,
    hidden=1024,
    expert_hidden=768,
    heads=16,
    kv_heads=4,
    head_dim=64,
    experts=64,
    top_k=8,
    vocabulary=32_000,
)
GROWTHS = {
    "depth": "growth=depth",
    "width, noise 0": "growth=[{kind: width, noise: 0}]",
    "width, noise 0.01": "growth=[{kind: width, noise: 0.01}]",
}
LIMIT = "cp + fsync"
IN_MEMORY = "transformers in memory"
# The limit copies the very bytes that depth growth has written.
COPY = 'cp -r "$0" "$1" && sync "$1"/*'
TRANSFORMERS = """
import copy, os, sys, torch
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.bfloat16)
layers = model.model.layers
grown = [copy.deepcopy(layer) for layer in layers for _ in range(2)]
model.model.layers = torch.nn.ModuleList(grown)
model.config.num_hidden_layers = len(grown)
for index, layer in enumerate(grown):
    layer.self_attn.layer_idx = index
model.save_pretrained(sys.argv[2])
for name in os.listdir(sys.argv[2]):
    file = os.open(os.path.join(sys.argv[2], name), os.O_RDONLY)
    os.fsync(file)
"""


@dataclass
class Row:
    """One way to write the grown bytes, and what it took each time."""

    name: str
    command: list[str]
    seconds: list[float] = field(default_factory=list)
    processor_seconds: list[float] = field(default_factory=list)
    peak_bytes: list[int] = field(default_factory=list)


def model_of(output_gigabytes: float) -> Model:
    """Layers enough for a source of half that size."""
    one, two = (
        sum(2 * _numbers(tensor.shape) for tensor in tensors(resized(MODEL, layers=layers)))
        for layers in (1, 2)
    )
    return resized(
        MODEL, layers=max(1, round((output_gigabytes * 1e9 / 2 - one) / (two - one)) + 1)
    )


def _numbers(shape: Sequence[int]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def build(folder: Path, model: Model) -> None:
    """Write a checkpoint of normal weights, a tensor at a time."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({**to_config(model), "dtype": "bfloat16"}))
    parts = list(_parts(tensors(model)))
    index: dict[str, str] = {}
    for number, part in enumerate(parts, 1):
        name = f"model-{number:05d}-of-{len(parts):05d}.safetensors"
        described = [Described(t.name, "BF16", t.shape, 2 * _numbers(t.shape)) for t in part]
        with (folder / name).open("wb") as file:
            file.write(written(described))
            for tensor in described:
                drawn = normals(0, tensor.name, tensor.size_bytes // 2)
                file.write(encode(drawn * drawn.dtype.type(0.02), "BF16"))
        index |= {tensor.name: name for tensor in part}
    said = {"metadata": {}, "weight_map": index}
    (folder / "model.safetensors.index.json").write_text(json.dumps(said))


def _parts(found: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    part: list[Tensor] = []
    size = 0
    for tensor in found:
        part.append(tensor)
        size += 2 * _numbers(tensor.shape)
        if size > SHARD_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part


def rows(source: Path, reference: Path, target: Path, in_memory: bool, check: bool) -> list[Row]:
    """The ways to be compared; each writes `target`."""
    made = [Row(LIMIT, ["sh", "-c", COPY, str(reference), str(target)])]
    made += [
        Row(name, _grow(source, target, growth, "--no-check")) for name, growth in GROWTHS.items()
    ]
    if check:
        made.append(Row("depth, model class checked", _grow(source, target, GROWTHS["depth"])))
    if in_memory:
        command = [sys.executable, "-c", TRANSFORMERS, str(source), str(target)]
        made.append(Row(IN_MEMORY, command))
    return made


def _grow(source: Path, target: Path, *words: str) -> list[str]:
    grow = [sys.executable, "-m", "orchestrator.cli", "grow", str(source), "--to", str(target)]
    return [*grow, *words]


def measure(row: Row) -> None:
    """Run it once."""
    os.sync()
    begun = time.monotonic()
    child = os.fork()
    if child == 0:
        os.chdir(ROOT)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.execvp(row.command[0], row.command)
    _, status, usage = os.wait4(child, 0)
    row.seconds.append(time.monotonic() - begun)
    row.processor_seconds.append(usage.ru_utime + usage.ru_stime)
    row.peak_bytes.append(usage.ru_maxrss * 1024)
    if status:
        raise SystemExit(f"{row.name} failed: {' '.join(row.command)}")


def compare(folder: Path, gigabytes: float, rounds: int, in_memory: bool, check: bool) -> list[Row]:
    """All rows in turns."""
    source, reference, target = folder / "source", folder / "reference", folder / "target"
    build(source, model_of(gigabytes))
    measure(Row("reference", _grow(source, reference, GROWTHS["depth"], "--no-check")))
    made = rows(source, reference, target, in_memory, check)
    for number in range(rounds):
        # Each round begins with another row: none always follows the same one.
        for row in made[number % len(made) :] + made[: number % len(made)]:
            measure(row)
            shutil.rmtree(target)
            print(f"round {number + 1}   {row.name:<28}{row.seconds[-1]:7.1f} s", file=sys.stderr)
    return made


def table(made: Sequence[Row]) -> list[dict[str, str]]:
    """Medians, and how many times the limit's speed that is."""
    limit = statistics.median(made[0].seconds)
    return [
        {
            "way": row.name,
            "seconds": f"{statistics.median(row.seconds):.1f}",
            "best": f"{min(row.seconds):.1f}",
            "speed / cp": f"{limit / statistics.median(row.seconds):.2f}",
            "best / best cp": f"{min(made[0].seconds) / min(row.seconds):.2f}",
            "core s": f"{statistics.median(row.processor_seconds):.1f}",
            "peak MB": f"{max(row.peak_bytes) / 2**20:.0f}",
        }
        for row in made
    ]


def markdown(lines: Sequence[dict[str, str]]) -> str:
    """A table as Markdown."""
    head = list(lines[0])
    rule = ["---"] + ["---:"] * (len(head) - 1)
    return "\n".join(
        f"| {' | '.join(cells)} |" for cells in (head, rule, *(line.values() for line in lines))
    )


def doubling(folder: Path, gigabytes: float) -> list[dict[str, str]]:
    """Peak memory for an output of half the size, and of the whole."""
    peaks: dict[str, list[str]] = {name: [] for name in GROWTHS}
    for size in (gigabytes / 2, gigabytes):
        source = folder / f"source-{size}"
        build(source, model_of(size))
        for name, growth in GROWTHS.items():
            row = Row(name, _grow(source, folder / "target", growth, "--no-check"))
            measure(row)
            shutil.rmtree(folder / "target")
            peaks[name].append(f"{row.peak_bytes[0] / 2**20:.0f}")
        shutil.rmtree(source)
    return [
        {"way": name, f"MB at {gigabytes / 2:g} GB": half, f"MB at {gigabytes:g} GB": whole}
        for name, (half, whole) in peaks.items()
    ]


def main() -> None:
    """Print the tables; write them where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=6.0, help="size of the output (6)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="on the disk to be measured")
    parser.add_argument(
        "--without-transformers", action="store_true", help="leave out the slow row"
    )
    parser.add_argument("--doubling", action="store_true", help="only the memory of two sizes")
    parser.add_argument("--csv", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder, prefix="growth-") as name:
        if given.doubling:
            lines = doubling(Path(name), given.gigabytes)
        else:
            with_it = not given.without_transformers
            lines = table(compare(Path(name), given.gigabytes, given.rounds, with_it, with_it))
    print(markdown(lines))
    if given.csv:
        with given.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(lines[0]))
            writer.writeheader()
            writer.writerows(lines)


if __name__ == "__main__":
    main()
