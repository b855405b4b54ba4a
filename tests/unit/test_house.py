"""The habits of the house that no linter checks.

Each rule is a function from one parsed file to the places that break it, and is shown a planted
violation first, so that none can pass by looking at nothing.
"""

import ast
import functools
import re
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PACKAGES = ("sweeps", "orchestrator", "analysis", "conf")
LONGEST_FILE, LONGEST_FUNCTION, MEDIAN_FUNCTION = 300, 60, 12
SAYS_NOTHING = {"base", "common", "engine", "handler", "helper", "manager", "task", "trial", "util"}
MARKS = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|X{3})\b")


@dataclass(frozen=True)
class Source:
    """One Python file, read and parsed once."""

    path: Path
    text: str
    tree: ast.Module

    @staticmethod
    def of(path: Path, text: str) -> "Source":
        return Source(path, text, ast.parse(text))


Rule = Callable[[Source], Iterator[str]]
Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(source: Source) -> Iterator[tuple[str, int]]:
    """The name and the length of every function, decorators and docstring included."""
    for node in ast.walk(source.tree):
        if isinstance(node, Function):
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            yield node.name, (node.end_lineno or node.lineno) - first + 1


def long_file(source: Source) -> Iterator[str]:
    lines = len(source.text.splitlines())
    if lines > LONGEST_FILE:
        yield f"{lines} lines, over {LONGEST_FILE}"


def long_function(source: Source) -> Iterator[str]:
    for name, lines in functions(source):
        if lines > LONGEST_FUNCTION:
            yield f"{name}: {lines} lines, over {LONGEST_FUNCTION}"


def empty_name(source: Source) -> Iterator[str]:
    """Modules are named as a whole, classes by words: `TaskRunner` says `task` too."""
    names = [source.path.stem] + [
        n.name for n in ast.walk(source.tree) if isinstance(n, ast.ClassDef)
    ]
    for name in names:
        words = {word.lower().removesuffix("s") for word in re.findall(r"[A-Z]?[a-z]+", name)}
        if words & SAYS_NOTHING:
            yield f"{name}: a name that says nothing"


def leftover(source: Source) -> Iterator[str]:
    for number, line in enumerate(source.text.splitlines(), 1):
        if MARKS.search(line):
            yield f"line {number}: {line.strip()}"


def family_branch(source: Source) -> Iterator[str]:
    """Families differ in conf/family, never in code: no comparison of a family with a text."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            if any(_is_family(side) for side in sides) and any(_is_text(side) for side in sides):
                yield f"line {node.lineno}: {ast.unparse(node)}"
        elif isinstance(node, ast.Match) and _is_family(node.subject):
            yield f"line {node.lineno}: match {ast.unparse(node.subject)}"


def _is_family(node: ast.expr) -> bool:
    name = getattr(node, "attr", getattr(node, "id", ""))
    return name in {"family", "family_name", "model_type"} or (
        name == "name" and isinstance(node, ast.Attribute) and _is_family(node.value)
    )


def _is_text(node: ast.expr) -> bool:
    return any(isinstance(n, ast.Constant) and isinstance(n.value, str) for n in ast.walk(node))


def foreign_code(source: Source) -> Iterator[str]:
    """Loading a checkpoint must never run what somebody put in it."""
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.Call):
            continue
        given = {k.arg: ast.unparse(k.value) for k in node.keywords if k.arg}
        if given.get("trust_remote_code", "False") != "False":
            yield f"line {node.lineno}: trust_remote_code"
        if ast.unparse(node.func) == "torch.load" and given.get("weights_only") != "True":
            yield f"line {node.lineno}: torch.load without weights_only=True"


RULES: tuple[Rule, ...] = (
    long_file,
    long_function,
    empty_name,
    leftover,
    family_branch,
    foreign_code,
)

PLANTED: tuple[tuple[Rule, str, str], ...] = (
    (long_file, "sweeps/x.py", "a = 1\n" * 301),
    (long_function, "sweeps/x.py", "def f():\n" + "    a = 1\n" * 60),
    (empty_name, "sweeps/utils.py", ""),
    (empty_name, "sweeps/run_helpers.py", ""),
    (empty_name, "sweeps/x.py", "class TaskRunner: ..."),
    (leftover, "sweeps/x.py", "a = 1  # TO" + "DO"),
    (family_branch, "sweeps/x.py", "if model.family == 'olmoe': pass"),
    (family_branch, "sweeps/x.py", "if config.model_type in ('olmoe', 'mixtral'): pass"),
    (family_branch, "sweeps/x.py", "match family.name:\n    case 'olmoe': pass"),
    (foreign_code, "sweeps/x.py", "load(path, trust_remote_code=True)"),
    (foreign_code, "sweeps/x.py", "torch.load(path)"),
    (foreign_code, "sweeps/x.py", "torch.load(path, weights_only=False)"),
)


@functools.cache
def product() -> list[Source]:
    files = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    assert len(files) > len(PACKAGES), "the packages were not found"
    return [Source.of(path.relative_to(ROOT), path.read_text(encoding="utf-8")) for path in files]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_product_keeps(rule: Rule) -> None:
    found = [f"{source.path}: {place}" for source in product() for place in rule(source)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(("rule", "path", "text"), PLANTED)
def test_a_planted_violation_is_found(rule: Rule, path: str, text: str) -> None:
    assert list(rule(Source.of(Path(path), text)))


def test_functions_are_short_on_the_whole() -> None:
    lengths = [lines for source in product() for _, lines in functions(source)]
    assert statistics.median(lengths) <= MEDIAN_FUNCTION


def test_nothing_is_left_over_in_tests_and_settings() -> None:
    files = [path for kind in ("*.py", "*.sh") for path in (ROOT / "tests").rglob(kind)]
    files += [ROOT / name for name in ("Makefile", "pyproject.toml", ".ci/run")]
    files += (ROOT / "conf").rglob("*.yaml")
    found = [str(p) for p in files if MARKS.search(p.read_text(encoding="utf-8"))]
    assert not found


def test_every_configuration_file_parses() -> None:
    files = sorted((ROOT / "conf").rglob("*.yaml"))
    assert files
    for path in files:
        assert isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict), path


def test_help_imports_neither_tensors_nor_tables() -> None:
    """Asking for help must not cost the four seconds that importing them does."""
    heavy = ["torch", "transformers", "pandas", "scipy", "matplotlib", "datasets"]
    program = f"""
import sys
from orchestrator.cli import main
sys.argv = ["growpoint", "--help"]
try:
    code = main()
except SystemExit as stopped:
    code = stopped.code
sys.exit(code or [name for name in {heavy} if name in sys.modules] or 0)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "growpoint" in done.stdout


DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "tests").rglob("*.md")]
)


def prose(path: Path) -> str:
    """A document without its code, where brackets and hashes mean other things."""
    text = re.sub(r"^ *```.*?^ *```", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    return re.sub(r"`[^`\n]*`", "", text)


def anchors(path: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    headings = re.findall(r"^#+ +(.+?) *$", text, flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(path: Path) -> list[str]:
    broken = []
    for target in re.findall(r"\]\(<?([^)\s>]+)>?[^)]*\)", prose(path)):
        name, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        file = path.parent / name if name else path
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
            broken.append(target)
    return broken


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    assert not broken_links(path)


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# One thing\n[a](gone.md) [b](#other-thing) [c](page.md#one-thing) [d](https://x)"
    )
    assert broken_links(page) == ["gone.md", "#other-thing"]
