"""What a sweep leaves, in a real browser without a network: on a wide screen and a phone, by day and by night."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sleep_lightning.sweep.report.content import build_report
from sleep_lightning.sweep.report.files import write_report
from tests.browser import offline_plots, plots
from tests.sweep.studies import ToldStudy

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

WIDE, PHONE = (
    {"viewport": {"width": 1200, "height": 800}},
    {
        "viewport": {"width": 390, "height": 844},
        "is_mobile": True,
        "has_touch": True,
    },
)
PLACES = """() => {
    const box = element => { const b = element.getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom]; };
    return [...document.querySelectorAll('.js-plotly-plot')].map(plot => ({
        ground: box(plot.querySelector('.bglayer .bg, .plot .overplot, .gridlayer')),
        axis: box(plot.querySelector('.g-xtitle text')),
        legend: plot.querySelector('.legend') && box(plot.querySelector('.legend')),
        drag: plot._fullLayout.dragmode,
    }));
}"""
COLORS = """() => {
    const of = (query, name) => [...new Set([...document.querySelectorAll(query)].map(e => getComputedStyle(e)[name]))];
    return {
        page: getComputedStyle(document.body).backgroundColor,
        texts: [...of('h1, h2, p, td, th, code, a, button', 'color'), ...of('.main-svg text', 'fill')],
        marks: [...of('.scatterlayer .points path', 'fill'), ...of('.scatterlayer path.js-line', 'stroke'),
                ...of('.barlayer path', 'fill')].filter(color => color.startsWith('rgb(')),
    };
}"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep with trials that finished, were stopped, failed, are infeasible and run, of five N."""
    folder = tmp_path_factory.mktemp("sweep")
    study = ToldStudy(folder, seeds=[0, 1])
    for i in range(120):
        n, exact = 1 + i % 3, 0.2 + i / 200
        study.finish(n, exact, 1e12 * (1 + i % 7) * n, seeds=[exact - 0.1, exact + 0.1])
    study.finish(4, 0.95, 9e12, seeds=[0.9, 1.0])
    study.prune(4, spent=1e12, whole=8e12)
    study.fail(3, failed="out of memory: " + "no room " * 20, flops_spent=5e11, train_flops=6e12)
    study.fail(3, infeasible="train_flops 9e+12 is above 8e+12")
    study.ask(2)
    write_report(build_report(study.study, folder), folder)
    return folder


@contextmanager
def opened(browser: "Browser", file: Path, **options: Any) -> Iterator["Page"]:
    context = browser.new_context(offline=True, **options)
    try:
        page = context.new_page()
        errors: list[Any] = []
        page.on("pageerror", lambda error: errors.append(error))
        page.goto(file.as_uri())
        plots(page, lambda found: len(found) == page.locator(".js-plotly-plot").count() > 0)
        yield page
        assert errors == []
    finally:
        context.close()


def test_frontier_and_report_are_drawn_offline(browser: "Browser", tmp_path: Path) -> None:
    study = ToldStudy(tmp_path, seeds=[0, 1])
    study.finish(2, 0.5, 2e12, seeds=[0.4, 0.6])
    study.finish(1, 0.25, 1e12, seeds=[0.25, 0.25])
    study.finish(4, 0.5, 4e12, seeds=[0.3, 0.7])
    write_report(build_report(study.study, tmp_path), tmp_path)
    [plot] = offline_plots(browser, tmp_path / "frontier.html")
    points = {(x, y) for trace in plot["traces"] for x, y in zip(trace["x"], trace["y"], strict=True)}
    assert {(2e12, 0.5), (1e12, 0.25), (4e12, 0.5)} <= points
    assert plot["drawn"] >= 3
    frontier, bought, curves = offline_plots(browser, tmp_path / "report.html", charts=3)
    assert frontier["traces"] == plot["traces"]
    assert bought["drawn"] == 3
    of_trials = [trace for trace in curves["traces"] if trace["name"].startswith("N = ")]
    assert sum(len(trace["x"]) for trace in of_trials) == 6  # two validations each
    assert [trace["name"] for trace in curves["traces"][-2:]] == ["majority answer 0.125", "uniform guess 0.062"]


