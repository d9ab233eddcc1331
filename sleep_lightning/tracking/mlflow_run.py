"""The run in MLflow's store: created, or taken up again, in an experiment that opens as a person expects."""

import getpass
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast
from urllib.parse import quote, unquote

from sleep_lightning.config import anchored_uri, sqlite_file
from sleep_lightning.redaction import one_line, redact, redact_uri
from sleep_lightning.runs.space import DiskFull
from sleep_lightning.tracking.mlflow_store import alone, check_reachable, create_whole, open_client, store_errors
from sleep_lightning.tracking.mlflow_views import RUNS_VIEW, runs_view, view_tag

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

KIND, TRAINING = "mlflow.experimentKind", "custom_model_development"
"""Tag of an experiment, and its value for MLflow's machine-learning view. The page of MLflow 3.17 goes by its switch
instead, which links set (``mlflow_views.WORKFLOW``)."""


class OpenRun(NamedTuple):
    """A client of the store, the id of the run in it, and that of its experiment."""

    client: "MlflowClient"
    run_id: str
    experiment_id: str


def open_run(uri: str, experiment: str, run_name: str | None, run_id: str | None, *, running: bool = True) -> OpenRun:
    """The run.

    Args:
        uri: tracking URI.
        experiment: name of the experiment, created if it does not exist.
        run_name: name of a new run.
        run_id: of a run to be resumed; None for a new one.
        running: it is from now on; else it keeps the status it ended with.

    Raises:
        ValueError: the store cannot be used, or ``run_id`` is not in it.
    """
    file = sqlite_file(uri)
    if run_id is not None and file is not None and not file.exists():  # MLflow would create an empty one
        raise ValueError(
            f"tracking.uri={redact_uri(uri)!r}: there is no file {file.absolute()}, though the run is "
            f"recorded in it; say where it lies (tracking.uri=sqlite:////...), or set tracking.enabled=false"
        )
    try:
        check_reachable(uri)
        with alone(uri):
            create_whole(anchored_uri(uri))
            client = open_client(anchored_uri(uri))  # MLflow keeps open stores by their URI
            if run_id is not None:
                if running:
                    client.update_run(run_id, status="RUNNING")
                return OpenRun(client, run_id, client.get_run(run_id).info.experiment_id)
            experiment_id = _experiment(client, uri, experiment)
        created = client.create_run(experiment_id, run_name=run_name, tags=source_tags())
        return OpenRun(client, created.info.run_id, experiment_id)
    except store_errors() as error:
        if file is not None and (full := DiskFull.of_sqlite(file, error)):
            raise ValueError(
                f"{full.what}; free some space, or set tracking.required=false (it is sent later)"
            ) from error
        raise ValueError(
            f"tracking.uri={redact_uri(uri)!r} cannot be used: {one_line(error)}; "
            f"check it, or set tracking.required=false (it is sent later) or tracking.enabled=false"
        ) from error


def _experiment(client: "MlflowClient", uri: str, name: str) -> str:
    """Its id; created if it does not exist. One without a kind, of an earlier version, is given one."""
    found = client.get_experiment_by_name(name)
    wanted = {KIND: TRAINING, view_tag(RUNS_VIEW): runs_view()}
    if found is None:
        return cast(str, client.create_experiment(name, artifact_location=_artifacts(uri, name), tags=wanted))
    for key, value in wanted.items():
        if key not in found.tags:
            client.set_experiment_tag(found.experiment_id, key, value)
    return cast(str, found.experiment_id)


def _artifacts(uri: str, experiment: str) -> str | None:
    """Artifacts go to ``mlruns/`` of the current directory, unless the store is a server, which decides.

    MLflow decodes a path like ``50%25``: there the place is given as a URI.
    """
    place = Path("mlruns").absolute() / quote(experiment, safe="")
    decoded = sqlite_file(uri) is not None and unquote(str(place.parent)) != str(place.parent)
    return place.as_uri() if decoded else None


def source_tags() -> dict[str, str]:
    """MLflow's own fields of who runs what: its user, and the program with its command, or a user's script."""
    program = Path(sys.argv[0] if sys.argv else "")
    name = program.parent.name if program.name == "__main__.py" else program.name
    if name.replace("_", "-") == "sleep-lightning":
        source = " ".join(["sleep-lightning", *sys.argv[1:2]])
    else:
        source = str(program) if name else "<console>"
    tags = {"mlflow.source.name": source, "mlflow.source.type": "LOCAL", "mlflow.user": _user()}
    return {key: redact(value) for key, value in tags.items()}


def commit_tags(commit: str) -> dict[str, str]:
    """MLflow's own fields of the code's version.

    Args:
        commit: as ``git_commit`` says it.
    """
    if commit == "unknown":
        return {}
    whole = commit.removesuffix("-dirty")
    return {"mlflow.source.git.commit": whole, "mlflow.source.git.dirty": str(whole != commit)}


def _user() -> str:
    from mlflow.utils.credentials import read_mlflow_creds

    try:
        return read_mlflow_creds().username or getpass.getuser()
    except (KeyError, OSError):  # a container may run as a user without a name
        return "unknown"
