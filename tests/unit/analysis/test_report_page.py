"""The report's page: one file, inert names, ids that are its own, links that lead somewhere."""

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis import commands, page
from analysis.outcomes import Outcomes, of_sweep, of_table
from analysis.page import parts, runs, sortable
from analysis.page.drawings import inline
from orchestrator.store import Store
from tests.unit.analysis import invented

EVIL = '<script>alert("here")</script> & <b>bold</b> | ```'
VOID = {"meta", "link", "br", "img", "input", "hr"}


@dataclass
class Read(HTMLParser):
    """What a parser finds in a page; names of elements that were closed out of turn."""

    ids: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    scripts: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attrs}
        self.ids += [given["id"]] if "id" in given else []
        self.links += [given["href"]] if tag == "a" else []
        self.loaded += [given[key] for key in ("src", "xlink:href") if key in given]
        self.loaded += [given["href"]] if tag == "link" else []
        assert not [key for key in given if key.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        else:
            self.words.append(data)


def read(text: str) -> Read:
    found = Read()
    found.feed(text)
    found.close()
    return found


def written(outcomes: Outcomes) -> str:
    assert commands.report(outcomes) == 0
    return (outcomes.folder / "report.html").read_text()


def leads(folder: Path, ids: list[str], link: str) -> bool:
    return link[1:] in ids if link.startswith("#") else (folder / unquote(link)).is_file()


LAYOUT = invented.Layout(
    sunk=(0, 2e12, 8e12, 3.2e13),
    extra=(4e12, 8e12),
    depth_at=(0, 1, 2, 3),
    width_at=(),
    continue_at=(1, 2, 3),
    seeds=(0,),
)


@pytest.fixture(scope="module")
def evil(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """A report of a sweep whose title and cells are called what no page should run.

    One stage has a log with a name that links must quote, and an empty one.
    """
    root = tmp_path_factory.mktemp("evil")
    invented.write(root, LAYOUT)
    store = Store(root)
    path = store.plan_folder("invented") / "plan.json"
    plan = json.loads(path.read_text())
    plan["title"] = EVIL
    for cell in plan["cells"]:
        cell["label"] = f"{EVIL} {cell['label']}"
        cell["variant"] = {"recipe": EVIL}
    path.write_text(json.dumps(plan))
    logs = store.run(plan["cells"][0]["stage"]) / "log"
    logs.mkdir()
    (logs / "first try #1.log").write_text("it ran\n")
    (logs / "empty.log").write_text("")
    outcomes = of_sweep(store, "invented")
    written(outcomes)
    return outcomes


def test_a_page_is_whole_and_its_own(evil: Outcomes) -> None:
    text = (evil.folder / "report.html").read_text()
    found = read(text)
    assert (found.wrong, found.open) == ([], [])
    assert [name for name, count in Counter(found.ids).items() if count > 1] == []
    assert [link for link in found.links if not leads(evil.folder, found.ids, link)] == []
    logs = {link.partition("log/")[2] for link in found.links if "log/" in link}
    assert logs == {"first%20try%20%231.log"}
    # Nothing is fetched: what is loaded is in the page, as data or by its own id.
    assert found.loaded
    assert [each for each in found.loaded if not each.startswith(("data:", "#"))] == []
    assert [each for each in found.loaded if each[0] == "#" and each[1:] not in found.ids] == []
    assert {*re.findall(r"url\(#([^)]+)\)", text)} <= {*found.ids}
    assert "http" not in re.sub(r"http://www\.w3\.org/[\w/]+", "", text.partition("<style>")[2])
    assert len(text) < 3_000_000


def test_names_are_inert(evil: Outcomes) -> None:
    text = (evil.folder / "report.html").read_text()
    found = read(text)
    assert EVIL in "".join(found.words)
    assert "<script>alert" not in text
    assert "<b>bold" not in text
    assert len(found.scripts) == 2
    assert json.loads(found.scripts[0])["cells"][0]["variant"] == f"recipe={EVIL}"
    markdown = (evil.folder / "report.md").read_text()
    outside = re.sub(r"^```.*?^```", "", markdown, flags=re.M | re.S)
    assert "&lt;script&gt;" in outside
    assert "<script" not in outside


def test_every_cell_has_its_lineage(small: Store) -> None:
    found = runs.runs(small, "invented")
    plan = small.plan("invented")
    assert [run.stage for run in found] == [cell["stage"] for cell in plan["cells"]]
    for run, cell in zip(found, plan["cells"], strict=True):
        ids = [step.stage for step in run.steps]
        assert ids[0].startswith("init-")
        assert ids[-1] == cell["stage"]
        assert cell["source"] in ids
        assert ("grow" in [each.partition("-")[0] for each in ids]) == (cell["arm"] == "grow")
        for before, stage in itertools.pairwise(ids):
            assert plan["stages"][stage]["after"] == before


def test_an_unfinished_sweep_says_what_is_missing(small: Store) -> None:
    plan = small.plan("invented")
    first, failed, *_ = [cell["stage"] for cell in plan["cells"]]
    for cell in plan["cells"]:
        if cell["stage"] != first:
            (small.run(cell["stage"]) / "record.json").unlink()
    small.set_state(failed, "failed", error="loss is not finite <here>")
    outcomes = of_sweep(small, "invented")
    words = "".join(read(written(outcomes)).words)
    assert "Not enough runs: 1 of " in words
    assert "loss is not finite <here>" in words
    assert "No law could be fitted yet." in words


def test_a_table_made_elsewhere_has_no_runs(tmp_path: Path) -> None:
    outcomes = of_table("paper-3b6b", to=tmp_path)
    text = written(outcomes)
    found = read(text)
    assert "runs" not in found.ids
    assert "decision_map: " in "".join(found.words)
    header = parts.results(outcomes).header
    assert "accuracy %" in header
    assert "loss" not in header
    assert [link for link in found.links if not leads(tmp_path, found.ids, link)] == []


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_are_read_as_they_are_printed(value: float) -> None:
    for text in (f"{value:.3e}", f"{value:.3e} ± 0.1", f"{value:.3e} (90 %)"):
        assert sortable.number(text) == float(f"{value:.3e}")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("46.7M", 46.7e6),
        ("-0.0039", -0.0039),
        ("+0.979", 0.979),
        ("30-52 %", 30.0),
        ("2 x", 2.0),
        ("depth x2", None),
        ("2x wide", None),
        ("evaluate-12", None),
        ("-", None),
    ],
)
def test_only_numbers_are_numbers(text: str, number: float | None) -> None:
    assert sortable.number(text) == number


