"""MLflow's chart page as a person sees it: our tag, a real server, a real browser."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest

from sleep_lightning.tracking.mlflow_charts import preset_chart_page, share_key
from sleep_lightning.tracking.mlflow_frontier import Lines
from sleep_lightning.tracking.mlflow_logger import MLflowRun
from sleep_lightning.tracking.mlflow_views import RUNS_VIEW, ViewPage, view_tag
from tests.browser import SECONDS, mlflow_server, plots

if TYPE_CHECKING:
    from playwright.sync_api import Browser

VARYING: dict[str, list[object]] = {
    "sleep.n_passes": [1, 2, 4],
    "sleep.grad_passes": [None, 1],
    "model.pattern": ["AG"],
}
POINTS = [(n, 10**cost, n / 5 - cost / 100) for n in (1, 2, 4) for cost in (9, 10, 11)][:8]
"""N, training FLOPs and exact match of the children."""

PARALLEL = """() => {
    const chart = document.querySelector('.parcoords');
    if (!chart?.querySelector('canvas')) return null;
    let node = chart[Object.keys(chart).find(key => key.startsWith('__reactFiber'))];
    while (!node.memoizedProps?.data?.[0]?.uuid) node = node.return;
    return {rows: node.memoizedProps.data, axes: chart.querySelectorAll('.dimension').length};
}"""
"""Lines are painted on a canvas: their values are read from the component that paints them."""


@dataclass(frozen=True)
class Served:
    """A store with a sweep, and the server in front of it."""

    uri: str
    parent: str
    host: str


def record(uri: str, name: str, parent: str | None, n: int, flops: float, accuracy: float) -> str:
    run = MLflowRun(uri, "sweeps", name)
    if parent is not None:
        run.set_tags({"mlflow.parentRunId": parent})
    run.log_hyperparams(
        {"sleep.n_passes": n, "sleep.grad_passes": 1 if n > 2 else None, "model.pattern": "AG", "model.d_model": 64}
    )
    cost = {"cost/train_flops": flops, "cost/log10_train_flops": math.log10(flops)}
    run.log_metrics({"val/exact_match": accuracy} | cost, 100)
    run.end("FINISHED")
    return run.run_id


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("store")
    uri = f"sqlite:///{folder}/mlflow.db"
    parent = record(uri, "sweep", None, 7, 1e12, 0.99)
    for number, (n, flops, accuracy) in enumerate(POINTS):
        record(uri, f"{number:04}-seed0", parent, n, flops, accuracy)
    record(uri, "0000-seed0", "0" * 32, 8, 1e13, 0.98)  # another sweep's
    with mlflow_server(uri, folder) as host:
        yield Served(uri, parent, host)


def rounded(*columns: list[Any]) -> list[tuple[float, ...]]:
    return sorted(tuple(round(float(value), 6) for value in row) for row in zip(*columns, strict=True))


def test_the_three_charts_show_the_children_of_the_sweep_and_nothing_else(browser: "Browser", served: Served) -> None:
    edge = [(9.0, 0.2), (10.0, 0.7)]
    lines = Lines(9.0, 11.0, edge, {"majority_answer": 0.125, "uniform_guess": 0.0625})
    for levels in ({"majority_answer": 0.5}, lines.levels):  # what was drawn first goes
        assert preset_chart_page(served.uri, served.parent, VARYING, "mine", lines=replace(lines, levels=levels))
    window = browser.new_page(viewport={"width": 1500, "height": 2200})  # cards are drawn when in sight
    window.set_default_timeout(1000 * SECONDS)
    page = ViewPage.of(f"http://{served.host}", "1", share_key(served.parent), "CHART")
    window.goto(page.url)
    found = plots(window, lambda found: [plot["drawn"] for plot in found[1:3]] == [len(POINTS)] * 2)
    curves = [trace for trace in found[0]["traces"] if trace["name"].startswith("frontier") and trace["y"]]
    heights = {tuple(trace["y"]) for trace in curves}
    assert heights == {(0.2, 0.2, 0.7, 0.7), (0.125, 0.125), (0.0625, 0.0625)}, "the frontier in steps, the baselines"
    assert all((trace["x"][0], trace["x"][-1]) == (9.0, 11.0) for trace in curves)
    found = found[1:3]  # MLflow's own follow
    scatter, (contour, dots) = found[0]["traces"][0], found[1]["traces"]
    of_passes = {n: {c for c, x in zip(dots["colors"], dots["x"], strict=True) if float(x) == n} for n in (1, 2, 4)}
    assert sorted(map(len, of_passes.values())) == [1, 1, 1] and len(set().union(*of_passes.values())) == 3
    wanted = rounded(*zip(*((math.log10(flops), accuracy) for _, flops, accuracy in POINTS), strict=True))
    assert rounded(scatter["x"], scatter["y"]) == wanted
    assert found[0]["axes"] == ["cost/log10_train_flops", "val/exact_match"]
    wanted = rounded(*zip(*((n, math.log10(flops), accuracy) for n, flops, accuracy in POINTS), strict=True))
    assert contour["type"] == "contour"
    assert rounded(contour["x"], contour["y"], contour["z"]) == wanted
    assert len(dots["x"]) == len(POINTS)
    window.wait_for_function(PARALLEL)
    parallel = window.evaluate(PARALLEL)
    rows = parallel["rows"]
    keys = ["sleep.n_passes", "cost/log10_train_flops", "val/exact_match"]
    assert rounded(*([row[key] for row in rows] for key in keys)) == wanted
    assert sorted(row["text/sleep.grad_passes"] for row in rows) == ["= 1"] * 2 + ["= None"] * 6
    assert parallel["axes"] == 5
    window.close()


@pytest.mark.process
def test_refreshing_leaves_one_tag_for_a_view(served: Served) -> None:
    from mlflow.tracking import MlflowClient

    assert all(preset_chart_page(f"http://{served.host}", served.parent, VARYING) for _ in range(2))
    tags = MlflowClient(served.uri).get_experiment("1").tags
    assert sorted(key for key in tags if "View" in key) == sorted(
        view_tag(key) for key in (RUNS_VIEW, share_key(served.parent))
    )


def test_the_link_holds_no_password_and_says_what_to_start() -> None:
    page = ViewPage.of("postgresql://me:s3cret@db/x", "3", "k", "CHART")
    assert (
        page.url
        == "http://127.0.0.1:5000/#/experiments/3/runs?viewStateShareKey=k&compareRunsMode=CHART&workflowType=machine_learning"
    )
    assert page.server == "mlflow server --backend-store-uri 'postgresql://me:***@db/x' --port 5000"
    assert page.server in str(page)
    behind = ViewPage.of("https://me:s3cret@host:8443/mlflow/", "3", "k")
    assert behind.url.startswith("https://host:8443/mlflow/#/experiments/3/runs?")


def test_a_store_that_is_gone_stops_nothing() -> None:
    with pytest.warns(UserWarning, match="rejected the charts") as caught:
        assert not preset_chart_page("postgresql://me:s3cret@127.0.0.1:1/x", "0" * 32, VARYING)
    assert "s3cret" not in str(caught[0].message)
