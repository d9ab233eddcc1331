"""What a sweep leaves, opened in a real browser without a network."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sleep_lightning.sweep.report.content import build_report
from sleep_lightning.sweep.report.files import write_report
from tests.browser import offline_plots
from tests.sweep.studies import ToldStudy

if TYPE_CHECKING:
    from playwright.sync_api import Browser


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
    assert sum(len(trace["x"]) for trace in curves["traces"]) == 6  # two validations each


def test_a_page_that_asks_for_its_library_is_found_out(browser: "Browser", tmp_path: Path) -> None:
    import plotly.graph_objects as go

    file = tmp_path / "frontier.html"
    go.Figure(go.Scatter(x=[1.0], y=[0.1], mode="markers")).write_html(file, include_plotlyjs="cdn")
    with pytest.raises(AssertionError, match="did not come"):
        offline_plots(browser, file, seconds=3)
