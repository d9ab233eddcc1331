"""``sweep``: search for the frontier of accuracy over cost."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState
from rich.console import Console
from rich.table import Table

from sleep_lightning.commands.report import print_facts
from sleep_lightning.commands.signals import SignalsInterrupt
from sleep_lightning.commands.sweep_progress import watch
from sleep_lightning.run_directory import RunDirectory, write_json
from sleep_lightning.sweep.frontier import dominated_share, frontier
from sleep_lightning.sweep.space import written
from sleep_lightning.sweep.spec import Sweep, load_sweep
from sleep_lightning.sweep.study import finished, flops_spent, open_study, points
from sleep_lightning.sweep.supervisor import Supervisor, sole_supervisor
from sleep_lightning.sweep.trial import build_trial, with_tracking
from sleep_lightning.tracking.figures import draw_frontier
from sleep_lightning.tracking.mlflow_logger import MLflowRun, Status
from sleep_lightning.training.environment import check_device
from sleep_lightning.training.progress import with_unit

SHOWN_DRY = 8


@dataclass(frozen=True)
class SweepJob:
    """A checked request to search."""

    sweep: Sweep
    folder: Path


@dataclass(frozen=True)
class Best:
    """A trial on the frontier: its point, what it reached (mean over seeds, and each), what one run cost."""

    trial: int
    values: dict[str, Any]
    exact_match: float
    exact_match_by_seed: list[float]
    train_flops: float

    @classmethod
    def of(cls, trial: optuna.trial.FrozenTrial) -> "Best":
        facts, result = trial.user_attrs, trial.user_attrs["result"]
        by_seed = facts["exact_match_by_seed"]
        return cls(trial.number, facts["values"], result["exact_match"], by_seed, result["train_flops"])


def prepare(path: str, output: str | None) -> SweepJob:
    """All that can go wrong before any compute. Raises ValueError: bad input."""
    sweep = load_sweep(path)
    check_device(sweep.base)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return SweepJob(sweep, Path(output or f"runs/sweeps/{sweep.spec.name}"))


def dry_run(job: SweepJob) -> int:
    """Print the first points that would be trained, with their cost."""
    study = optuna.create_study(
        sampler=optuna.samplers.RandomSampler(seed=job.sweep.spec.sampler_seed),
        directions=list(job.sweep.spec.objectives.values()),  # type: ignore[arg-type]
    )
    table = Table(title=f"{job.sweep.spec.name}: points as they may come", title_justify="left")
    for column in ("point", "training FLOPs", "note"):
        table.add_column(column)
    for number in range(SHOWN_DRY):
        values = job.sweep.space.suggest(study.ask())
        try:
            flops, note = with_unit(build_trial(job.sweep, number, values, job.folder).train_flops), ""
        except ValueError as error:
            flops, note = "-", f"not run: {error}"
        table.add_row(written(values), flops, note)
    Console().print(table)
    return 0


def sweep(job: SweepJob) -> int:
    """Search until the budget is used up. Returns 0, or 128 + signal number (the same command goes on)."""
    console, live = Console(), Console(stderr=True)
    signals = SignalsInterrupt()
    logger: MLflowRun | None = None
    status: Status = "FAILED"
    try:
        with signals, sole_supervisor(job.folder):
            study = open_study(job.sweep, job.folder)
            logger = _open_tracking(job)
            overrides = with_tracking(job.sweep, None if logger is None else logger.run_id)
            supervisor = Supervisor(job.sweep, study, job.folder, overrides)
            watch(supervisor, live, lambda: _log(supervisor, logger))
            _report(job, study, console, logger)
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        console.print("stopped; running trials saved their state: the same command goes on with them", highlight=False)
        return signals.exit_code
    except ValueError as error:  # the folder is another's
        live.print(f"error: {error}", highlight=False, soft_wrap=True)
        return 2
    finally:
        if logger is not None:
            logger.end(status)
    return 0


def _open_tracking(job: SweepJob) -> MLflowRun | None:
    t = job.sweep.base.tracking
    if not t.enabled:
        return None
    directory = RunDirectory(job.folder)
    logger = MLflowRun(t.uri, t.experiment, job.sweep.spec.name, directory.mlflow_run_id)
    directory.record_mlflow_run(logger.run_id)
    return logger


def _log(supervisor: Supervisor, logger: MLflowRun | None) -> None:
    if logger is not None:
        now, area = supervisor.snapshot(), hypervolume_of(finished(supervisor.study))
        logger.log_metrics({"sweep/hypervolume": area, "sweep/flops_spent": now.ended_flops}, now.counted)


def hypervolume_of(trials: list[optuna.trial.FrozenTrial]) -> float:
    """Share of the area below exact match 1 and the largest cost that the frontier dominates."""
    return dominated_share(points(trials))


def _report(job: SweepJob, study: optuna.Study, console: Console, logger: MLflowRun | None) -> None:
    trials = finished(study)
    found = points(trials)
    edge = [Best.of(trials[i]) for i in frontier(found)]
    states = {state: len(study.get_trials(deepcopy=False, states=(state,))) for state in TrialState}
    counts = ", ".join(f"{n} {state.name.lower()}" for state, n in states.items() if n)
    facts = {"trials": counts, "FLOPs spent": with_unit(flops_spent(study)), "folder": str(job.folder)}
    if edge:
        figures, picture = job.folder / "frontier.json", job.folder / "frontier.png"
        write_json(figures, {"name": job.sweep.spec.name, "frontier": [asdict(best) for best in edge]})
        depth = [t.user_attrs["values"].get("sleep.n_passes", job.sweep.base.sleep.n_passes) for t in trials]
        draw_frontier(found, depth, [(b.train_flops, b.exact_match) for b in edge], picture, job.sweep.spec.name)
        console.print(_table(job.sweep.spec.name, edge))
        facts |= {"picture": str(picture), "figures": str(figures)}
        if logger is not None:
            for file in (picture, figures):
                logger.log_artifact(file)
    print_facts(console, facts)


def _table(name: str, edge: list[Best]) -> Table:
    table = Table(title=f"{name}: what no other trial beats in accuracy and cost", title_justify="left")
    for column in ("trial", "training FLOPs", "exact match", "point"):
        table.add_column(column, justify="left" if column == "point" else "right")
    for best in edge:
        numbers = (str(best.trial), with_unit(best.train_flops), f"{best.exact_match:.3f}")
        table.add_row(*numbers, written(best.values))
    return table
