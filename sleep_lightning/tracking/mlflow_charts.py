"""MLflow's chart page, configured for a sweep: one link opens its charts.

Its layout is a saved view (``mlflow_views``). Colours and lines are runs' own: MLflow colours a run by a tag, and draws
the frontier and the baselines as the curves of a run made for that.
"""

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sleep_lightning.redaction import one_line
from sleep_lightning.tracking.figures.frontier_plot import depth_styles
from sleep_lightning.tracking.mlflow_frontier import FRONTIER, Lines, record_lines
from sleep_lightning.tracking.mlflow_store import check_reachable, open_client, store_errors
from sleep_lightning.tracking.mlflow_views import ACCURACY, COST, DEPTH, as_view, view_tag

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

MOST_RUNS = 1000
"""Page size of MLflow's search for runs."""
CURVES = "Learning curves, frontier and baselines"
"""Title of their chart."""
COLOR = "mlflow.runColor"
"""Tag of a run's colour in lists and charts."""


def share_key(parent_run_id: str) -> str:
    """Key of a sweep's view."""
    return f"sweep-{parent_run_id}"


def preset_chart_page(
    uri: str,
    parent_run_id: str,
    varying: Mapping[str, Sequence[object]],
    name: str = "sweep",
    axes: tuple[str, str] = (COST, ACCURACY),
    lines: Lines | None = None,
) -> bool:
    """Configure the page of a sweep: value over cost, learning curves with the frontier and the baselines, value over N
    and cost, and all varied keys side by side.

    The charts show the sweep's child runs, at first the 100 best, and new ones as they arrive; each has the
    colour of its N. Another call only adds what MLflow needs for runs that are new, and a new frontier.

    Args:
        uri: tracking URI.
        parent_run_id: MLflow run of the sweep.
        varying: keys that vary, each with its values or the ends of its range.
        name: of the sweep.
        axes: metrics of the x- and the y-axis.
        lines: its frontier and baselines on these axes; None: there are none yet.

    Returns:
        Whether the store took it; if not, there is a warning.
    """
    mixed = [key for key, values in varying.items() if len({_is_number(value) for value in values}) > 1]
    shown = [_text_key(key) if key in mixed else key for key in varying]
    try:
        check_reachable(uri)
        client = open_client(uri)
        parent = client.get_run(parent_run_id)
        experiment = parent.info.experiment_id
        view = as_view(f"Sweep: {name}", _view_state(parent_run_id, shown, axes, lines))
        client.set_experiment_tag(experiment, view_tag(share_key(parent_run_id)), view)
        children = list(_children(client, experiment, parent_run_id))
        _color(client, [run for run in children if FRONTIER not in run.data.tags])
        _record_texts(client, children, mixed)
        if lines is not None:
            record_lines(client, parent, lines, axes[0], [run for run in children if FRONTIER in run.data.tags])
    except store_errors() as error:
        warnings.warn(f"MLflow rejected the charts of the sweep: {one_line(error)}", stacklevel=2)
        return False
    return True


def _view_state(parent_run_id: str, keys: Sequence[str], axes: tuple[str, str], lines: Lines | None) -> dict[str, Any]:
    """The page's layout. Without the filter, child runs are folded under their parent and the charts are empty."""
    cost, value = ({"key": metric, "type": "METRIC"} for metric in axes)
    depth = {"key": DEPTH, "type": "PARAM"}
    metrics = [axes[1], *([] if lines is None else lines.metrics)]
    over_cost = {"xAxisKey": "metric", "selectedXAxisMetricKey": axes[0], "useGlobalXaxisKey": False}
    curves: dict[str, Any] = {
        "metricKey": axes[1],
        "selectedMetricKeys": metrics,
        "displayPoints": False,
        "lineSmoothness": 0,
    } | over_cost
    charts = [
        _chart("accuracy-cost", "LINE", displayName=CURVES, runsCountToCompare=MOST_RUNS, **curves),
        _chart("accuracy-cost", "SCATTER", xaxis=cost, yaxis=value, runsCountToCompare=MOST_RUNS),
        _chart("accuracy-cost", "CONTOUR", xaxis=depth, yaxis=cost, zaxis=value, runsCountToCompare=MOST_RUNS),
        # coloured by the last metric
        _chart("points", "PARALLEL", selectedParams=list(keys), selectedMetrics=list(axes), showAllRuns=True),
    ]
    columns = [f"metrics.`{axes[1]}`", "metrics.`cost/train_flops`", *(f"params.`{key}`" for key in keys)]
    return {
        "searchFilter": f"tags.`mlflow.parentRunId` = '{parent_run_id}'",
        "orderByKey": f"metrics.`{axes[1]}`",
        "orderByAsc": False,
        "selectedColumns": columns,
        "columnOrder": columns,
        "runsHiddenMode": "SHOW_ALL",
        "runListHidden": True,  # one click away; the charts need the space
        "hideEmptyCharts": False,
        "isAccordionReordered": True,  # otherwise MLflow puts its own sections, one a family of metrics, before ours
        "compareRunSections": [
            _section("accuracy-cost", "Sweep: accuracy and cost", columns=2),
            _section("points", "Sweep: what varied", columns=1),
        ],
        "compareRunCharts": charts,
    }


def _chart(section: str, kind: str, **settings: object) -> dict[str, object]:
    flags = {"deleted": False, "isGenerated": False}
    return {"uuid": f"sweep-{kind.lower()}", "type": kind, "metricSectionId": section} | flags | settings


def _section(uuid: str, name: str, columns: int) -> dict[str, object]:
    flags = {"display": True, "isReordered": True, "deleted": False, "isGenerated": False}
    return {"uuid": uuid, "name": name, "columns": columns, "cardHeight": 400} | flags


def _children(client: "MlflowClient", experiment: str, parent_run_id: str) -> "Iterator[Run]":
    token: str | None = None
    while token is None or token:
        page = client.search_runs(
            [experiment], f"tags.`mlflow.parentRunId` = '{parent_run_id}'", max_results=MOST_RUNS, page_token=token
        )
        yield from page
        token = page.token or ""


def _color(client: "MlflowClient", children: "Sequence[Run]") -> None:
    """Give each run the colour of its N: MLflow has one of its own for each run."""
    passes = {run.info.run_id: int(run.data.params[DEPTH]) for run in children if DEPTH in run.data.params}
    colors = {n: style.color for n, style in depth_styles(passes.values()).items()}
    for run in children:
        n = passes.get(run.info.run_id)
        if n is not None and run.data.tags.get(COLOR) != colors[n]:
            client.set_tag(run.info.run_id, COLOR, colors[n])


def _record_texts(client: "MlflowClient", children: "Sequence[Run]", keys: Sequence[str]) -> None:
    """Record parameters that mix numbers with words or null a second time, as text only: of a mixed column MLflow's
    parallel coordinates show one kind and drop the runs with the other."""
    from mlflow.entities import Param

    for run in children:
        params = run.data.params
        texts = {_text_key(key): f"= {params[key]}" for key in keys if key in params}
        if new := [Param(key, text) for key, text in texts.items() if key not in params]:
            client.log_batch(run.info.run_id, params=new)


def _text_key(key: str) -> str:
    return f"text/{key}"  # a crowded axis shows the end of a name


def _is_number(value: object) -> bool:
    """Whether MLflow's page treats a recorded parameter as a number."""
    try:
        return math.isfinite(float(str(value)))
    except ValueError:
        return False