def test_a_column_sorts_as_numbers_if_all_of_it_are() -> None:
    rows = [["1", "2", "3", "-"], ["4", "-", "wide", "-"]]
    found = sortable.grid("", (["a", "b", "c", "d"], rows), {1: [2.5, 0.0]})
    assert found.numeric == (False, True, False, False)
    assert [row[1].key for row in found.rows] == ["2.5", "0.0"]
    assert found.rows[1][1].text == "0"
    assert sortable.without_empty(found).header == ("a", "b", "c")


def test_figures_do_not_share_names(tmp_path: Path) -> None:
    drawn = (
        '<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"'
        ' xmlns:xlink="http://www.w3.org/1999/xlink" width="9pt" height="9pt"><metadata/>'
        '<defs><style>*{}</style><clipPath id="c"/></defs><!-- id="c" -->'
        '<g clip-path="url(#c)" style="fill: url(#c)"><use xlink:href="#c"/></g>'
        '<text id="t">a &lt; "b" id="c"</text></svg>'
    )
    for name in ("one", "two"):
        (tmp_path / f"{name}.svg").write_text(drawn)
        text = inline(tmp_path / f"{name}.svg", 'says "this"')
        assert re.findall(r' id="([^"]+)"', text) == [f"{name}-c", f"{name}-t"]
        assert text.count(f"url(#{name}-c)") == 2
        assert f'xlink:href="#{name}-c"' in text
        assert "a &lt; " in text
        assert 'aria-label="says &quot;this&quot;"' in text
        for gone in ("<style", "<metadata", "<!--", "<?xml", "width="):
            assert gone not in text


def contrast(one: str, two: str) -> float:
    """Of two colours as WCAG has it."""
    lights = sorted(_light(each) for each in (one, two))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def _light(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def palettes() -> Iterator[dict[str, str]]:
    style = (Path(page.__file__).parent / "report.css").read_text()
    for block in re.findall(r":root \{([^}]+)\}", style):
        yield dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", block))


def test_words_can_be_read_on_paper_of_any_colour() -> None:
    found = list(palettes())
    assert len(found) == 3  # light, dark, print
    for colours in found:
        for ground in ("paper", "shade"):
            for name in ("ink", "soft", "link", "failed"):
                assert contrast(colours[name], colours[ground]) >= 4.5, (name, ground, colours)
        for name in ("grow", "continue", "scratch", "unsure"):
            assert contrast(colours[name], colours["paper"]) >= 3


def test_the_data_of_a_page_is_that_of_its_records(small: Store) -> None:
    outcomes = of_sweep(small, "invented")
    frame = outcomes.frame.assign(choice_accuracy=float("nan"))
    found = json.loads(page._data(replace(outcomes, frame=frame), []))
    cells = pd.DataFrame(found["cells"])
    assert cells["choice_accuracy"].isna().all()
    assert cells["sunk_flops"].to_list() == frame["sunk_flops"].to_list()
    assert cells["stage"].to_list() == frame["stage"].to_list()


def test_tables_in_words_are_those_of_the_module(small: Store) -> None:
    outcomes = of_sweep(small, "invented")
    grid = parts.results(outcomes)
    assert len(grid.rows) == len(outcomes.frame)
    at = grid.header.index("sunk")
    assert [row[at].number for row in grid.rows] == outcomes.frame["sunk_flops"].to_list()
    assert grid.rows[0][-1].link == f"#run-{outcomes.frame['stage'][0]}"