def contrast(one: str, other: str) -> float:
    """Of two CSS colours, as WCAG 2 defines it."""

    def luminance(color: str) -> float:
        shares = [int(x) / 255 for x in re.findall(r"\d+", color)[:3]]
        linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in shares]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted(map(luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("name", ["report.html", "frontier.html"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", [WIDE, PHONE], ids=["wide", "phone"])
def test_pages_can_be_read_by_day_by_night_and_on_a_phone(
    browser: "Browser", folder: Path, tmp_path: Path, screen: dict[str, Any], scheme: str, name: str
) -> None:
    with opened(browser, folder / name, color_scheme=scheme, **screen) as page:
        colors, width = page.evaluate(COLORS), screen["viewport"]["width"]
        assert colors["page"] == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(22, 24, 29)")
        assert len(colors["marks"]) >= 5  # four N and the frontier
        assert {text: c for text in colors["texts"] if (c := contrast(text, colors["page"])) < 4.5} == {}
        assert {mark: c for mark in colors["marks"] if (c := contrast(mark, colors["page"])) < 3} == {}
        assert page.evaluate("[document.documentElement.scrollWidth, innerWidth]") == [width, width]
        for place in page.evaluate(PLACES):
            assert place["legend"] is None or place["legend"][1] >= place["axis"][3] - 1  # below
            for box in (place["ground"], place["axis"], *([place["legend"]] if place["legend"] else [])):
                assert box[0] >= 0 and box[2] <= width + 1
            assert place["drag"] == (False if screen is PHONE else "zoom")
        file = tmp_path / "page.png"
        page.screenshot(path=file, full_page=True)
        assert file.stat().st_size > 20_000
        shapes = "plot => new Set([...plot.querySelectorAll('.points path')].map(p => p.getAttribute('d'))).size"
        assert page.locator(".js-plotly-plot").first.evaluate(shapes) >= 5  # of four N, and crosses


def test_facts_wrap_on_a_phone(browser: "Browser", folder: Path) -> None:
    """A commit's hash is one long word, and the widest thing of the table."""
    with opened(browser, folder / "report.html", **PHONE) as page:
        facts = page.locator(".wide").first
        assert "objectives" in facts.inner_text()
        facts.evaluate("one => { one.querySelector('td:last-child').textContent = '6766d4ab'.repeat(10); }")
        assert facts.evaluate("one => one.scrollWidth <= one.clientWidth"), "nothing is cut at the edge"


def test_the_table_of_trials_sorts(browser: "Browser", folder: Path) -> None:
    with opened(browser, folder / "report.html", **WIDE) as page:
        table = page.locator("#trials")
        rows = table.locator("tbody tr")
        shown = table.locator("tbody tr:visible")
        column = "rows => rows.map(row => row.cells[2].dataset.value ?? '')"
        assert (rows.count(), shown.count()) == (125, 100)
        title = table.get_by_role("button", name="exact match")
        title.click()
        values = rows.evaluate_all(column)
        assert [float(x) for x in values[:122]] == sorted(float(x) for x in values[:122]) and values[122:] == [""] * 3
        title.click()
        values = rows.evaluate_all(column)
        assert float(values[0]) == 0.95 and values[122:] == [""] * 3
        assert table.locator("[aria-sort]").count() == 1
        table.get_by_role("button", name="state").click()
        assert rows.first.locator("td").nth(1).inner_text() == "complete"
        page.get_by_role("button", name="show all 125 rows").click()
        assert shown.count() == 125


def test_a_page_that_asks_for_its_library_is_found_out(browser: "Browser", tmp_path: Path) -> None:
    import plotly.graph_objects as go

    file = tmp_path / "frontier.html"
    go.Figure(go.Scatter(x=[1.0], y=[0.1], mode="markers")).write_html(file, include_plotlyjs="cdn")
    with pytest.raises(AssertionError, match="did not come"):
        offline_plots(browser, file, seconds=3)
