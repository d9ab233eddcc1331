"""A sweep's frontier and baselines in MLflow: the curves of a run that is made anew when they change."""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

FRONTIER = "sleep_lightning.frontier"
"""Tag of the run that holds the lines: a hash of them."""
EDGE = "frontier"
"""Metric of the frontier's line."""
BLACK = "#000000"
_CORNER = 1e-9
"""A step's corner lies so much before its end: MLflow orders the points of a curve by their x."""


@dataclass(frozen=True)
class Lines:
    """What is drawn among the runs of a sweep.

    Attributes:
        left, right: ends of the x-axis.
        edge: x and y of the frontier's points, left to right; empty: there is no frontier.
        levels: horizontal lines by metric.
    """

    left: float
    right: float
    edge: Sequence[tuple[float, float]] = ()
    levels: Mapping[str, float] = field(default_factory=dict)

    @property
    def metrics(self) -> list[str]:
        """Names of the lines."""
        return [*([EDGE] if self.edge else []), *self.levels]

    def rows(self, x_metric: str) -> list[dict[str, float]]:
        """Their points, left to right: metrics by name, x among them. The frontier is drawn in steps."""
        rows = [{x_metric: self.left} | dict(self.levels)]
        height: float | None = None
        for x, y in self.edge:
            if height is not None:
                rows.append({x_metric: x - _CORNER, EDGE: height})
            rows.append({x_metric: x, EDGE: y})
            height = y
        rows.append({x_metric: self.right} | dict(self.levels) | ({} if height is None else {EDGE: height}))
        return rows


def record_lines(client: "MlflowClient", parent: "Run", lines: Lines, x_metric: str, drawn: "Sequence[Run]") -> None:
    """Record the lines as a run under the sweep's, unless they are there; the run with the lines before goes.

    Args:
        client: of the store.
        parent: the sweep's run.
        lines: what is drawn.
        x_metric: metric of the x-axis.
        drawn: runs with earlier lines.
    """
    from mlflow.entities import Metric

    rows = lines.rows(x_metric)
    now = hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]
    if [run.data.tags[FRONTIER] for run in drawn] == [now]:
        return
    tags = {FRONTIER: now, "mlflow.parentRunId": parent.info.run_id, "mlflow.runColor": BLACK}
    made = client.create_run(parent.info.experiment_id, run_name="frontier and baselines", tags=tags).info.run_id
    stamp = int(time.time() * 1000)
    metrics = [Metric(name, y, stamp, step) for step, row in enumerate(rows, 1) for name, y in row.items()]
    for start in range(0, len(metrics), 1000):
        client.log_batch(made, metrics=metrics[start : start + 1000])
    client.set_terminated(made)
    for run in drawn:
        client.delete_run(run.info.run_id)
