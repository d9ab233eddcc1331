"""Keeps a sweep's report up to date while it runs, in its folder and in its MLflow run."""

import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from math import log10
from pathlib import Path
from typing import Any

import optuna

from sleep_lightning.sweep.measures import metric_of
from sleep_lightning.sweep.mlflow_runs import RunImport
from sleep_lightning.sweep.report.content import Report, build_report
from sleep_lightning.sweep.report.files import write_report
from sleep_lightning.sweep.report.origin import CHARTS
from sleep_lightning.sweep.spec import Sweep
from sleep_lightning.tracking.mlflow_charts import preset_chart_page, share_key
from sleep_lightning.tracking.mlflow_frontier import Lines
from sleep_lightning.tracking.mlflow_logger import PATIENCE, MLflowRun
from sleep_lightning.tracking.mlflow_run import commit_tags
from sleep_lightning.tracking.mlflow_views import ACCURACY, COST, ViewPage

SHARE = 0.05
"""Largest share of the time spent on reports: drawing blocks the supervisor."""


class Publisher:
    """Reports on a study. Errors are warnings: a report must not end the sweep.

    Args:
        study: what is reported on.
        folder: of the sweep.
        logger: its MLflow run, if it has one.
        varying: keys that vary, with their values: for MLflow's chart page.
        every_seconds: shortest time between two reports.
        unrecorded: finished runs that MLflow lacks; None: they are not looked for.
    """

    def __init__(
        self,
        study: optuna.Study,
        folder: Path,
        logger: MLflowRun | None,
        varying: Mapping[str, Sequence[object]],
        every_seconds: float = 30.0,
        unrecorded: RunImport | None = None,
    ) -> None:
        self.study, self.folder, self.logger, self.varying = study, folder, logger, varying
        self.every_seconds, self.unrecorded = every_seconds, unrecorded
        self._next = time.monotonic() + every_seconds
        self._next_metrics = 0.0
        self._presetting: threading.Thread | None = None
        self._logged: tuple[int, dict[str, float]] | None = None

    def begin(self, sweep: Sweep, commit: str = "unknown") -> None:
        """Log the spec as parameters and tags of the MLflow run, and prepare its charts."""
        if self.logger is None:
            return
        self.logger.log_hyperparams(parameters(sweep))
        self.logger.set_tags(commit_tags(commit))
        self.logger.set_tags({"sweep.name": sweep.spec.name, "sweep.folder": str(self.folder.absolute())})
        self.preset_charts()

    @property
    def charts(self) -> ViewPage | None:
        """MLflow's chart page; None without one. Asks no store."""
        if self.logger is None or self.logger.run_id is None or self.logger.experiment_id is None:
            return None
        return ViewPage.of(self.logger.uri, self.logger.experiment_id, share_key(self.logger.run_id), "CHART")

    def preset_charts(self, report: Report | None = None) -> None:
        """Set the chart page up for the existing runs, in a thread of its own: the store may take long to answer, and
        the sweep does not wait for it. While one is being set up, no other is."""
        if self.logger is None or self.logger.run_id is None or (self._presetting and self._presetting.is_alive()):
            return
        if (page := self.charts) is not None and self.study.user_attrs.get(CHARTS) != vars(page):
            self.study.set_user_attr(CHARTS, vars(page))
        axes, lines = (COST, ACCURACY), None
        if report is not None and report.finished:
            axes, lines = chart_axes(report), chart_lines(report)
        about = (self.logger.uri, self.logger.run_id, self.varying, self.study.study_name, axes, lines)
        self._presetting = threading.Thread(target=self._set_up, args=about, name="mlflow-charts", daemon=True)
        self._presetting.start()

    def _set_up(self, uri: str, run_id: str, *about: Any) -> None:
        if self.unrecorded is not None and self.unrecorded.queue(run_id):
            self.unrecorded.send()
        preset_chart_page(uri, run_id, *about)

    def close(self) -> None:
        """Wait for the chart page, as long as for any request to MLflow."""
        if self._presetting is not None:
            self._presetting.join(PATIENCE)

    def refresh(self) -> None:
        """After a trial ended: log metrics, and write files, if the last ones are old enough for what they took."""
        if (began := time.monotonic()) >= self._next_metrics and self.logger is not None:
            self._report()
            self._next_metrics = began + (time.monotonic() - began) / SHARE
        if time.monotonic() >= self._next:
            self.publish()

    def publish(self) -> None:
        """Write the files now, and copy them into the MLflow run."""
        started = time.monotonic()
        self.preset_charts(self._report(write=True))
        took = time.monotonic() - started
        self._next = started + max(self.every_seconds, took / SHARE)

    def _report(self, *, write: bool = False) -> Report | None:
        """Log the report's metrics and, if asked, write its files; None, with a warning, if anything fails: hours of
        training are worth more than a picture of them."""
        report = None
        try:
            report = build_report(self.study, self.folder)
            if self.logger is not None:
                self._log_metrics(report)
            for file in write_report(report, self.folder) if write else ():
                if self.logger is not None:
                    self.logger.log_artifact(file)
        except Exception as error:
            warnings.warn(f"{self.folder}: no report, {type(error).__name__}: {error}", stacklevel=3)
        return report

    def _log_metrics(self, report: Report) -> None:
        assert self.logger is not None
        metrics = {"sweep/hypervolume": report.gain(report.finished), "sweep/flops_spent": report.flops_spent}
        logged = (report.states["complete"] + report.states["pruned"], metrics)
        if logged != self._logged:
            self.logger.log_metrics(metrics, logged[0])
            self._logged = logged


def chart_axes(report: Report) -> tuple[str, str]:
    """Metrics of the x- and the y-axis of MLflow's charts, whose axes are linear."""
    return COST if report.cost == "train_flops" else metric_of(report.cost), metric_of(report.value)


def chart_lines(report: Report) -> Lines:
    """The frontier and the baselines on these axes."""

    def x(cost: float) -> float:
        return log10(cost) if report.cost == "train_flops" else cost

    costs = [x(trial.result[report.cost]) for trial in report.finished]
    edge = report.best if len(report.objectives) > 1 else []
    return Lines(
        min(costs),
        max(costs),
        sorted((x(trial.result[report.cost]), trial.result[report.value]) for trial in edge),
        {label.replace(" ", "_"): high for label, (_, high) in report.baselines.items()},
    )


def parameters(sweep: Sweep) -> dict[str, Any]:
    """The spec as flat parameters: ``sweep.<key>``, and a line for each key that varies."""
    flat: dict[str, Any] = {}
    for key, value in sweep.written_spec().items():
        if isinstance(value, dict):
            flat |= {f"sweep.{key}.{name}": _in_words(x) for name, x in value.items()}
        else:
            flat[f"sweep.{key}"] = [_unescaped(one) for one in value] if isinstance(value, list) else value
    return flat


def _unescaped(value: Any) -> Any:
    """A reference in a change of the base, which a YAML of the spec would have to escape."""
    return value.replace(r"\${", "${") if isinstance(value, str) else value


def _in_words(value: Any) -> Any:
    """``choices=[1, 2], when={...}``: of a parameter of the space, what is set."""
    if not isinstance(value, dict):
        return value
    return ", ".join(f"{key}={x}" for key, x in value.items() if x not in (None, False, {}))
