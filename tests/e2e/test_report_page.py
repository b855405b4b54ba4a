"""The report's page in a real browser: Debian's Chromium, which is installed if it is missing."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser import chromium
from tests.browser.chromium import Page
from tests.conftest import CI
from tests.e2e.conftest import Run

pytestmark = pytest.mark.timeout(900)  # with the browser's packages
TITLE = "<script>document.title = 'ran'</script><img src=x onerror=\"document.title='ran'\">"
RESULTS = "#results table"


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    try:
        chromium.installed()
    except chromium.NoBrowserError as why:
        reason = f"no Chromium: {why}"
        pytest.fail(reason) if CI else pytest.skip(reason)
    with chromium.page() as page:
        yield page


@pytest.fixture(scope="module")
def report(
    launched: "tuple[Path, object]", growpoint: Run, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The page of the small demo, in a copy of its plan whose title nobody should run."""
    store, _ = launched
    copy = tmp_path_factory.mktemp("page")
    (copy / "runs").symlink_to(store / "runs")
    folder = copy / "plans" / "demo"
    folder.mkdir(parents=True)
    plan = json.loads((store / "plans/demo/plan.json").read_text())
    (folder / "plan.json").write_text(json.dumps(plan | {"title": TITLE}))
    said = json.loads(growpoint("report", "demo", "--json", cwd=copy).stdout)
    page = copy / said["page"]
    assert page.stat().st_size < 3_000_000
    return page


@pytest.fixture
def page(browser: Page, report: Path) -> Iterator[Page]:
    """The page, opened anew; at the end the console must have said nothing."""
    browser.errors.clear()
    browser.requests.clear()
    browser.width(1600)
    browser.scheme("light")
    browser.open(report)
    yield browser
    assert browser.errors == []
    foreign = [url for url in browser.requests if not url.startswith(("data:", report.as_uri()))]
    assert foreign == []


