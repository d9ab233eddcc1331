"""Where a sweep's numbers come from: dates, commits, machines, software, the search, MLflow."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import optuna

from sleep_lightning.formatting import duration, in_flop, with_unit
from sleep_lightning.sweep.report.rows import Row
from sleep_lightning.sweep.space import in_yaml
from sleep_lightning.sweep.spec import Budget, Reseed
from sleep_lightning.tracking.mlflow_views import WORKFLOW

CHARTS = "charts"
"""Attribute of a study: MLflow's chart page, as ``vars`` of a ``ChartPage``."""
MACHINE = ("machine", "cpu", "device")
SOFTWARE = ("sleep_lightning", "python", "torch")
"""Facts of a run's environment that are shown."""


@dataclass(frozen=True)
class Origin:
    """Attributes:
    started: when the first trial was.
    ended: when the last trial did.
    run_seconds: wall time of all finished runs.
    environments: of each finished run (``describe_environment``).
    spec: as it was saved; empty in folders of earlier versions.
    charts: MLflow's chart page, and the command that serves it, if one must; empty without.
    """

    started: datetime | None
    ended: datetime | None
    run_seconds: float
    environments: tuple[dict[str, str], ...]
    spec: dict[str, Any]
    charts: dict[str, str | None]

    @classmethod
    def of(
        cls, trials: Sequence[Row], runs: Sequence[Mapping[str, Any]], spec: dict[str, Any], study: optuna.Study
    ) -> "Origin":
        """Of a study.

        Args:
            trials: all of them.
            runs: summaries of the finished runs.
            spec: as it was saved.
            study: may know MLflow's chart page.
        """
        found = [run["environment"] for run in runs if isinstance(run.get("environment"), dict)]
        return cls(
            started=min((t.started for t in trials if t.started), default=None),
            ended=max((t.ended for t in trials if t.ended), default=None),
            run_seconds=sum(float(run["wall_s"]) for run in runs),
            environments=tuple(found),
            spec=spec,
            charts=study.user_attrs.get(CHARTS, {}),
        )

    def facts(self) -> Iterator[tuple[str, str]]:
        """Name and value of each."""
        yield "search", self._search()
        if self.started is None:
            yield "date", "no trial has been started yet"
        elif self.ended is None:
            yield "date", f"{_minute(self.started)}; no trial has ended yet"
        else:
            began, ended = _minute(self.started), _minute(self.ended)
            yield "date", began if began == ended else f"{began} to {ended}"
            took, trained = (self.ended - self.started).total_seconds(), duration(self.run_seconds)
            yield "wall time", f"{duration(took)} from the first start to the last end; finished runs {trained}"
        if not self.environments:
            yield "commit, machine", "not known: no finished run has recorded them"
            return
        yield "commit", _counted(e.get("git_commit", "unknown") for e in self.environments)
        yield "machine", _counted(", ".join(e[name] for name in MACHINE if name in e) for e in self.environments)
        yield "software", _counted(", ".join(f"{x} {e[x]}" for x in SOFTWARE if x in e) for e in self.environments)

    def run_url(self, run_id: str | None) -> str | None:
        """MLflow's page of a run."""
        if run_id is None or not (url := self.charts_url):
            return None
        return f"{url.partition('/runs?')[0]}/runs/{run_id}?workflowType={WORKFLOW}"

    @property
    def charts_url(self) -> str | None:
        """MLflow's chart page."""
        url = self.charts.get("url")
        return url if url and url.startswith(("http://", "https://")) else None

    def _search(self) -> str:
        if not self.spec:
            return "not known: the folder holds no copy of the sweep's file"
        budget = vars(Budget()) | (self.spec.get("budget") or {})
        reseed = vars(Reseed()) | (self.spec.get("reseed") or {})
        parts = [f"sampler {self.spec.get('sampler', '?')}", f"pruner {self.spec.get('pruner', '?')}"]
        parts.append(f"at most {budget['trials']} trials")
        parts += [in_flop(budget["flops"])] if budget["flops"] else []
        parts += [f"{budget['hours']:g} h"] if budget["hours"] else []
        parts += [f"{name} <= {_bound(name, most)}" for name, most in (self.spec.get("constraints") or {}).items()]
        parts += [f"up to {reseed['seeds']} seeds of points that decide the frontier"] if reseed["seeds"] else []
        return ", ".join(parts)


def values_of(parameter: Mapping[str, Any]) -> tuple[str, str]:
    """When a key of the space applies, and its values."""
    if parameter.get("choices") is not None:
        values = ", ".join(map(in_yaml, parameter["choices"]))
    else:
        step = parameter.get("step")
        values = f"{in_yaml(parameter['low'])} to {in_yaml(parameter['high'])}"
        values += ", logarithmic" if parameter.get("log") else f", in steps of {in_yaml(step)}" if step else ""
    conditions = (parameter.get("when") or {}).items()
    return " and ".join(f"{key} is {' or '.join(map(in_yaml, allowed))}" for key, allowed in conditions), values


def _bound(name: str, most: float) -> str:
    return with_unit(most, "B" if name.endswith("bytes") else "FLOP")


def _counted(texts: Iterable[str]) -> str:
    """Each once; of several, with the number of runs."""
    counts = Counter(texts)
    if len(counts) == 1:
        return next(iter(counts))
    return "; ".join(f"{text} ({n} run{'s' if n > 1 else ''})" for text, n in counts.items())


def _minute(when: datetime) -> str:
    return f"{when.astimezone():%Y-%m-%d %H:%M %Z}"
