"""What a sweep says about N at equal training FLOPs: by slice of the answers, as plain data, tables and pictures."""

from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from sleep_lightning.runs.files import write_json
from sleep_lightning.sweep.bootstrap import LEAST_SEEDS
from sleep_lightning.sweep.cells import Selected, cells, select, slices
from sleep_lightning.sweep.finished_runs import finished_runs
from sleep_lightning.sweep.iso_flop import Cell, Curve, Estimate, Seeds, curves
from sleep_lightning.sweep.law import LEAST_R2, MOST_MISS, Law, fit_law, why_no_law
from sleep_lightning.sweep.point import TRAIN_FLOPS
from sleep_lightning.sweep.report.content import Report
from sleep_lightning.tracking.figures.law_plot import Bowl, LawPanel, draw_law

JSON, PNG = "law.json", "law.png"


@dataclass(frozen=True)
class SliceLaw:
    """A slice of the answers.

    Attributes:
        name: of the slice.
        cells: losses by N and budget.
        means: of each cell, over the seeds that have finished in all of them.
        seeds: how many those are.
        curves: by budget.
        exponent: a of ``N* ~ C^a``, if there is one.
        law: over N and tokens, whether it fits or not; None if there can be none.
    """

    name: str
    cells: tuple[Cell, ...]
    means: tuple[float, ...]
    seeds: int
    curves: tuple[Curve, ...]
    exponent: Estimate | None
    law: Law | None

    def panel(self) -> LawPanel:
        """To be drawn."""
        return LawPanel(self.name, tuple(self._bowl(curve) for curve in self.curves))

    def _bowl(self, curve: Curve) -> Bowl:
        shared = set.intersection(*(set(cell.losses) for cell in self.cells))  # the seeds that the means are of
        losses = [
            [cell.losses[seed] for seed in shared]
            for n in curve.losses
            for cell in self.cells
            if (cell.budget, cell.n_passes) == (curve.budget, n)
        ]
        return Bowl(
            budget=curve.budget,
            depths=tuple(curve.losses),
            means=tuple(curve.losses.values()),
            lows=tuple(map(min, losses)),
            highs=tuple(map(max, losses)),
            best=(curve.best.value, curve.best.low, curve.best.high),
        )

    def verdict(self) -> str:
        """One sentence on the law."""
        if self.law is None:
            return f"no law: {why_no_law(self.cells, self.means)}"
        law, found = self.law, f"R2 {self.law.r2:.2f}"
        missed = "one budget" if law.miss is None else f"misses the largest budget by {law.miss:.0%}"
        if not law.fits:
            return f"no law is stated: {found}, {missed} (it takes {LEAST_R2} and {MOST_MISS:.0%})"
        worth = f"a token with N passes is worth N^{law.phi} tokens and costs N^{law.cost:.2f}"
        return f"{worth}: {self._looping(law)} ({found}, {missed})"

    def _looping(self, law: Law) -> str:
        if self.seeds < LEAST_SEEDS:
            return f"too few seeds for a verdict: {self.seeds} of {LEAST_SEEDS}"
        pays = "pays" if law.phi.low > law.cost else "does not pay" if law.phi.high < law.cost else "is not decided"
        return f"looping {pays} at equal training FLOPs"


@dataclass(frozen=True)
class Laws:
    """Of a sweep.

    Attributes:
        slices: all answers, then each slice.
        selected: the runs behind them.
    """

    slices: tuple[SliceLaw, ...]
    selected: tuple[Selected, ...]

    @classmethod
    def of(cls, folder: Path, report: Report) -> "Laws":
        """Of a sweep's finished runs. Raises ValueError: no run, or no seed at every N and budget, has finished."""
        selected, found = select(finished_runs(folder, report)), []
        for name in slices(selected):
            of_slice = cells(selected, name)
            seeds = Seeds(of_slice)
            by_budget, exponent = curves(of_slice, seeds)
            means, law = tuple(seeds.means.tolist()), fit_law(of_slice, seeds)
            found.append(SliceLaw(name, tuple(of_slice), means, seeds.count, tuple(by_budget), exponent, law))
        return cls(tuple(found), tuple(selected))

    @classmethod
    def over_budgets(cls, folder: Path, report: Report) -> "Laws | None":
        """Of a sweep over budgets of training FLOPs; None for another, or as long as there is no curve."""
        if TRAIN_FLOPS not in report.definition["space"]:
            return None
        try:
            laws = cls.of(folder, report)
        except ValueError:  # no run has finished yet, or no seed everywhere
            return None
        return laws if any(law.curves for law in laws.slices) else None

    def write(self, folder: Path, title: str) -> list[Path]:
        """Write ``law.json`` and, if there are curves, ``law.png``. Raises OSError: the folder cannot be written."""
        files = [folder / JSON]
        content = {"cells": [_cell(one) for one in self.selected], "slices": [_plain(law) for law in self.slices]}
        write_json(files[0], content)
        if drawn := [law.panel() for law in self.slices if law.curves]:
            files.append(folder / PNG)
            draw_law(drawn, files[-1], title)
        return files


def _cell(one: Selected) -> dict[str, Any]:
    return {"n_passes": one.n_passes, "budget": one.budget, "others": one.others, "tried": one.tried}


def _plain(law: SliceLaw) -> dict[str, Any]:
    content: dict[str, Any] = _finite(asdict(law))
    return content | {"fits": law.law is not None and law.law.fits, "verdict": law.verdict()}


def _finite(content: Any) -> Any:
    """JSON has neither infinities nor keys that are numbers."""
    if isinstance(content, float):
        return content if isfinite(content) else None
    if isinstance(content, dict):
        return {str(key): _finite(value) for key, value in content.items()}
    return [_finite(value) for value in content] if isinstance(content, list | tuple) else content
