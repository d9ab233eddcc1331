"""MLflow's chart page, configured for a sweep: one link opens its charts.

The page reads its layout from a tag of the experiment, ``mlflow.sharedViewState.<key>``, which MLflow writes when a
user shares a view. The tag is not documented: a browser test checks it, and ``mlflow<4`` is required.
"""

import json
import math
import shlex
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sleep_lightning.redaction import one_line, redact_uri
from sleep_lightning.tracking.mlflow_store import check_reachable, open_client, store_errors

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

ACCURACY, COST, DEPTH = "final/exact_match", "cost/log10_train_flops", "sleep.n_passes"
LOCAL_SERVER = "127.0.0.1:5000"
MOST_RUNS = 1000
"""Page size of MLflow's search for runs."""


@dataclass(frozen=True)
class ChartPage:
    """Where the charts are.

    Attributes:
        url: to open in a browser.
        server: command that must run for it if the store is a database; None if it is a server.
    """

    url: str
    server: str | None

    @classmethod
    def of(cls, uri: str, experiment_id: str, share_key: str) -> "ChartPage":
        """The page of an experiment in the store at ``uri``, without its password."""
        parts = urlsplit(uri)
        remote = parts.scheme in ("http", "https")
        host = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"
        runs = f"{host if remote else f'http://{LOCAL_SERVER}'}/#/experiments/{experiment_id}/runs"
        port = LOCAL_SERVER.partition(":")[2]
        server = None if remote else f"mlflow server --backend-store-uri {shlex.quote(redact_uri(uri))} --port {port}"
        return cls(f"{runs}?viewStateShareKey={share_key}&compareRunsMode=CHART", server)

    def __str__(self) -> str:
        return self.url if self.server is None else f"{self.url} (while this runs: {self.server})"


def preset_chart_page(uri: str, parent_run_id: str, varying: Mapping[str, Sequence[object]]) -> ChartPage | None:
    """Configure the page of a sweep: accuracy over cost, accuracy over N and cost, and all varied keys side by side.

    The charts show the sweep's child runs, at first the 100 most accurate, and new ones as they arrive. Another call
    only adds what MLflow needs for runs that are new (``_record_texts``).

    Args:
        uri: tracking URI.
        parent_run_id: MLflow run of the sweep.
        varying: keys that vary, each with its values or the ends of its range.

    Returns:
        The page; None, with a warning, if the store rejects it.
    """
    mixed = [key for key, values in varying.items() if len({_is_number(value) for value in values}) > 1]
    axes = [_text_key(key) if key in mixed else key for key in varying]
    share_key = f"sweep-{parent_run_id}"
    try:
        check_reachable(uri)
        client = open_client(uri)
        experiment = client.get_run(parent_run_id).info.experiment_id
        view = json.dumps(_view_state(parent_run_id, axes))
        client.set_experiment_tag(experiment, f"mlflow.sharedViewState.{share_key}", view)
        if mixed:
            _record_texts(client, experiment, parent_run_id, mixed)
    except store_errors() as error:
        warnings.warn(f"MLflow rejected the charts of the sweep: {one_line(error)}", stacklevel=2)
        return None
    return ChartPage.of(uri, experiment, share_key)


def _view_state(parent_run_id: str, axes: Sequence[str]) -> dict[str, Any]:
    """The page's layout. Without the filter, child runs are folded under their parent and the charts are empty."""
    accuracy, cost = {"key": ACCURACY, "type": "METRIC"}, {"key": COST, "type": "METRIC"}
    depth = {"key": DEPTH, "type": "PARAM"}
    charts = [
        _chart("accuracy-cost", "SCATTER", xaxis=cost, yaxis=accuracy, runsCountToCompare=MOST_RUNS),
        _chart("accuracy-cost", "CONTOUR", xaxis=depth, yaxis=cost, zaxis=accuracy, runsCountToCompare=MOST_RUNS),
        # coloured by the last metric
        _chart("points", "PARALLEL", selectedParams=list(axes), selectedMetrics=[COST, ACCURACY], showAllRuns=True),
    ]
    return {
        "searchFilter": f"tags.`mlflow.parentRunId` = '{parent_run_id}'",
        "orderByKey": f"metrics.`{ACCURACY}`",
        "orderByAsc": False,
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


def _record_texts(client: "MlflowClient", experiment: str, parent_run_id: str, keys: Sequence[str]) -> None:
    """Record parameters that mix numbers with words or null a second time, as text only: of a mixed column MLflow's
    parallel coordinates show one kind and drop the runs with the other."""
    from mlflow.entities import Param

    children = f"tags.`mlflow.parentRunId` = '{parent_run_id}'"
    token: str | None = None
    while token is None or token:
        page = client.search_runs([experiment], children, max_results=MOST_RUNS, page_token=token)
        for run in page:
            params = run.data.params
            texts = {_text_key(key): f"= {params[key]}" for key in keys if key in params}
            if new := [Param(key, text) for key, text in texts.items() if key not in params]:
                client.log_batch(run.info.run_id, params=new)
        token = page.token or ""


def _text_key(key: str) -> str:
    return f"text/{key}"  # a crowded axis shows the end of a name


def _is_number(value: object) -> bool:
    """Whether MLflow's page treats a recorded parameter as a number."""
    try:
        return math.isfinite(float(str(value)))
    except ValueError:
        return False
