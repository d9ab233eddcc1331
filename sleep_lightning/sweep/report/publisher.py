"""Keeps a sweep's report up to date while it runs, in its folder and in its MLflow run."""

import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna

from sleep_lightning.sweep.report.content import Report, build_report
from sleep_lightning.sweep.report.files import write_report
from sleep_lightning.sweep.report.origin import CHARTS
from sleep_lightning.sweep.spec import Sweep
from sleep_lightning.tracking.mlflow_charts import ChartPage, preset_chart_page
from sleep_lightning.tracking.mlflow_logger import MLflowRun

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
    """

    def __init__(
        self,
        study: optuna.Study,
        folder: Path,
        logger: MLflowRun | None,
        varying: Mapping[str, Sequence[object]],
        every_seconds: float = 30.0,
    ) -> None:
        self.study, self.folder, self.logger, self.varying = study, folder, logger, varying
        self.every_seconds = every_seconds
        self._next = time.monotonic() + every_seconds
        self._next_metrics = 0.0
        self._logged: tuple[int, dict[str, float]] | None = None

    def begin(self, sweep: Sweep) -> None:
        """Log the spec as parameters and tags of the MLflow run."""
        if self.logger is None:
            return
        self.logger.log_hyperparams(parameters(sweep))
        self.logger.set_tags({"sweep.name": sweep.spec.name, "sweep.folder": str(self.folder.absolute())})

    def preset_charts(self) -> ChartPage | None:
        """MLflow's chart page, set up for the existing runs; None without one."""
        if self.logger is None or self.logger.run_id is None:
            return None
        page = preset_chart_page(self.logger.uri, self.logger.run_id, self.varying)
        if page is not None and self.study.user_attrs.get(CHARTS) != vars(page):
            self.study.set_user_attr(CHARTS, vars(page))
        return page

    def refresh(self) -> None:
        """After a trial ended: log metrics, and write files, if the last ones are old enough for what they took."""
        if (began := time.monotonic()) >= self._next_metrics and self.logger is not None:
            self._log_metrics(build_report(self.study, self.folder))
            self._next_metrics = began + (time.monotonic() - began) / SHARE
        if time.monotonic() >= self._next:
            self.publish()

    def publish(self) -> None:
        """Write the files now, and copy them into the MLflow run."""
        started = time.monotonic()
        try:
            report = build_report(self.study, self.folder)
            if self.logger is not None:
                self._log_metrics(report)
            files = write_report(report, self.folder)
        except Exception as error:  # hours of training are worth more than a picture of them
            warnings.warn(f"{self.folder}: no report, {type(error).__name__}: {error}", stacklevel=2)
            files = []
        if self.logger is not None:
            for file in files:
                self.logger.log_artifact(file)
        self.preset_charts()
        took = time.monotonic() - started
        self._next = started + max(self.every_seconds, took / SHARE)

    def _log_metrics(self, report: Report) -> None:
        assert self.logger is not None
        metrics = {"sweep/hypervolume": report.gain(report.finished), "sweep/flops_spent": report.flops_spent}
        logged = (report.states["complete"] + report.states["pruned"], metrics)
        if logged != self._logged:
            self.logger.log_metrics(metrics, logged[0])
            self._logged = logged


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