def test_a_browser_that_cannot_be_had_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that CI fails where a desk skips: see the fixture `browser`."""
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(chromium.NoBrowserError, match="apt-get install chromium"):
        chromium.installed()


def column(page: Page, selector: str, at: int) -> list[str]:
    found: list[str] = page.value(
        f"[...document.querySelectorAll({json.dumps(selector + ' tbody tr')})]"
        f".map(row => row.cells[{at}].textContent.trim())"
    )
    return found


def headings(page: Page, selector: str) -> list[str]:
    found: list[str] = page.value(
        f"[...document.querySelectorAll({json.dumps(selector + ' thead th')})]"
        ".map(cell => cell.textContent.trim())"
    )
    return found


def sorts(page: Page, selector: str) -> list[str | None]:
    found: list[str | None] = page.value(
        f"[...document.querySelectorAll({json.dumps(selector + ' thead th')})]"
        ".map(cell => cell.getAttribute('aria-sort'))"
    )
    return found


def test_the_answer_is_what_one_sees_first(page: Page) -> None:
    page.width(1600, 900)
    bottom = page.value("document.querySelector('.headline').getBoundingClientRect().bottom")
    assert 0 < bottom < 450
    top, next_one = page.value(
        "['#figure-decision_map', '#caveats']"
        ".map(name => document.querySelector(name)?.getBoundingClientRect().top ?? 0)"
    )
    assert top < next_one


def test_a_title_is_shown_and_does_nothing(page: Page) -> None:
    assert page.value("document.querySelector('.title').textContent") == TITLE
    assert page.value("document.title") == "demo · growpoint report"


def test_no_script_but_its_own_would_run(browser: Page, report: Path, tmp_path: Path) -> None:
    """What the page forbids is tried on a copy into which somebody has got a script."""
    planted = tmp_path / "planted.html"
    text = report.read_text()
    planted.write_text(text.replace("</main>", "<script>document.title = 'ran'</script></main>"))
    browser.errors.clear()
    browser.open(planted)
    assert browser.value("document.title") == "demo · growpoint report"
    assert any("Content Security Policy" in each for each in browser.errors)


def test_clicking_sorts_numbers_as_numbers(page: Page) -> None:
    at = headings(page, RESULTS).index("sunk")
    # Two cells that go the other way round by their letters.
    for row, flops in enumerate(("1.0e12", "9.0e11")):
        page.value(
            f"(() => {{ const cell = document.querySelector('{RESULTS}').tBodies[0].rows[{row}]"
            f".cells[{at}]; cell.textContent = '{flops}'; cell.dataset.key = '{flops}'; }})()"
        )
    before = column(page, RESULTS, at)
    button = f"{RESULTS} thead th:nth-child({at + 1}) button"
    page.click(button)
    rising = column(page, RESULTS, at)
    values = [float(each) for each in rising]
    assert values == sorted(values)
    assert sorted(rising) == sorted(before)
    assert rising[-2:] == ["9.0e11", "1.0e12"]
    assert sorts(page, RESULTS)[at] == "ascending"
    page.click(button)
    values = [float(each) for each in column(page, RESULTS, at)]
    assert values == sorted(values, reverse=True)
    assert sorts(page, RESULTS)[at] == "descending"
    other = headings(page, RESULTS).index("arm")
    page.click(f"{RESULTS} thead th:nth-child({other + 1}) button")
    assert column(page, RESULTS, other) == sorted(column(page, RESULTS, other))
    assert [each for each in sorts(page, RESULTS) if each] == ["ascending"]


def test_the_keyboard_sorts_too(page: Page) -> None:
    at = headings(page, RESULTS).index("loss")
    page.value(f"document.querySelector('{RESULTS} thead th:nth-child({at}) button').focus()")
    page.press("Tab", 9)
    assert page.value("document.activeElement.textContent") == "loss"
    page.press("Enter", 13)
    losses = [float(each.split()[0]) for each in column(page, RESULTS, at)]
    assert losses == sorted(losses)
    assert sorts(page, RESULTS)[at] == "ascending"


def test_every_table_sorts_by_every_column(page: Page) -> None:
    """Sorting keeps every row; what is missing is last, whichever way."""
    wrong = page.value("""
        [...document.querySelectorAll('table.sorts')].flatMap(table => {
            const rows = () => [...table.tBodies[0].rows];
            const all = rows().length;
            return [...table.querySelectorAll('thead button')].flatMap(button => {
                const heading = button.closest('th'), at = heading.cellIndex, found = [];
                for (const way of [1, -1]) {
                    button.click();
                    if (rows().length !== all) found.push('lost a row');
                    if (!('numeric' in heading.dataset)) continue;
                    const keys = rows().map(row => row.cells[at].dataset.key);
                    const known = keys.filter(Boolean).map(Number);
                    if (keys.slice(0, known.length).includes('')) found.push('missing first');
                    if (known.some((key, i) => i && way * (key - known[i - 1]) < 0))
                        found.push(heading.textContent);
                }
                return found;
            });
        })""")
    assert wrong == []
    assert page.value("document.querySelectorAll('table.sorts').length") > 4


@pytest.mark.parametrize("width", [400, 1600])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read_on_any_screen(page: Page, width: int, scheme: str) -> None:
    page.width(width)
    page.scheme(scheme)
    page.value("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert page.value("document.documentElement.scrollWidth") == width
    small = page.value("""
        [...document.querySelectorAll('body *')]
            .filter(each => !each.closest('svg') && each.getBoundingClientRect().width
                    && parseFloat(getComputedStyle(each).fontSize) < 12)
            .map(each => each.tagName)""")
    assert small == []
    # 8 points on paper: a figure is scrolled rather than drawn smaller than 9 pixels.
    heights = page.value("""
        [...document.querySelectorAll('.plate svg')].map(each =>
            8 * each.getBoundingClientRect().width / each.viewBox.baseVal.width)""")
    assert heights
    assert min(heights) >= 8.5
    assert page.value("getComputedStyle(document.querySelector('.plate')).backgroundColor") == (
        "rgb(255, 255, 255)"
    )
    paper = page.value("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")


def test_links_lead_to_what_is_there(page: Page, report: Path) -> None:
    links = page.value("[...document.querySelectorAll('a')].map(each => each.getAttribute('href'))")
    assert any("metrics.jsonl" in link for link in links)
    for link in links:
        if link.startswith("#"):
            assert page.value(f"document.getElementById({json.dumps(link[1:])}) !== null"), link
        else:
            assert (report.parent / link).is_file(), link


def test_it_prints_with_all_that_it_says(page: Page) -> None:
    assert page.pdf().startswith(b"%PDF-")
    page.send("Emulation.setEmulatedMedia", media="print")
    try:
        assert page.value("getComputedStyle(document.querySelector('nav')).display") == "none"
        page.value("dispatchEvent(new Event('beforeprint'))")
        assert page.value("document.querySelectorAll('details:not([open])').length") == 0
        page.value("dispatchEvent(new Event('afterprint'))")
        assert page.value("document.querySelectorAll('details[open]').length") == 0
    finally:
        page.send("Emulation.setEmulatedMedia", media="")
