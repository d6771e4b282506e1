"""The page of a run in a real Chromium: it sorts, filters and compares, with keys as well, and loads nothing."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.report.page.render import render_page
from bench.report.pivot import pivot
from bench.report.runs import Runs
from bench.report.table import make_table
from bench.run.store import Run
from bench.text import one_line
from tests.bench import make
from tests.bench.report.pages import HOSTILE, LABELS, VIDEOS, guessed, page_of, seen, write_bare_run, write_run

CHROMIUM = shutil.which("chromium")
playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright, of the extra dev")
pytestmark = [
    pytest.mark.slow,  # a browser starts
    pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's package chromium"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=120_000)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    file = folder / "page.html"
    file.write_text(page_of(write_run(folder / "run")), encoding="utf-8")
    return file


@pytest.fixture
def page(browser: Any, file: Path) -> Iterator[Any]:
    with opened(browser, file) as page:
        yield page


@contextlib.contextmanager
def opened(browser: Any, file: Path) -> Iterator[Any]:
    """A page, in which nothing is told on the console, fetched, or asked in a window."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(60_000)
    told: list[str] = []
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("dialog", lambda dialog: (told.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: told.append(request.url) if request.url != file.as_uri() else None)
    page.goto(file.as_uri())
    yield page
    context.close()
    assert [text for text in told if not text.startswith("data:")] == []


def texts(page: Any, column: str) -> list[str]:
    """A column of the results, without footnotes and deviations."""
    header = page.locator("#results thead th").all_inner_texts()
    (index,) = [index for index, text in enumerate(header) if text.rstrip("↑↓ ") == column]
    cells = page.locator(f"#results tbody tr > :nth-child({index + 1})")
    return [cells.nth(row).locator("bdi, button > span").first.inner_text() for row in range(cells.count())]


def sorted_as(page: Any, column: str) -> str:
    return str(page.locator("#results thead th", has_text=column).first.get_attribute("aria-sort"))


def test_headers_sort_by_mouse_and_by_key(page: Any) -> None:
    before = texts(page, "train clips/s")
    assert before == ["125", "225", "300", "-"]
    button = page.locator("#results thead button", has_text="train clips/s")
    button.click()
    assert (texts(page, "train clips/s"), sorted_as(page, "train clips/s")) == (
        ["300", "225", "125", "-"],
        "descending",
    )
    button.focus()
    page.keyboard.press("Enter")
    assert (texts(page, "train clips/s"), sorted_as(page, "train clips/s")) == (["125", "225", "300", "-"], "ascending")
    page.locator("#results thead button", has_text="strategy").press("Enter")
    assert texts(page, "strategy") == ["frozen", "frozen", "joint", "joint"]
    assert (sorted_as(page, "train clips/s"), sorted_as(page, "strategy")) == ("none", "ascending")
    for _ in range(2):
        page.keyboard.press("Enter")
    assert (texts(page, "train clips/s"), sorted_as(page, "strategy")) == (before, "none")


def test_rows_are_filtered_by_text_and_by_label(page: Any) -> None:
    page.locator("#filter").fill("CLIP joint")
    assert texts(page, "strategy") == ["joint"] and page.locator("#shown").inner_text().startswith("1 of 4")
    page.locator("#filter").fill("no luck")
    assert texts(page, "backbone") == ["clip:tiny@none"]
    page.locator("#filter").fill("")
    page.get_by_label("strategy").first.select_option("frozen")
    assert texts(page, "backbone") == ["vit:tiny@none", "clip:tiny@none"]
    page.get_by_label("backbone").first.select_option("clip:tiny@none")
    assert texts(page, "strategy") == ["frozen"]


def test_columns_are_chosen(page: Any) -> None:
    page.locator("#columns summary").click()
    page.get_by_label("GMACs", exact=True).uncheck()
    page.get_by_label("wall_seconds").check()
    headers = page.locator("#results thead th").all_inner_texts()
    assert "GMACs" not in headers and headers[-1] == "wall_seconds"
    assert texts(page, "wall_seconds") == ["42.5"] * 4
    page.keyboard.press("Escape")
    assert page.locator("#columns").get_attribute("open") is None


def test_a_number_tells_where_it_comes_from(page: Any) -> None:
    dialog = page.locator("#provenance")
    page.locator("#results tbody tr").first.locator("button").first.click()
    top1 = [100 * (guessed(cell)[seen(cell)] == LABELS[seen(cell)]).mean() for cell in (0, 1)]
    for told in (
        *(f"{value:.6g}" for value in top1),
        "bench run",
        "0123456789abcdef",
        "ab" * 32,
        "cd" * 32,
        "Some CPU",
    ):
        assert told in dialog.inner_text()
    assert "<u>a footnote</u> & more" in dialog.inner_text()
    page.keyboard.press("Escape")
    assert not dialog.is_visible()
    # one stop of Tab in the table; arrows go on from there
    assert page.locator('#results td button[tabindex="0"]').count() == 1
    page.locator('#results td button[tabindex="0"]').focus()
    for key in ("ArrowDown", "ArrowRight", "ArrowRight", "ArrowLeft", "Enter"):
        page.keyboard.press(key)
    assert page.locator("#provenance-heading").inner_text() == "top-5 %: 97.5"
    assert "joint" in page.locator("#provenance-body p").first.inner_text()
    page.locator("#close").click()
    assert not dialog.is_visible()
    page.locator("#results tbody tr.failed button").first.click()
    assert "<b>no luck</b>" in dialog.inner_text() and "Traceback" in dialog.inner_text()


def test_a_number_of_a_pivot_tells_its_own_cells_alone(browser: Any, tmp_path: Path) -> None:
    runs = Runs([write_run(tmp_path / "run")])
    table = pivot(runs.results, "strategy", ("top1",), ("backbone",))
    (tmp_path / "page.html").write_text(render_page(runs, table), encoding="utf-8")
    with opened(browser, tmp_path / "page.html") as page:
        for column, strategy in enumerate(("frozen", "joint")):
            keys = {result.cell.key: result.cell.strategy for result in runs.results if result.status == "done"}
            page.locator("#results tbody tr").first.locator("button").nth(column).click()
            told = page.locator("#provenance").inner_text()
            expected = {result.cell.key for result in runs.results
                        if (result.cell.backbone, result.cell.strategy) == ("vit:tiny", strategy)}  # fmt: skip
            assert {key for key in keys if key in told} == expected
            page.keyboard.press("Escape")


def test_classes_and_disagreements_of_two_cells(page: Any) -> None:
    for side, cell in (("#cell-a", 0), ("#cell-b", 1)):
        page.locator(side).select_option(index=cell)
    one, other = guessed(0), guessed(1)
    both = seen(1)
    lists = [
        [v for v in both if one[v] == LABELS[v] != other[v]],
        [v for v in both if other[v] == LABELS[v] != one[v]],
        [v for v in both if LABELS[v] not in (one[v], other[v]) and one[v] != other[v]],
    ]
    shown = page.locator("#disagreement option").all_inner_texts()
    assert [int(text.rpartition("(")[2].rstrip(")")) for text in shown] == [len(each) for each in lists]
    assert str(len(both)) in page.locator("#both").inner_text() and len(both) == VIDEOS - 2
    for index, videos in enumerate(lists):
        page.locator("#disagreement").select_option(index=index)
        assert page.locator("#gallery li").count() == min(24, len(videos))
    first = page.locator("#gallery li").first.locator("p").all_inner_texts()
    classes = [one_line(name) for name in HOSTILE]
    video = lists[2][0]
    assert first[1] == classes[LABELS[video]]
    assert first[2].endswith(classes[one[video]]) and first[3].endswith(classes[other[video]])
    for label, name in enumerate(classes):
        row = page.locator("#classes tbody tr").nth(label)
        right = (one[label == LABELS] == label).mean()
        assert row.locator("th").inner_text() == name
        assert float(row.locator("td").nth(1).inner_text()) == pytest.approx(100 * right, abs=0.051)


def test_hostile_names_are_text(page: Any) -> None:
    assert page.locator("main script, main b, main i:not(.bar i), img[onerror], main u").count() == 0
    assert page.evaluate("document.scripts.length") == 2
    names = page.locator("#classes tbody th").all_inner_texts()
    assert names == [one_line(name) for name in HOSTILE]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_curves_are_drawn_for_the_rows_that_are_chosen(page: Any) -> None:
    lines = page.locator("#curve-plot polyline")
    assert lines.count() == 5
    page.locator("#legend button").first.click()
    assert (lines.count(), page.locator("#legend button").first.get_attribute("aria-pressed")) == (3, "false")
    page.locator("#curve").select_option("val_top1")
    assert page.locator("#curve-plot circle").count() == 3  # one point each


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_light_or_dark_as_the_system_is_or_as_its_button_says(page: Any, scheme: str) -> None:
    def brightness() -> float:
        return float(page.evaluate("+getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0]"))

    page.emulate_media(color_scheme=scheme)
    assert (brightness() > 128) is (scheme == "light")
    assert page.locator("#theme").get_attribute("aria-pressed") == str(scheme == "dark").lower()
    page.locator("#theme").click()
    assert (brightness() > 128) is (scheme == "dark")
    page.emulate_media(media="print")
    assert brightness() > 128 and not page.locator("#filters").is_visible()


def test_a_page_without_videos_and_curves_works_as_well(browser: Any, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(page_of(write_bare_run(tmp_path / "run")), encoding="utf-8")
    with opened(browser, tmp_path / "page.html") as page:
        page.locator("#results thead button", has_text="params M").click()
        assert texts(page, "params M") == ["1.23", "failed"]
        page.locator("#results td button").last.click()
        assert page.locator("#provenance").is_visible()


def test_a_narrow_window_shows_it_all(page: Any) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    strategy = page.locator("#results tbody th").first
    page.locator("#results").evaluate("element => element.scrollLeft = 600")
    assert strategy.bounding_box()["x"] >= 0  # it stays in sight


def test_a_thousand_rows_are_sorted_at_once(browser: Any, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    made = [make.cell(strategy="joint", options={}, recipe={"lr": 1e-4 * (index + 1)}) for index in range(1000)]
    run.open(make.matrix(), made, "bench run", {})
    for index, cell in enumerate(made):
        run.put(make.done(cell, top1=float(index * 7919 % 1000) / 10))
    runs = Runs([run])
    (tmp_path / "page.html").write_text(render_page(runs, make_table(runs.results)), encoding="utf-8")
    page = browser.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    page.locator("#results tbody tr").nth(999).wait_for(state="attached", timeout=60_000)
    seconds = page.evaluate(
        "() => { const begun = performance.now(); document.querySelectorAll('#results thead button')[3].click();"
        " return (performance.now() - begun) / 1000; }"
    )
    assert seconds < 5
    assert page.locator("#results tbody tr").first.locator("td button").first.inner_text() == "99.9"
    page.close()
