"""MLflow's pages of an experiment and of a run, as a person sees them in a real browser."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from sleep_lightning.runs.directory import RunDirectory
from sleep_lightning.tracking.mlflow_views import RUNS_VIEW, ViewPage
from tests.browser import SECONDS, mlflow_server, plots
from tests.cli.cli import fit_arguments, run

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Served:
    """A run, and the server of its store."""

    run_id: str
    host: str

    def run_page(self, tab: str = "") -> str:
        return f"http://{self.host}/#/experiments/1/runs/{self.run_id}{tab}"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("recorded")
    done = run(folder, *fit_arguments("run", 10))  # a process of its own, whose program MLflow shows
    assert done.returncode == 0, done.stderr
    run_id = RunDirectory(folder / "run").mlflow_run_id
    assert run_id is not None
    with mlflow_server(f"sqlite:///{folder}/mlflow.db", folder) as host:
        yield Served(run_id, host)


@contextmanager
def opened(browser: "Browser", url: str, *texts: str) -> Iterator["Page"]:
    """A page, once it shows these texts."""
    page = browser.new_page(viewport={"width": 1500, "height": 1200})
    page.set_default_timeout(1000 * SECONDS)
    page.goto(url)
    for text in texts:
        page.wait_for_function("text => document.body.innerText.includes(text)", arg=text)
    try:
        yield page
    finally:
        page.close()


def test_the_table_of_runs_has_exact_match_first(browser: "Browser", served: Served) -> None:
    link = ViewPage.of(f"http://{served.host}", "1", RUNS_VIEW)
    with opened(browser, link.url, "val/exact_match") as page:
        assert "/experiments/1/runs" in page.url, "not the overview of GenAI"
        page.wait_for_function("document.querySelectorAll('.ag-header-cell[col-id]').length > 5")
        cells = page.query_selector_all(".ag-header-cell[col-id]")
        found = sorted((box["x"], cell.inner_text()) for cell in cells if (box := cell.bounding_box()))
        names = [name.strip() for _, name in found if "/" in name]
        assert names[:3] == ["val/exact_match", "val/majority_exact_match", "val/uniform_exact_match"]


def test_a_run_says_who_ran_what_on_which_data(browser: "Browser", served: Served) -> None:
    with opened(browser, served.run_page(), "sleep-lightning fit", "Training") as page:
        text = page.inner_text("body")
        assert "rule110 (" in text and "Created by" in text, text


def test_no_chart_of_a_run_is_a_single_point(browser: "Browser", served: Served) -> None:
    for tab, shown in (("/model-metrics", "val"), ("/system-metrics", "system")):
        with opened(browser, served.run_page(tab)) as page:
            found = plots(page, lambda found: bool(found) and all(p["traces"] for p in found))
            sizes = [len(trace["x"]) for plot in found for trace in plot["traces"]]
            assert sizes and min(sizes) > 1, (shown, sizes)


def test_the_console_log_and_the_best_checkpoint_are_artifacts(browser: "Browser", served: Served) -> None:
    with opened(browser, served.run_page("/artifacts"), "console.log", "checkpoints") as page:
        page.get_by_text("console.log", exact=True).first.click()
        page.get_by_text("python -m sleep_lightning test --checkpoint run").first.wait_for()
