"""``sweep``: search for the frontier of accuracy over cost."""

import shlex
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import optuna
import torch
from rich.console import Console

from sleep_lightning.cli.console import plain_console, print_facts, say
from sleep_lightning.cli.places import file_to_write
from sleep_lightning.cli.sweep_progress import watch
from sleep_lightning.cli.sweep_show import frontier_table, report_facts, sweep_state
from sleep_lightning.names import check_path
from sleep_lightning.runs.directory import RunDirectory
from sleep_lightning.runs.infrastructure import Ended
from sleep_lightning.runs.signals import SignalsInterrupt
from sleep_lightning.runs.space import refusal
from sleep_lightning.sweep.folder import find_sweep, is_supervised, load_saved, save_sweep, sole_supervisor
from sleep_lightning.sweep.gpus import check_gpus
from sleep_lightning.sweep.launchers.choose import choose_launcher
from sleep_lightning.sweep.measures import metric_of
from sleep_lightning.sweep.mlflow_runs import RunImport
from sleep_lightning.sweep.records import Records
from sleep_lightning.sweep.report.content import build_report
from sleep_lightning.sweep.report.publisher import Publisher
from sleep_lightning.sweep.share import share_of
from sleep_lightning.sweep.spec import Sweep, load_sweep
from sleep_lightning.sweep.study import open_study
from sleep_lightning.sweep.supervisor import Supervisor
from sleep_lightning.sweep.trial import with_tracking
from sleep_lightning.sweep.undo import NewFiles
from sleep_lightning.tracking.loggers import open_mlflow, written_names
from sleep_lightning.tracking.mlflow_logger import MLflowRun, Status
from sleep_lightning.tracking.sync import send_all
from sleep_lightning.training.runtime.environment import check_device, git_commit


@dataclass(frozen=True)
class SweepJob:
    """A checked request to search."""

    sweep: Sweep
    folder: Path
    records: Records | None = None


def prepare(path: str, output: str | None, share: str | None = None, records: str | None = None) -> SweepJob:
    """All that can go wrong before any compute.

    Raises:
        ValueError: bad input.
    """
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


def sweep(job: SweepJob) -> int:
    """Search until the budget is used up. Returns 0; 128 + signal number, or the ``Cause`` that kept a trial from
    finishing (rerun the command to resume)."""
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
            unrecorded = RunImport(
                job.folder, job.sweep.base.tracking, frozenset(map(metric_of, job.sweep.spec.objectives))
            )
            publisher = Publisher(study, job.folder, logger, job.sweep.varying(), unrecorded=unrecorded)
            publisher.begin(job.sweep, git_commit())
            _show_charts(publisher, console)
            overrides = with_tracking(job.sweep, None if logger is None else logger.run_id)
            supervisor = Supervisor(job.sweep, study, job.folder, overrides, launcher=launcher, records=job.records)
            if job.records is not None:
                known = f"{job.records.path}: {len(job.records)} finished runs"
                say(console, known)
                supervisor.record_ended()
            watch(supervisor, live, publisher.refresh)
            publisher.close()  # what is set up now may lack the last runs
            if logger is not None:
                if logger.run_id is not None and (left := unrecorded.queue(logger.run_id)):
                    say(live, f"MLflow: recording {left} finished run{'s' * (left > 1)} that it lacks")
                    unrecorded.send()
                send_all(job.folder, job.sweep.base.tracking.uri)
            publisher.publish()
            report = build_report(study, job.folder)
            if report.finished:
                console.print(frontier_table(report))
            print_facts(console, report_facts(report, job.folder, sweep_state(report, supervised=False)))
            publisher.close()
            _show_charts(publisher, console)
        if supervisor.put_aside:
            return _say_put_aside(supervisor.put_aside, live)
        if report.states["failed"] and not report.states["complete"] + report.states["pruned"]:
            where = f"python -m sleep_lightning sweep show {shlex.quote(str(job.folder))}"
            say(live, f"error: every trial failed; see why: {where}")
            return 1
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        console.print("stopped; running trials have saved their state: rerun the command to resume", highlight=False)
        return signals.exit_code
    except ValueError as error:  # the folder belongs to another sweep, or a service is missing
        text, code = refusal(error)
        say(live, f"error: {text}")
        return code
    finally:
        with signals.held():
            if logger is not None:
                logger.end(status)
    return 0


def _say_put_aside(trials: dict[int, Ended], console: Console) -> int:
    """What the machine kept from finishing. Returns the exit code of the first such failure."""
    for number, ended in trials.items():
        text = f"error: trial {number} is not finished: {ended}; rerun the command to resume it"
        say(console, text)
    return int(next(iter(trials.values())).cause or 1)


def _open_tracking(job: SweepJob) -> MLflowRun | None:
    t = job.sweep.base.tracking
    if not t.mlflow:
        return None
    directory = RunDirectory(job.folder)
    base, name = job.sweep.base, job.sweep.spec.name
    return open_mlflow(t, directory, name, directory.mlflow_run_id, written=written_names(base, name))


def _show_charts(publisher: Publisher, console: Console) -> None:
    if (page := publisher.charts) is not None:
        say(console, f"MLflow charts: {page}")
