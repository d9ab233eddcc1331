"""``sweep``: search for the frontier of accuracy over cost."""

import shlex
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import torch
from rich.console import Console
from rich.table import Table

from sleep_lightning.cli.console import plain_console, print_facts
from sleep_lightning.cli.places import file_to_write
from sleep_lightning.cli.sweep_progress import watch
from sleep_lightning.cli.sweep_show import frontier_table, report_facts
from sleep_lightning.formatting import with_unit
from sleep_lightning.names import check_path
from sleep_lightning.runs.directory import RunDirectory
from sleep_lightning.runs.signals import SignalsInterrupt
from sleep_lightning.sweep.folder import find_sweep, is_supervised, load_saved, save_sweep, sole_supervisor
from sleep_lightning.sweep.gpus import check_gpus
from sleep_lightning.sweep.launchers.choose import choose_launcher
from sleep_lightning.sweep.records import Records
from sleep_lightning.sweep.report.content import build_report
from sleep_lightning.sweep.report.publisher import Publisher
from sleep_lightning.sweep.share import share_of
from sleep_lightning.sweep.space import written
from sleep_lightning.sweep.spec import Sweep, load_sweep
from sleep_lightning.sweep.study import open_study
from sleep_lightning.sweep.supervisor import Supervisor
from sleep_lightning.sweep.trial import build_trial, with_tracking
from sleep_lightning.sweep.undo import NewFiles
from sleep_lightning.tracking.loggers import open_mlflow
from sleep_lightning.tracking.mlflow_logger import MLflowRun, Status
from sleep_lightning.tracking.sync import send_all
from sleep_lightning.training.runtime.environment import check_device

SHOWN_DRY = 20


@dataclass(frozen=True)
class SweepJob:
    """A checked request to search.

    Attributes:
        sweep: to run.
        folder: of the sweep.
        records: finished runs, to be taken and added.
    """

    sweep: Sweep
    folder: Path
    records: Records | None = None


def prepare(path: str, output: str | None, share: str | None = None, records: str | None = None) -> SweepJob:
    """All that can go wrong before any compute.

    Args:
        path: of the sweep's YAML.
        output: its folder; None: by its name.
        share: ``I/N``, of its seeds.
        records: file of finished runs.

    Raises:
        ValueError: bad input.
    """
    if not path.endswith((".yaml", ".yml")):
        raise ValueError(
            f"sweep {path}: neither a sweep file (its name ends in .yaml or .yml) nor one of run, resume, "
            f"report, list, show, best; python -m sleep_lightning sweep --help explains them"
        )
    if output is not None:
        check_path("--output", output)
    sweep = load_sweep(path)
    if share is not None:
        sweep = share_of(sweep, share)
    return _job(sweep, Path(f"runs/sweeps/{sweep.spec.name}" if output is None else output), records)


def prepare_resume(name: str, overrides: Sequence[str] = (), records: str | None = None) -> SweepJob:
    """A sweep that was started, from its saved copy, with ``key=value`` changes of its file.

    Raises:
        ValueError: there is none, it is being run, or the changes cannot be made.
    """
    folder = find_sweep(name)
    if is_supervised(folder):
        raise ValueError(f"{folder} is being run by another process; look at it with: sweep show {shlex.quote(name)}")
    return _job(load_saved(folder, overrides), folder, records)


def _job(sweep: Sweep, folder: Path, records: str | None) -> SweepJob:
    check_device(sweep.base)
    check_gpus(sweep.spec.devices, torch.cuda.device_count())
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    file = file_to_write("--records", records)
    known = None if file is None else Records(file)
    if known is not None:
        len(known)  # damage is found now
    return SweepJob(sweep, folder, known)


def dry_run(job: SweepJob) -> int:
    """Print the points of a grid, or examples of others, with their cost."""
    grid = job.sweep.spec.sampler == "grid"
    points = job.sweep.space.points() if grid else _examples(job.sweep)
    what = f"{len(points)} points" if grid else "example points"
    table = Table(title=f"{job.sweep.spec.name}: {what}", title_justify="left")
    for column in ("point", "training FLOPs", "note"):
        table.add_column(column)
    for number, values in enumerate(points[:SHOWN_DRY]):
        try:
            flops, note = with_unit(build_trial(job.sweep, number, values, job.folder).train_flops), ""
        except ValueError as error:
            flops, note = "-", f"not run: {error}"
        table.add_row(written(values), flops, note)
    plain_console().print(table)
    if len(points) > SHOWN_DRY:
        plain_console().print(f"and {len(points) - SHOWN_DRY} more")
    return 0


def _examples(sweep: Sweep) -> list[dict[str, Any]]:
    """Random points, each once."""
    study = optuna.create_study(
        sampler=optuna.samplers.RandomSampler(seed=sweep.spec.sampler_seed),
        directions=list(sweep.spec.objectives.values()),  # type: ignore[arg-type]
    )
    points = [sweep.space.suggest(study.ask()) for _ in range(SHOWN_DRY)]
    return list({repr(point): point for point in points}.values())


def sweep(job: SweepJob) -> int:
    """Search until the budget is used up. Returns 0, or 128 + signal number (rerun the command to resume)."""
    with SignalsInterrupt() as signals:
        return _sweep(job, signals)


def _sweep(job: SweepJob, signals: SignalsInterrupt) -> int:
    console, live = plain_console(), plain_console(stderr=True)
    logger: MLflowRun | None = None
    status: Status = "FAILED"
    new = NewFiles(job.folder, job.sweep.spec.storage)
    try:
        with sole_supervisor(job.folder):
            with ExitStack() as undo:
                undo.callback(new.remove)
                launcher = choose_launcher(job.sweep.spec, job.folder)
                study = open_study(job.sweep, job.folder, undo)
                logger = _open_tracking(job)
                undo.pop_all()
            save_sweep(job.sweep, job.folder)
            publisher = Publisher(study, job.folder, logger, job.sweep.varying())
            publisher.begin(job.sweep.spec)
            _show_charts(publisher, console)
            overrides = with_tracking(job.sweep, None if logger is None else logger.run_id)
            supervisor = Supervisor(job.sweep, study, job.folder, overrides, launcher=launcher, records=job.records)
            if job.records is not None:
                known = f"{job.records.path}: {len(job.records)} finished runs"
                console.print(known, highlight=False, soft_wrap=True)
                supervisor.record_ended()
            watch(supervisor, live, publisher.refresh)
            if logger is not None:
                send_all(job.folder, job.sweep.base.tracking.uri)
            publisher.publish()
            report = build_report(study, job.folder)
            if report.finished:
                console.print(frontier_table(report))
            print_facts(console, report_facts(report, job.folder))
            _show_charts(publisher, console)
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        console.print("stopped; running trials have saved their state: rerun the command to resume", highlight=False)
        return signals.exit_code
    except ValueError as error:  # the folder belongs to another sweep, or a service is missing
        live.print(f"error: {error}", highlight=False, soft_wrap=True)
        return 2
    finally:
        with signals.held():
            if logger is not None:
                logger.end(status)
    return 0


def _open_tracking(job: SweepJob) -> MLflowRun | None:
    t = job.sweep.base.tracking
    if not t.enabled:
        return None
    directory = RunDirectory(job.folder)
    return open_mlflow(t, directory, job.sweep.spec.name, directory.mlflow_run_id)


def _show_charts(publisher: Publisher, console: Console) -> None:
    if (page := publisher.preset_charts()) is not None:
        console.print(f"MLflow charts: {page}", highlight=False, soft_wrap=True)
