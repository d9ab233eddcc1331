"""Saved views of MLflow's page of an experiment: its columns, charts and filters.

MLflow keeps a view in a tag of the experiment when a user saves or shares one. The tag is not documented: browser tests
check it, and ``mlflow<4`` is required.
"""

import json
import shlex
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from sleep_lightning.redaction import redact_uri

ACCURACY, COST, DEPTH = "val/exact_match", "cost/log10_train_flops", "sleep.n_passes"
BASELINES = ("val/majority_exact_match", "val/uniform_exact_match")
WORKFLOW = "machine_learning"
"""In a link: MLflow 3.17 opens its GenAI view unless the link or the browser's own setting says so."""
LOCAL_SERVER = "127.0.0.1:5000"
RUNS_VIEW = "runs"
"""Key of the view of an experiment's runs, in links to it."""


def view_tag(key: str) -> str:
    """The tag of the view with this key."""
    return f"mlflow.sharedViewState.{key}"


def as_view(name: str, state: dict[str, Any]) -> str:
    """The tag's value.

    Args:
        name: shown in the page's list of saved views.
        state: what is set; the rest is as MLflow has it by default.
    """
    return json.dumps({"name": name, "createdAt": 0, "updatedAt": 0, "state": json.dumps(state)})


def runs_view() -> str:
    """The view of all runs: exact match first, its baselines and cost beside it."""
    columns = [f"metrics.`{name}`" for name in (ACCURACY, *BASELINES, "cost/train_flops")]
    columns += [f"params.`{DEPTH}`", "attributes.`Dataset`", "attributes.`Source`"]
    return as_view("Runs: exact match first", {"selectedColumns": columns, "columnOrder": columns})


@dataclass(frozen=True)
class ViewPage:
    """Where a view opens.

    Attributes:
        url: to open in a browser.
        server: command that must run for it if the store is a database; None if it is a server.
    """

    url: str
    server: str | None

    @classmethod
    def of(cls, uri: str, experiment_id: str, key: str, mode: Literal["TABLE", "CHART"] = "TABLE") -> "ViewPage":
        """The view of an experiment in the store at ``uri``, without its password."""
        parts = urlsplit(uri)
        remote = parts.scheme in ("http", "https")
        host = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"
        runs = f"{host if remote else f'http://{LOCAL_SERVER}'}/#/experiments/{experiment_id}/runs"
        port = LOCAL_SERVER.partition(":")[2]
        server = None if remote else f"mlflow server --backend-store-uri {shlex.quote(redact_uri(uri))} --port {port}"
        return cls(f"{runs}?viewStateShareKey={key}&compareRunsMode={mode}&workflowType={WORKFLOW}", server)

    def __str__(self) -> str:
        return self.url if self.server is None else f"{self.url} (while this runs: {self.server})"
